"""``--multirun a=1,2 b=3,4``: every combination once, however often the command is started.

Special here: a combination that is complete in the sweep's folder is not trained again, one that
another process trains is left to it, and one that failed or died is trained anew, in a new folder.
So the same command goes on after a kill, and several machines share a grid by sharing its folder.
What others had and lost is trained before the end; what they still train then is said.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scene_track.sweeps import records
from scene_track.sweeps.ending import end_sweep
from scene_track.sweeps.launching import Point, SweepRun, listed
from scene_track.sweeps.records import Trial

log = logging.getLogger(__name__)


class GridSweeper(Sweeper):
    """Does what ``hydra/sweeper=basic`` stands for, with Hydra's options for it."""

    def __init__(self, *, max_batch_size: int | None, params: dict[str, Any] | None = None) -> None:
        """Store Hydra's options.

        Args:
            max_batch_size: trials that a launcher is given at once; None = all.
            params: sweeps by key, which stand before those that are typed.
        """
        self._max_batch_size = max_batch_size
        self._params = [f"{key}={value}" for key, value in (params or {}).items()]

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.config = hydra_context, config
        self._run = SweepRun(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Train what is not trained yet.

        Args:
            arguments: the typed overrides; those of ``hydra.sweeper.params`` stand before them.

        Raises:
            SweepFailed: a combination came to nothing.
        """
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        points = grid(parser.parse_overrides([*self._params, *arguments]))
        self.validate_batch_is_legal([list(point.overrides) for point in points])
        self._run.begin()
        size = 1 if self._run.one_by_one else (self._max_batch_size or len(points))
        with end_sweep(self._run.config, self._run.folder, [p.overrides for p in points]):
            done = sum(_is_done(self._run.folder, point) for point in points)
            if done:
                log.info("%d of %d combinations are complete: skipped", done, len(points))
            others = self._train(points, size)
            while others:
                self._run.look_again()
                lost = [folder for folder in others if _is_lost(folder)]
                if not lost:
                    break
                log.info("%d combinations were lost by other processes: they are taken", len(lost))
                again = self._train([others.pop(folder) for folder in lost], size)
                others |= again
            _say_whose(others, len(points))
        return None

    def _train(self, points: Sequence[Point], size: int) -> dict[Path, Point]:
        """Train the points that nobody has; the others, by the folder of who trains them."""
        waiting = list(points)
        others: dict[Path, Point] = {}
        while waiting:
            taken, waiting = self._take(waiting, size, others)
            if taken:
                self._run.run(*zip(*taken, strict=True))
        return others

    def _take(
        self, points: list[Point], size: int, others: dict[Path, Point]
    ) -> tuple[list[tuple[Point, Path]], list[Point]]:
        """Claim the next points that nobody has; those and the points after them."""
        taken: list[tuple[Point, Path]] = []
        with records.locked(self._run.folder):
            for n, point in enumerate(points):
                if len(taken) == size:
                    return taken, points[n:]
                holder = _holder(self._run.folder, point)
                if holder is None:
                    folder = records.claim(self._run.folder, point.overrides, point.params)
                    taken.append((point, folder))
                elif not _is_done(self._run.folder, point):
                    others[holder] = point
        return taken, []


def grid(overrides: Sequence[Override]) -> list[Point]:
    """All combinations, the last key changing fastest.

    Args:
        overrides: of one command; a later one takes the place of an earlier one of its key.

    Raises:
        HydraException: one of them is an interval, which has no end of values.
    """
    values: dict[str, list[str]] = {}
    varied: set[str] = set()
    for override in overrides:
        key = override.get_key_element()
        varied.discard(key)
        if not override.is_sweep_override():
            values[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values[key] = list(override.sweep_string_iterator())
            varied.add(key)
        else:
            raise HydraException(
                f"{override.input_line}: a grid has no end of values for an interval; list values"
                " (1,2,3), or search it: hydra/sweeper=optuna"
            )
    return [
        Point(
            tuple(f"{key}={value}" for key, value in zip(values, combination, strict=True)),
            {k.lstrip("+~"): v for k, v in zip(values, combination, strict=True) if k in varied},
        )
        for combination in itertools.product(*values.values())
    ]


def _is_done(sweep: Path, point: Point) -> bool:
    return _holder(sweep, point, records.DONE) is not None


def _holder(
    sweep: Path, point: Point, states: Sequence[str] = (*records.DONE, *records.UNFINISHED)
) -> Path | None:
    """The folder of the trial of a point that is in one of some states and not dead."""
    wanted = sorted(point.overrides)
    for folder, trial in records.read_all(sweep).items():
        alike = trial.state in states and sorted(trial.overrides) == wanted
        if alike and not records.is_dead(folder, trial):
            return folder
    return None


def _is_lost(folder: Path) -> bool:
    """Whether a trial ended without having been tried."""
    trial = records.read(folder)
    return trial is None or trial.fault == "died"


def _unfinished(others: dict[Path, Point]) -> dict[Path, Trial]:
    trials = {folder: records.read(folder) for folder in others}
    return {f: t for f, t in trials.items() if t is not None and t.state in records.UNFINISHED}


def _say_whose(others: dict[Path, Point], total: int) -> None:
    """Name what is left to other processes: nothing here knows what will come of it."""
    left = _unfinished(others)
    if left:
        names = [
            f"trial {folder.name}" + (f" on {trial.process.host}" if trial.process else "")
            for folder, trial in left.items()
        ]
        log.warning(
            "%d of %d combinations are made by other processes: %s; run the same command again"
            " later, it trains those that come to nothing",
            *(len(left), total, listed(names)),
        )
