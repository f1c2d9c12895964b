"""The loop of every sweep: claim trials, launch them, wait for them, report; and the grid.

Hydra's launchers are used, its sweepers' loops are not: they stop at the first failed job, repeat
everything when they are started again, and lose a whole batch when a launcher loses one worker.
So a trial's outcome is read from its record, not from the launcher's answer.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial
from scene_track.sweeps.trial import quoted

log = logging.getLogger(__name__)

_POLL_S = 1.0
_STARTS = 2  # of a combination whose process dies, in one command

Point = tuple[tuple[str, ...], dict[str, str]]  # all overrides; values of the keys that vary


class SweepFailed(ValueError):
    """Trials of a sweep failed; one line tells it.

    Attributes:
        code: of the exit; 2 if all of them failed by a user's mistake, else 1.
    """

    code: Literal[1, 2] = 1


class TrialSweeper(Sweeper):
    """Base of the sweepers: makes trials until none is left to make."""

    run: DictConfig  # composed without what the sweep varies
    folder: Path
    one_by_one: bool  # Hydra's own launcher runs one job after the other

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Build the launcher; a ValueError is raised if ``hydra.sweep.subdir`` is typed."""
        self.hydra_context, self.config, self.run = hydra_context, config, config
        self.folder = Path(config.hydra.sweep.dir).absolute()
        for word in config.hydra.overrides.hydra:
            if word.startswith("hydra.sweep.subdir="):
                raise ValueError(
                    f"{word}: the folders of a sweep's trials are numbered, so that it can be"
                    " resumed; leave it out, and name the sweep's folder by hydra.sweep.dir=…"
                )
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        kind = type(self._launcher).__module__
        self.one_by_one = kind.startswith("hydra._internal")
        # A cluster may start a trial long after its launcher has lost another one.
        self._patience_s = 60.0 if "submitit" in kind else 0.0

    @abstractmethod
    def _prepare(self, arguments: list[str]) -> None:
        """Read the overrides; nothing is written yet."""

    @abstractmethod
    def _begin(self) -> None:
        """Called once the folder exists and dead trials are recorded."""

    @abstractmethod
    def _take(self) -> list[Path]:
        """Claim the next trials; none if there are none, or other processes make them."""

    def _finish(self, trials: Sequence[Trial]) -> None:
        """Called with the trials that were taken when they have ended."""

    @abstractmethod
    def _failures(self, trials: Sequence[Trial]) -> list[Trial]:
        """Of all trials, those by which the sweep counts as failed."""

    def _left(self) -> list[str]:
        """The trials that other processes still make."""
        trials = records.read_all(self.folder).values()
        left = [trial for trial in trials if trial.state in records.UNFINISHED]
        return [f"trial {t.number} on {t.process.host if t.process else '?'}" for t in left]

    def _beat(self) -> None:
        """Called every ``records.BEAT_S`` seconds while trials run."""

    def sweep(self, arguments: list[str]) -> Any:
        """Make the trials that are missing."""
        self._prepare(arguments)
        with records.locked(self.folder):
            OmegaConf.save(self.run, self.folder / "multirun.yaml")
        records.bury(self.folder)
        self._begin()
        with self._reported():
            while (folders := self._take()) or self._look_again():
                trials = self._launch(folders) if folders else []
                self._finish(trials)
                if lost := [str(trial.number) for trial in trials if trial.fault == "died"]:
                    log.warning("lost, to be started once more: trials %s", ", ".join(lost))
            if names := self._left():
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                log.warning(
                    "other processes still make %d trials (%s); run the same command again later:"
                    " it makes those that died",
                    *(len(names), ", ".join(names[:5]) + more),
                )
        trials = list(records.read_all(self.folder).values())
        if failed := self._failures(trials):
            first = f"trial {failed[0].number}: {failed[0].reason}"
            tried = len({t.overrides for t in trials if t.state in records.DONE})
            points = len({t.overrides for t in failed})
            error = SweepFailed(f"{points} of {tried + points} trials failed, the first: {first}")
            error.code = 2 if all(t.fault == "mistake" for t in failed) else 1
            raise error

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Write the report however the sweep ends; after an exception, print how to resume."""
        try:
            yield
        except BaseException:
            typed = [word for word in sys.argv[1:] if not word.startswith("hydra.sweep.dir=")]
            module = getattr(sys.modules["__main__"], "__spec__", None)
            program = ["-m", module.name] if module is not None else [sys.argv[0]]
            command = ["python", *program, *typed, f"hydra.sweep.dir={quoted(self.folder)}"]
            print(f"to resume: {shlex.join(command)}", file=sys.stderr, flush=True)
            raise
        finally:
            from scene_track.sweeps.report import report

            try:
                report(self.folder)
            except FileNotFoundError as error:  # other processes made all trials elsewhere
                log.info("no report: %s", error)
            except Exception:  # must not hide how the sweep ended
                log.exception("no report could be made of %s", self.folder)

    def _look_again(self) -> bool:
        """Whether trials of other processes have died.

        Each trial on another machine is waited for until it gives a sign of life or counts as
        dead. A sweep that is resumed on a new machine right after a kill would otherwise end
        without the trials of the machine that is gone.
        """
        if first := records.unsure(self.folder):
            log.info("waiting up to %.0f s for signs of life of %d trials of other machines",
                     records.SILENT_S, len(first))  # fmt: skip
        end = time.monotonic() + records.SILENT_S + _POLL_S  # clocks of machines may differ
        while time.monotonic() < end and any(
            first.get(folder) == beat for folder, beat in records.unsure(self.folder).items()
        ):
            time.sleep(_POLL_S)
        return bool(records.bury(self.folder))

    def _launch(self, folders: Sequence[Path]) -> list[Trial]:
        """Launch claimed trials and wait until all of them have ended."""
        claimed = records.read_all(self.folder)
        jobs = [[*claimed[f].overrides, f"hydra.sweep.subdir={f.name}"] for f in folders]
        with records.kept_waiting(folders, self._beat):
            try:
                self._launcher.launch(jobs, initial_job_idx=int(folders[0].name))
            except (HydraException, OmegaConfBaseException):  # the sweep itself is wrong
                for folder in folders:
                    records.give_up(folder, claimed[folder], "it could not be launched")
                raise
            except Exception as error:  # whatever a launcher's library raises for a lost worker
                reason = " ".join(str(error).split())
                log.warning("the launcher gave up: %s: %s", type(error).__name__, reason)
            return [self._ended(folder, claimed[folder]) for folder in folders]

    def _ended(self, folder: Path, claimed: Trial) -> Trial:
        """A trial's record when it has ended; after a launcher's fault it may still run."""
        since = time.monotonic()
        while (trial := records.read(folder)) is not None and trial.state in records.UNFINISHED:
            if trial.state == "waiting" and time.monotonic() - since > self._patience_s:
                records.give_up(folder, trial, "its launcher never started it")
            elif records.is_dead(folder, trial):
                records.give_up(folder, trial, records.GONE)
            else:
                time.sleep(_POLL_S)
        return trial or claimed.failed("its record is gone", "died")


class GridSweeper(TrialSweeper):
    """``--multirun a=1,2 b=3,4``: every combination once, however often the command is started.

    A combination that is complete in the sweep's folder is skipped, one that another process trains
    is left to it, and one that failed in an earlier command or whose process died is trained again,
    in a new folder. So a killed grid resumes, and machines share a grid by sharing its folder.

    By files instead of Optuna's ``GridSampler``: that draws in random order, takes failed points
    for done, ends by ``Study.stop``, which raises outside ``optimize``, and needs a database, where
    SQLite is unsafe on the network file systems that machines share.
    """

    def __init__(self, *, max_batch_size: int | None, params: dict[str, Any] | None = None) -> None:
        self._max_batch_size = max_batch_size
        self._params = [f"{key}={value}" for key, value in (params or {}).items()]

    def _prepare(self, arguments: list[str]) -> None:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        self._points = grid(parser.parse_overrides([*self._params, *arguments]))
        self.validate_batch_is_legal([overrides for overrides, _ in self._points])

    def _begin(self) -> None:
        trials = records.read_all(self.folder)
        self._earlier = {f for f, t in trials.items() if t.state not in records.UNFINISHED}
        complete = {_key(t.overrides) for t in trials.values() if t.state in records.DONE}
        if done := sum(_key(overrides) in complete for overrides, _ in self._points):
            log.info("%d of %d combinations are complete: skipped", done, len(self._points))

    def _take(self) -> list[Path]:
        size = 1 if self.one_by_one else (self._max_batch_size or len(self._points))
        taken: list[Path] = []
        with records.locked(self.folder):
            trials = records.read_all(self.folder)
            settled = {_key(t.overrides) for f, t in trials.items() if self._is_settled(f, t)}
            dead = [t for f, t in trials.items() if t.fault == "died" and f not in self._earlier]
            deaths = Counter(_key(trial.overrides) for trial in dead)
            for overrides, params in self._points:
                key = _key(overrides)
                if len(taken) < size and key not in settled and deaths[key] < _STARTS:
                    taken.append(records.claim(self.folder, overrides, params))
        return taken

    def _is_settled(self, folder: Path, trial: Trial) -> bool:
        """Whether a trial is done, is being made, or failed while this command was running."""
        if trial.state == "failed":
            return trial.fault != "died" and folder not in self._earlier
        return not records.is_dead(folder, trial)

    def _failures(self, trials: Sequence[Trial]) -> list[Trial]:
        # the latest of each combination that is not complete
        missing = {_key(overrides) for overrides, _ in self._points}
        missing -= {_key(t.overrides) for t in trials if t.state in records.DONE}
        failed = {_key(t.overrides): t for t in trials if t.state == "failed"}
        return [trial for key, trial in failed.items() if key in missing]


def grid(overrides: Sequence[Override]) -> list[Point]:
    """All combinations, the last key changing fastest.

    Raises:
        HydraException: one of them is an interval, which has no end of values.
    """
    varied = {o.get_key_element(): o.is_sweep_override() for o in overrides}
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise HydraException(
                f"{override.input_line}: a grid cannot list the values of an interval; type values"
                " (1,2,3), or search it: hydra/sweeper=optuna"
            )
    points: list[Point] = []
    for words in BasicSweeper.split_arguments(list(overrides), None)[0]:
        pairs = [word.partition("=")[::2] for word in words]
        points.append((tuple(words), {k.lstrip("+~"): v for k, v in pairs if varied[k]}))
    return points


def _key(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(overrides))
