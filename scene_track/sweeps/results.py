"""The results of a sweep: each trial's record, metrics and curves; importance of the parameters.

All is read from files that a run writes anyway, so a sweep that still runs or was killed has them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from omegaconf import OmegaConf

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

_BINS = 3

Curves = dict[str, list[tuple[float, float, float]]]


@dataclass(frozen=True)
class Result:
    """One trial with its metrics."""

    trial: Trial
    folder: Path
    metrics: Mapping[str, float]
    curves: Curves


@dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep."""

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

        def place(result: Result) -> float:
            objective = result.trial.objective
            return math.inf if objective is None else sign * objective

        return sorted(self.results, key=place)

    @property
    def best(self) -> Result | None:
        """The best trial; None if none has an objective."""
        return self.ranked[0] if self.ranked[0].trial.objective is not None else None


def read_sweep(folder: Path) -> SweepResults:
    """Read the results of a sweep.

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
            epoch, step = number(row.get("epoch")) or 0.0, number(row.get("step")) or 0.0
            for name, text in row.items():
                value = number(text)
                if value is None or name in ("epoch", "step") or name.startswith("lr/"):
                    continue
                curves.setdefault(name, []).append((epoch, step, value))
    return curves


def number(text: object) -> float | None:
    """A finite number; None for anything else, such as the end of a line that a kill cut off."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Importance:
    """What one parameter explains.

    Attributes:
        share: part of the objective's variance, 0-1; None with fewer than 4 trials or one group.
        chance: how often a parameter without effect shows as much, 0-1; None like ``share``.
        trend: Spearman's rank correlation with the objective, -1 to 1; None for texts.
        trials: how many were compared.
    """

    share: float | None
    chance: float | None
    trend: float | None
    trials: int


def importance(values: Sequence[str], objectives: Sequence[float]) -> Importance:
    """How much a parameter, taken alone, explains of the differences between trials.

    The trials are grouped by the parameter's value, as it is typed (a number with many values into
    thirds of equal size), for an analysis of variance. The share between the groups is measured by
    epsilon squared (Kelley, "An unbiased correlation ratio measure", PNAS 1935), which is 0 on
    average for a parameter without effect. ``optuna.importance`` is not used: it needs
    scikit-learn, and its shares add up to 1 even for noise.
    """
    from scipy.stats import f_oneway, rankdata, spearmanr

    y = np.asarray(objectives, dtype=np.float64)
    x = np.asarray([np.nan if (v := number(text)) is None else v for text in values])
    groups, trend = np.unique(np.asarray(values), return_inverse=True)[1], None
    if not np.isnan(x).any():
        groups = np.unique(x, return_inverse=True)[1]
        if groups.max(initial=0) > _BINS:
            groups = np.minimum((rankdata(x) - 0.5) * _BINS // len(x), _BINS - 1).astype(np.int64)
        if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            trend = float(spearmanr(x, y)[0])  # type: ignore[arg-type]
    parts = [y[groups == group] for group in np.unique(groups)]
    if len(y) < 4 or len(parts) < 2 or len(y) <= len(parts) or np.ptp(y) == 0:
        return Importance(None, None, trend, len(y))
    if all(np.ptp(part) == 0 for part in parts):
        return Importance(1.0, 0.0, trend, len(y))
    ratio, chance = map(float, f_oneway(*parts))
    between = (len(parts) - 1) * (ratio - 1)
    share = between / (between + len(y) - 1)
    return Importance(max(share, 0.0), chance, trend, len(y))
