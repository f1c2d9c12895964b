"""Was the ball found? Precision, recall and F1 as two papers define them.

They differ in the tolerance, in the picture in which it is measured, and in what "no ball" means,
so a figure without the name of its convention says little. Five outcomes of a frame are common to
both: TP (found, near enough), FP1 (found, too far away), FP2 (found, but there is none), FN (not
found), TN (none, and none found). A ball in the wrong place is one error, not two: it is no FN.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from scene_track.metrics.similarity import FloatArray

__all__ = [
    "CONVENTIONS",
    "TRACKNETV3",
    "WASB",
    "Convention",
    "PointOutcomes",
    "count_outcomes",
    "outcome_metrics",
]

_TRACKNETV3_CANVAS = (512, 288)  # width, height


@dataclass(frozen=True)
class Convention:
    """When a prediction counts as right.

    Attributes:
        name: as it stands behind the figures (``f1_wasb``).
        tolerance: pixels.
        strict: True: the distance must be below the tolerance; False: it may equal it.
        canvas: (width, height) in which distances are measured, after cutting off fractions of
            pixels; None = the original picture, with fractions.
        levels: visibilities that count as "there is a ball"; all others are "no ball".
    """

    name: str
    tolerance: float
    strict: bool
    canvas: tuple[int, int] | None
    levels: tuple[int, ...]


WASB = Convention("wasb", 4.0, True, None, (1, 2))
"""Tarashima et al., "Widely Applicable Strong Baseline for Sports Ball Detection and Tracking",
2023 (``Evaluator`` and ``visible_flags`` of its tennis data): less than 4 pixels in the original
picture; an occluded ball is no ball."""

TRACKNETV3 = Convention("tracknetv3", 4.0, False, _TRACKNETV3_CANVAS, (1, 2, 3))
"""Chen and Wang, "TrackNetV3", 2023 (``evaluate`` in ``test.py``): at most 4 pixels at 512x288
between whole pixels, which is 10 pixels at 1280x720; whatever has coordinates is a ball. There a
ball at pixel (0, 0) is none, because coordinates are all it stores; here visibility says so."""

CONVENTIONS = (WASB, TRACKNETV3)


@dataclass(frozen=True)
class PointOutcomes:
    """Numbers of frames by outcome; addable with ``+``."""

    tp: int
    tn: int
    fp1: int
    fp2: int
    fn: int

    def __add__(self, other: PointOutcomes) -> PointOutcomes:
        """Counts of both."""
        return PointOutcomes(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @classmethod
    def zero(cls) -> PointOutcomes:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(tp=0, tn=0, fp1=0, fp2=0, fn=0)


def count_outcomes(
    truth: FloatArray, found: FloatArray, size: tuple[int, int], convention: Convention
) -> PointOutcomes:
    """Count the frames of one clip.

    Args:
        truth: ``[F, 3]`` x, y (pixels of the original), visibility 0 to 3; all frames annotated.
        found: ``[F, 3]`` x, y, and more than 0 where a ball was found.
        size: (height, width) of the original.
        convention: when a prediction counts as right.
    """
    there = np.isin(truth[:, 2], convention.levels)
    seen = found[:, 2] > 0
    near = np.zeros(len(truth), dtype=bool)
    both = there & seen
    near[both] = _near(truth[both, :2], found[both, :2], size, convention)
    return PointOutcomes(
        tp=int(np.count_nonzero(near)),
        tn=int(np.count_nonzero(~there & ~seen)),
        fp1=int(np.count_nonzero(both & ~near)),
        fp2=int(np.count_nonzero(~there & seen)),
        fn=int(np.count_nonzero(there & ~seen)),
    )


def _near(
    truth: FloatArray, found: FloatArray, size: tuple[int, int], convention: Convention
) -> NDArray[np.bool_]:
    if convention.canvas is not None:
        scale = np.array(size[::-1]) / np.array(convention.canvas)
        truth, found = np.trunc(truth / scale), np.trunc(found / scale)
    distance = np.hypot(*(truth - found).T)
    if convention.strict:
        return distance < convention.tolerance
    return distance <= convention.tolerance


def outcome_metrics(outcomes: PointOutcomes, name: str) -> dict[str, float]:
    """Turn counts into figures, fractions as 0-1; 0 where nothing can be divided by.

    Args:
        outcomes: of any number of clips.
        name: of the convention, the ending of every key.

    Returns:
        ``precision_*``, ``recall_*``, ``f1_*``, ``accuracy_*`` (TP and TN among all), and the
        counts ``tp_*``, ``tn_*``, ``fp1_*``, ``fp2_*``, ``fn_*``.
    """
    tp, tn = outcomes.tp, outcomes.tn
    wrong = outcomes.fp1 + outcomes.fp2
    precision = tp / max(1, tp + wrong)
    recall = tp / max(1, tp + outcomes.fn)
    figures: dict[str, float] = {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if tp else 0.0,
        "accuracy": (tp + tn) / max(1, tp + tn + wrong + outcomes.fn),
    }
    figures |= {f.name: getattr(outcomes, f.name) for f in fields(outcomes)}
    return {f"{key}_{name}": value for key, value in figures.items()}
