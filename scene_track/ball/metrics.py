"""How well one ball was tracked: distances, PCK, and whether it was found at all.

``count_ball`` makes raw counts of one clip, ``+`` adds them up over clips (and over processes),
``ball_metrics`` turns any such sum into figures.

    counts = sum((count_ball(t, p, size) for t, p, size in clips), start=BallCounts.zero())
    pck = ball_metrics(counts)["pck_5"]

Special here: distances are kept, because medians do not add up. Frames that nobody has annotated
(visibility -1) are left out of everything. A position counts wherever one is annotated, that is,
also where the ball is hard to see or occluded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scene_track.ball.point_detection import (
    CONVENTIONS,
    PointOutcomes,
    count_outcomes,
    outcome_metrics,
)
from scene_track.data.visibility import NUM_LEVELS, Visibility
from scene_track.metrics.similarity import FloatArray, IntArray

__all__ = [
    "BALL_COLUMNS",
    "BALL_FRACTIONS",
    "THRESHOLDS",
    "BallCounts",
    "ball_metrics",
    "count_ball",
    "plain_ball_metrics",
]

THRESHOLDS = (2, 4, 5, 10)
"""Pixels of the original image at which PCK is reported."""

BALL_FRACTIONS = (
    "pck_2",
    "pck_4",
    "pck_5",
    "pck_10",
    "f1_wasb",
    "f1_tracknetv3",
    "visibility_accuracy",
)
BALL_COLUMNS = (*BALL_FRACTIONS, "l2_median", "l2_mean")
"""Columns of the table of a ball."""

_DETAILED = 5  # pixels; PCK by visibility is reported at this one
_LEVELS = tuple(level.name.lower() for level in Visibility if level >= 0)


@dataclass(frozen=True, eq=False)
class BallCounts:
    """Raw counts of one or several clips; picklable, addable with ``+``.

    Attributes:
        errors: ``[E]`` distances in pixels of the original, of the frames in which the ball is, and
            was found.
        frames: ``[4]`` annotated frames by visibility.
        hits: ``[4, K]`` frames by visibility in which the ball was found within each of
            ``THRESHOLDS``.
        agreed: annotated frames in which prediction and truth agree on whether there is a ball.
        outcomes: of every convention, in the order of ``CONVENTIONS``.
    """

    errors: FloatArray
    frames: IntArray
    hits: IntArray
    agreed: int
    outcomes: tuple[PointOutcomes, ...]

    def __add__(self, other: BallCounts) -> BallCounts:
        """Counts of both."""
        return BallCounts(
            errors=np.concatenate((self.errors, other.errors)),
            frames=self.frames + other.frames,
            hits=self.hits + other.hits,
            agreed=self.agreed + other.agreed,
            outcomes=tuple(a + b for a, b in zip(self.outcomes, other.outcomes, strict=True)),
        )

    @classmethod
    def zero(cls) -> BallCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(
            errors=np.zeros(0),
            frames=np.zeros(NUM_LEVELS, dtype=np.int64),
            hits=np.zeros((NUM_LEVELS, len(THRESHOLDS)), dtype=np.int64),
            agreed=0,
            outcomes=tuple(PointOutcomes.zero() for _ in CONVENTIONS),
        )


def count_ball(truth: ArrayLike, found: ArrayLike, size: tuple[int, int]) -> BallCounts:
    """Count one clip.

    Args:
        truth: ``[F, 3]`` x, y (pixels of the original) and visibility -1 to 3; x and y are not read
            where it is below 1.
        found: ``[F, 3]`` x, y, and more than 0 where a ball was found; x and y are not read
            elsewhere.
        size: (height, width) of the original.

    Raises:
        ValueError: if shapes differ, or a position that is to be read is not finite.
    """
    truth, found = _checked("truth", truth), _checked("found", found)
    if len(truth) != len(found):
        raise ValueError(f"{len(truth)} frames of truth, {len(found)} of predictions")
    known = truth[:, 2] >= 0
    truth, found = truth[known], found[known]
    levels = truth[:, 2].astype(np.int64)
    there, seen = levels > 0, found[:, 2] > 0
    both = there & seen
    errors = np.hypot(*(truth[both, :2] - found[both, :2]).T)
    hits = np.zeros((NUM_LEVELS, len(THRESHOLDS)), dtype=np.int64)
    np.add.at(hits, levels[both], errors[:, None] <= np.array(THRESHOLDS))
    return BallCounts(
        errors=errors,
        frames=np.bincount(levels, minlength=NUM_LEVELS),
        hits=hits,
        agreed=int(np.count_nonzero(there == seen)),
        outcomes=tuple(count_outcomes(truth, found, size, c) for c in CONVENTIONS),
    )


def ball_metrics(counts: BallCounts) -> dict[str, float]:
    """Turn counts into figures, fractions as 0-1.

    Returns:
        ``pck_2``, ``pck_4``, ``pck_5``, ``pck_10``: part of the frames with a ball in which it was
        found within so many pixels (PCK, percentage of correct keypoints); a missed ball is wrong.
        ``l2_mean``, ``l2_median``: pixels, over the frames in which it is and was found; infinite
        where there are none. ``visibility_accuracy``: part of all frames in which it is known
        whether there is a ball. ``pck_5_visible``, ``_hard``, ``_occluded``, and
        ``frames_absent`` and so on (int). Besides, all of :func:`outcome_metrics` for each
        convention. Without a frame to divide by, a fraction is 0.
    """
    total = counts.frames[1:].sum()
    figures: dict[str, float] = {
        f"pck_{threshold}": float(hits / max(1, total))
        for threshold, hits in zip(THRESHOLDS, counts.hits.sum(axis=0), strict=True)
    }
    empty = not len(counts.errors)
    figures["l2_mean"] = float("inf") if empty else float(counts.errors.mean())
    figures["l2_median"] = float("inf") if empty else float(np.median(counts.errors))
    figures["visibility_accuracy"] = counts.agreed / max(1, int(counts.frames.sum()))
    detailed = counts.hits[:, THRESHOLDS.index(_DETAILED)] / np.maximum(1, counts.frames)
    for level, name in enumerate(_LEVELS):
        if level > 0:
            figures[f"pck_{_DETAILED}_{name}"] = float(detailed[level])
        figures[f"frames_{name}"] = int(counts.frames[level])
    for convention, outcomes in zip(CONVENTIONS, counts.outcomes, strict=True):
        figures |= outcome_metrics(outcomes, convention.name)
    return figures


def _checked(name: str, points: ArrayLike) -> FloatArray:
    table = np.asarray(points, dtype=np.float64)
    if table.size == 0:
        table = table.reshape(0, 3)
    if table.ndim != 2 or table.shape[1] != 3:
        raise ValueError(f"{name} has shape {table.shape}, expected [F, 3]: x, y, visibility")
    if not np.isfinite(table[table[:, 2] > 0]).all() or np.isnan(table[:, 2]).any():
        raise ValueError(f"{name}: holds a position or visibility that is not finite")
    if name == "truth" and not np.isin(table[:, 2], np.arange(-1, NUM_LEVELS)).all():
        raise ValueError(f"{name}: visibility must be -1, 0, 1, 2 or 3")
    return table


def plain_ball_metrics(counts: BallCounts) -> dict[str, Any]:
    """Figures of a ball for JSON, which knows no infinity: nothing found, no distance (None)."""
    return {k: v if math.isfinite(v) else None for k, v in ball_metrics(counts).items()}
