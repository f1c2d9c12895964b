"""The results of a sweep: each trial's record, metrics and curves.

All are read from files that a run writes anyway, so a sweep that still runs or was killed has them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from omegaconf import OmegaConf

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

Curves = dict[str, list[tuple[float, float, float]]]


@dataclass(frozen=True)
class Result:
    """One trial with its metrics.

    Attributes:
        trial: its record.
        folder: of the trial.
        metrics: best value of each metric, by name.
        curves: by metric, (epoch, step, value) as they were logged.
    """

    trial: Trial
    folder: Path
    metrics: Mapping[str, float]
    curves: Curves


@dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep.

    Attributes:
        folder: of the sweep.
        monitor: the metric that is the objective.
        mode: its direction.
        results: in the order of the trials' numbers.
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
        """Names of the metrics: the monitor, those of the validation, the others."""
        names = {name for result in self.results for name in result.metrics}
        return sorted(names, key=lambda n: (n != self.monitor, not n.startswith("val/"), n))

    @cached_property
    def ranked(self) -> list[Result]:
        """The trials, best first; equal ones by number, those without objective last."""
        sign = -1 if self.mode == "max" else 1

        def place(result: Result) -> tuple[float, int]:
            objective = result.trial.objective
            return (math.inf if objective is None else sign * objective, result.trial.number)

        return sorted(self.results, key=place)

    @property
    def best(self) -> Result | None:
        """The best trial; None if none has an objective."""
        return self.ranked[0] if self.ranked[0].trial.objective is not None else None


def read_sweep(folder: Path) -> SweepResults:
    """Read the results of a sweep.

    Args:
        folder: of the sweep, ``hydra.sweep.dir``.

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
    for path, trial in trials.items():
        if records.is_dead(path, trial):  # the next start of the sweep records it
            trials[path] = trial.failed(records.GONE, "died")
    file = folder / "multirun.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no multirun.yaml, by which trials are compared")
    monitor = OmegaConf.select(OmegaConf.load(file), "monitor")  # type: ignore[arg-type]
    results = [Result(t, p, read_metrics(p), read_curves(p)) for p, t in trials.items()]
    mode = "min" if monitor.mode == "min" else "max"
    return SweepResults(folder, str(monitor.metric), mode, results)


def read_metrics(folder: Path) -> dict[str, float]:
    """Best value of each metric of a run; none before its summary is written."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    pairs = content.get("metrics", {}).items()
    return {name: pair["best"] for name, pair in pairs if pair.get("best") is not None}


def read_curves(folder: Path) -> Curves:
    """What a run has logged so far, but for learning rates; finite values, in order."""
    curves: Curves = {}
    try:
        file = (folder / "metrics.csv").open(newline="", encoding="utf-8")
    except FileNotFoundError:
        return curves
    with file:
        for row in csv.DictReader(file, restkey="rest"):
            epoch, step = _number(row.get("epoch")) or 0.0, _number(row.get("step")) or 0.0
            for name, text in row.items():
                value = _number(text)
                if value is None or name in ("epoch", "step") or name.startswith("lr/"):
                    continue
                curves.setdefault(name, []).append((epoch, step, value))
    return curves


def _number(text: object) -> float | None:
    """A finite number; None for anything else, such as the end of a line that a kill cut off."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
