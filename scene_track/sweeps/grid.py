"""``--multirun a=1,2 b=3,4``: every combination once, however often the command is started.

A combination that is complete in the sweep's folder is skipped, one that another process trains is
left to it, and one that failed in an earlier command or whose process died is trained again, in a
new folder. So the command resumes after a kill, and machines share a grid by sharing its folder.

By files instead of Optuna's ``GridSampler``: that draws in random order, takes failed combinations
for done, ends by ``Study.stop``, which raises outside ``optimize``, and needs a database, where
SQLite is unsafe on the network file systems that machines share.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial
from scene_track.sweeps.sweeper import TrialSweeper

log = logging.getLogger(__name__)

_STARTS = 2  # of a combination whose process dies, in one command

Point = tuple[tuple[str, ...], dict[str, str]]  # all overrides; values of the keys that vary


class GridSweeper(TrialSweeper):
    """Replaces ``hydra/sweeper=basic``, with its options."""

    def __init__(self, *, max_batch_size: int | None, params: dict[str, Any] | None = None) -> None:
        """Store Hydra's options.

        Args:
            max_batch_size: trials that a launcher is given at once; None = all.
            params: sweeps by key, which stand before those that are typed.
        """
        self._max_batch_size = max_batch_size
        self._params = [f"{key}={value}" for key, value in (params or {}).items()]

    def _prepare(self, arguments: list[str]) -> None:
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

    def _finish(self, trials: Sequence[Trial]) -> None:
        if lost := [str(trial.number) for trial in trials if trial.fault == "died"]:
            log.warning("trials %s were lost: they are started once more", ", ".join(lost))

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
