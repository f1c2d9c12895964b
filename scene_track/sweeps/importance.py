"""How much a parameter, taken alone, explains of the differences between a sweep's trials.

Trials are grouped by the parameter's value (a number with many values into thirds of equal size).
The share of the objective's variance between the groups is measured by epsilon squared (Kelley, "An
unbiased correlation ratio measure", PNAS 1935), which is 0 on average for a parameter without
effect. ``chance`` is how often shuffled objectives show as much.

``optuna.importance`` is not used: it needs scikit-learn, and its shares add up to 1 even for noise.
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
        share: part of the objective's variance, 0-1; None with fewer than 4 trials or one group.
        chance: how often shuffled objectives show as much, 0-1; None like ``share``.
        trend: Spearman's rank correlation with the objective, -1 to 1; None for texts.
        trials: how many were compared.
    """

    share: float | None
    chance: float | None
    trend: float | None
    trials: int


def number(text: str) -> float | None:
    """A parameter's value as a number; None for other texts."""
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
    from scipy.stats import rankdata, spearmanr

    y = np.asarray(objectives, dtype=np.float64)
    x = np.asarray([np.nan if (v := number(text)) is None else v for text in values])
    groups, trend = np.unique(np.asarray(values), return_inverse=True)[1], None
    if not np.isnan(x).any():
        groups = np.unique(x, return_inverse=True)[1]
        if groups.max(initial=0) > _BINS:
            groups = np.minimum((rankdata(x) - 0.5) * _BINS // len(x), _BINS - 1).astype(np.int64)
        if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            trend = float(spearmanr(x, y)[0])  # type: ignore[arg-type]
    count = int(groups.max(initial=-1)) + 1
    if len(y) < 4 or count < 2 or len(y) <= count or np.ptp(y) == 0:
        return Importance(None, None, trend, len(y))
    share = _epsilon_squared(groups, y)
    shuffled = np.random.default_rng(seed).permuted(np.tile(y, (_SHUFFLES, 1)), axis=1)
    chance = np.mean([_epsilon_squared(groups, row) >= share - 1e-12 for row in shuffled])
    return Importance(max(share, 0.0), float(chance), trend, len(y))


def _epsilon_squared(groups: NDArray[np.int64], y: NDArray[np.float64]) -> float:
    """Share of the variance between groups, less what chance alone would put there."""
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=y) / counts
    within = float(((y - means[groups]) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    free = len(y) - len(counts)
    return (total - within - (len(counts) - 1) * within / free) / total
