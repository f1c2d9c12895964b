"""A sweep's folder as results: for each trial its record, its metrics and its curves.

Special here: everything is read from files that a run writes anyway, so a sweep that is still going
on, or one that was killed, has results too.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from omegaconf import OmegaConf

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

Curves = Mapping[str, list[tuple[float, float, float]]]


@dataclass(frozen=True)
class Result:
    """One trial with what it measured.

    Attributes:
        trial: its record.
        folder: it lies in.
        metrics: best value of each metric, by name.
        curves: by metric, (epoch, step, value) as they were logged.
    """

    trial: Trial
    folder: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)

    @property
    def objective(self) -> float | None:
        """The trial's objective, if it has one."""
        return self.trial.objective


@dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep.

    Attributes:
        folder: of the sweep.
        monitor: the metric that is the objective.
        mode: whether it is to be large or small.
        results: by number of the trial.
    """

    folder: Path
    monitor: str
    mode: Literal["min", "max"]
    results: list[Result]

    @cached_property
    def params(self) -> list[str]:
        """The keys that vary."""
        return list(dict.fromkeys(key for r in self.results for key in r.trial.params))

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the metrics: those of the validation first, the monitor before all."""
        names = {name for result in self.results for name in result.metrics}
        rank = {self.monitor: 0}
        return sorted(names, key=lambda n: (rank.get(n, 1), not n.startswith("val/"), n))

    @cached_property
    def best(self) -> Result | None:
        """The trial with the best objective; the earlier one of two that are equal."""
        scored = [(r.objective, r) for r in self.results if r.objective is not None]
        if not scored:
            return None
        sign = 1 if self.mode == "max" else -1
        return max(scored, key=lambda pair: (sign * pair[0], -pair[1].trial.number))[1]

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(result.trial.state == state for result in self.results)


def read_sweep(folder: Path) -> SweepResults:
    """The results of a sweep.

    Args:
        folder: that ``hydra.sweep.dir`` names.

    Raises:
        FileNotFoundError: there is no such folder, or no trial in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: type sweep=FOLDER, under outputs/sweeps")
    trials = records.read_all(folder)
    if not trials:
        raise FileNotFoundError(
            f"{folder} holds no trial (no NUMBER/{records.RECORD} in it): type sweep=FOLDER, the"
            " folder that a --multirun wrote"
        )
    monitor, mode = _monitor(folder)
    return SweepResults(
        folder,
        monitor,
        mode,
        [
            Result(_without_the_dead(path, trial), path, read_metrics(path), read_curves(path))
            for path, trial in trials.items()
        ],
    )


def _without_the_dead(folder: Path, trial: Trial) -> Trial:
    """A trial whose process is gone as a failed one; to record it is the next sweep's matter."""
    return trial.failed(records.GONE, "died") if records.is_dead(folder, trial) else trial


def _monitor(folder: Path) -> tuple[str, Literal["min", "max"]]:
    """Name and direction of the objective, as the sweep was configured."""
    file = folder / "multirun.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no multirun.yaml, by which trials are compared")
    node = OmegaConf.select(OmegaConf.load(file), "monitor")  # type: ignore[arg-type]
    return str(node.metric), "min" if node.mode == "min" else "max"


def read_metrics(folder: Path) -> dict[str, float]:
    """Best value of each metric of a run; none while it has written no summary."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    pairs = content.get("metrics", {}).items()
    return {name: pair["best"] for name, pair in pairs if pair.get("best") is not None}


def read_curves(
    folder: Path, only: str | None = None
) -> dict[str, list[tuple[float, float, float]]]:
    """What a run has logged so far.

    Args:
        folder: of the run.
        only: the one metric that is wanted; None: all of them but learning rates.

    Returns:
        By metric, (epoch, step, value) in the order of the file; finite values only.
    """
    curves: dict[str, list[tuple[float, float, float]]] = {}
    try:
        file = (folder / "metrics.csv").open(newline="", encoding="utf-8")
    except FileNotFoundError:
        return curves
    with file:
        for row in csv.DictReader(file):
            epoch, step = _number(row.get("epoch")), _number(row.get("step"))
            for name, text in row.items():
                if name in ("epoch", "step", None) or not isinstance(text, str) or not text:
                    continue
                value = _number(text)
                if value is None or name.startswith("lr/") or only not in (None, name):
                    continue
                curves.setdefault(name, []).append((epoch or 0.0, step or 0.0, value))
    return curves


def _number(text: object) -> float | None:
    """A finite number; None for anything else, such as a row that a kill has torn."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
