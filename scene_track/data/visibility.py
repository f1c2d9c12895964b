"""How well a ball can be seen, and how much frames of each kind should count.

No torch in here: label files are read, and results scored, without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_LEVELS", "Visibility", "balanced_weights", "count_visibility"]


class Visibility(IntEnum):
    """How well a target can be seen, as TrackNet counts it; -1 where not annotated."""

    UNKNOWN = -1  # padding, or a frame without annotation
    ABSENT = 0
    VISIBLE = 1
    HARD = 2
    OCCLUDED = 3


NUM_LEVELS = 4
"""Levels that an annotated frame may have: 0 to 3."""


def count_visibility(visibility: Iterable[NDArray]) -> NDArray[np.int64]:
    """``[4]`` number of annotated frames that are absent, visible, hard, occluded.

    Args:
        visibility: arrays ``[F]`` of -1 to 3, one per clip.
    """
    counts = np.zeros(NUM_LEVELS, dtype=np.int64)
    for levels in visibility:
        levels = np.asarray(levels).astype(np.int64)
        counts += np.bincount(levels[levels >= 0], minlength=NUM_LEVELS)
    return counts


def balanced_weights(counts: Sequence[int] | NDArray[np.int64], power: float = 0.5) -> list[float]:
    """Weights ``[absent, visible, hard, occluded]`` that make frames of rare visibility count more.

    A weight is proportional to (1 / count) ** power. The mean weight of a frame is 1, so the scale
    of a loss stays what it was. A level without frames has weight 1.

    Args:
        counts: ``[4]`` frames of each level.
        power: 0 = all alike, 0.5 = a hundredth as many frames count ten times each, 1 = every level
            counts as much as any other, together.
    """
    frames = np.asarray(counts, dtype=np.float64)
    there = frames > 0
    weights = np.ones(NUM_LEVELS)
    if there.any():
        rarity = frames[there] ** -power
        weights[there] = rarity * frames.sum() / (rarity * frames[there]).sum()
    return weights.tolist()
