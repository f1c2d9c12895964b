"""How much a parameter, taken alone, explains of the differences between a sweep's trials.

The trials are put into groups by the parameter's value (a number with many values into thirds of
equal size), and the share of the objective's variance that lies between the groups is measured by
epsilon squared (Kelley, "An unbiased correlation ratio measure", PNAS 1935), which is 0 on average
where there is nothing, instead of growing with the number of groups. How likely chance is to give
as much is counted by shuffling the objectives. Interactions are not seen: two parameters that
matter only together show nothing here, the parallel coordinates do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 3
_SHUFFLES = 2000


@dataclass(frozen=True)
class Importance:
    """What one parameter explains.

    Attributes:
        share: part of the objective's variance, 0-1; None with fewer than 4 trials, or only one
            group.
        chance: how often shuffled objectives show as much, 0-1; None like ``share``.
        trend: Spearman's rank correlation with the objective, -1 to 1; None for texts.
        trials: how many were compared.
    """

    share: float | None
    chance: float | None
    trend: float | None
    trials: int


def number(text: str) -> float | None:
    """A parameter's value as a number; None for texts and truth values."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def importance(values: Sequence[str], objectives: Sequence[float], *, seed: int = 0) -> Importance:
    """Measure one parameter.

    Args:
        values: of the parameter, one per trial, as they are typed.
        objectives: of the same trials.
        seed: of the shuffles.
    """
    y = np.asarray(objectives, dtype=np.float64)
    numbers = [number(value) for value in values]
    numeric = all(value is not None for value in numbers) and len(numbers) > 0
    groups = _groups(values, numbers if numeric else None)
    trend = _spearman(np.asarray(numbers, dtype=np.float64), y) if numeric else None
    count = int(groups.max(initial=-1)) + 1
    if len(y) < 4 or count < 2 or len(y) <= count or np.ptp(y) == 0:
        return Importance(None, None, trend, len(y))
    share = _epsilon_squared(groups, y)
    random = np.random.default_rng(seed)
    chance = np.mean([_epsilon_squared(groups, random.permutation(y)) >= share - 1e-12
                      for _ in range(_SHUFFLES)])  # fmt: skip
    return Importance(max(share, 0.0), float(chance), trend, len(y))


def _groups(values: Sequence[str], numbers: Sequence[float | None] | None) -> NDArray[np.int64]:
    """The group of each trial, counted from 0."""
    if numbers is None or len(set(numbers)) <= _BINS + 1:
        keys: Sequence[object] = values if numbers is None else numbers
        names = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        return np.asarray([names[key] for key in keys], dtype=np.int64)
    ranks = _ranks(np.asarray(numbers, dtype=np.float64))
    return np.minimum((ranks - 0.5) * _BINS / len(ranks), _BINS - 1).astype(np.int64)


def _epsilon_squared(groups: NDArray[np.int64], y: NDArray[np.float64]) -> float:
    """Share of the variance between groups, less what chance alone would put there."""
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=y) / counts
    within = float(((y - means[groups]) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    between, free = total - within, len(y) - len(counts)
    return (between - (len(counts) - 1) * within / free) / total


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
