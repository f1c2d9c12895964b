"""Trials through one of Hydra's launchers: from overrides to records.

Special here: what became of a trial is read from its record, not from the launcher. Launchers give
up a whole batch when one of their workers is lost; the others have their records all the same, and
what was lost with its worker is started once more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_NAMED = 5


@dataclass(frozen=True)
class Point:
    """What one trial is to be trained with.

    Attributes:
        overrides: all of the job's.
        params: those of them that the sweep varies, by key.
        study: number of the trial in the study; None in a grid.
    """

    overrides: tuple[str, ...]
    params: Mapping[str, str]
    study: int | None = None


def listed(names: Sequence[str]) -> str:
    """Names for one line of a log."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


class SweepRun:
    """What the sweepers have in common: the folder, the launcher, claiming and waiting."""

    def __init__(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives to a sweeper.

        Args:
            hydra_context: of this run.
            task_function: the job.
            config: composed without what the sweep varies.

        Raises:
            ValueError: the trials' folders are named by somebody else.
        """
        self.config = config
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self._told: set[Path] = set()  # dead trials that were named
        named = [o for o in config.hydra.overrides.hydra if o.startswith("hydra.sweep.subdir=")]
        if named:
            raise ValueError(
                f"{named[0]}: the folders of a sweep's trials are numbered, so that a sweep can go"
                " on in its folder; leave it out, and name the sweep's folder by hydra.sweep.dir=…"
            )
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        # Hydra's own runs one job after the other: given one at a time, nothing has to wait.
        kind = type(self._launcher).__module__
        self.one_by_one = kind.startswith("hydra._internal")
        # A cluster may start a trial long after its launcher has lost another one.
        self._patience_s = 60.0 if "submitit" in kind else 0.0

    def begin(self) -> None:
        """Make the folder, keep the configuration in it, and record what has died."""
        with records.locked(self.folder):
            OmegaConf.save(self.config, self.folder / "multirun.yaml")
        self._bury()

    def _bury(self) -> None:
        with records.locked(self.folder):
            for folder, trial in records.bury(self.folder).items():
                if trial.fault == "died" and folder not in self._told:
                    log.info("trial %s: %s", folder.name, trial.reason)
                    self._told.add(folder)

    def look_again(self) -> None:
        """Find out which of the trials that others have died meanwhile, and record it.

        Of those on other machines each is waited for until it gives a sign of life or has given
        none for so long that it is dead: a sweep that is started again at once, on a new machine,
        would else leave all trials to the one that was killed.
        """
        first = records.unsure(self.folder)
        if first:
            log.info(
                "waiting for a sign of life of %s, at most %.0f s",
                listed([f"trial {folder.name}" for folder in first]),
                records.SILENT_S,
            )
        end = time.monotonic() + records.SILENT_S + _LOOK_S  # clocks of machines may differ
        while time.monotonic() < end and any(
            first.get(folder) == beat for folder, beat in records.unsure(self.folder).items()
        ):
            time.sleep(_LOOK_S)
        self._bury()

    def run(self, points: Sequence[Point], folders: Sequence[Path]) -> list[Trial]:
        """Launch claimed trials and wait for all of them.

        Args:
            points: what they are trained with.
            folders: that were claimed for them.

        Returns:
            Their records, none of them waiting or running, in the same order.
        """
        trials = self._launch(points, folders)
        lost = [i for i, trial in enumerate(trials) if trial.fault == "died"]
        if not lost:
            return trials
        log.warning(
            "%d trials were lost with their workers (%s): they are started once more",
            *(len(lost), ", ".join(folders[i].name for i in lost)),
        )
        with records.locked(self.folder):
            again = [records.claim(self.folder, p.overrides, p.params, p.study)
                     for p in (points[i] for i in lost)]  # fmt: skip
        for i, trial in zip(lost, self._launch([points[i] for i in lost], again), strict=True):
            trials[i] = trial
        return trials

    def _launch(self, points: Sequence[Point], folders: Sequence[Path]) -> list[Trial]:
        jobs = [
            [*point.overrides, f"hydra.sweep.subdir={folder.name}"]
            for point, folder in zip(points, folders, strict=True)
        ]
        with records.kept_waiting(folders):
            self._give(jobs, folders)
            return [self._ended(f, point) for f, point in zip(folders, points, strict=True)]

    def _give(self, jobs: Sequence[Sequence[str]], folders: Sequence[Path]) -> None:
        """Hand jobs to the launcher; what became of them is in their records."""
        try:
            self._launcher.launch(jobs, initial_job_idx=int(folders[0].name))
        except (HydraException, OmegaConfBaseException):  # the sweep itself is wrong
            for folder in folders:
                records.withdraw(folder)
            raise
        except Exception as error:  # whatever a launcher's library raises when it loses a worker
            reason = " ".join(str(error).split())
            log.warning("the launcher gave up: %s: %s", type(error).__name__, reason)

    def _ended(self, folder: Path, point: Point) -> Trial:
        """A trial's record when it has ended; a launcher that gave up may have left it running."""
        since = time.monotonic()
        while True:
            trial = records.read(folder)
            if trial is None:
                trial = Trial(int(folder.name), "failed", point.overrides, point.params)
                return trial.failed("its record is gone", "died")
            if trial.state not in records.UNFINISHED:
                return trial
            late = trial.state == "waiting" and time.monotonic() - since > self._patience_s
            if late and records.start(folder):
                gone = trial.failed("its launcher never started it", "died")
            elif records.is_dead(folder, trial):
                gone = trial.failed(records.GONE, "died")
            else:
                time.sleep(_LOOK_S)
                continue
            records.write(folder, gone)
            return gone
