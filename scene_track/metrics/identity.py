"""Identity metrics: one true track to one predicted track for the whole sequence (IDF1, IDP, IDR).

Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016;
the rules are those of TrackEval, whose threshold here is ``>= 0.5`` without an epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scene_track.metrics.assignment import best_pairs
from scene_track.metrics.similarity import Overlaps

__all__ = ["IdentityCounts", "count_identity", "identity_metrics"]

_THRESHOLD = 0.5


@dataclass(frozen=True)
class IdentityCounts:
    """Raw sums.

    Attributes:
        tp: boxes that agree under the best assignment of tracks to tracks.
        fn: the other true boxes.
        fp: the other predicted boxes.
    """

    tp: int
    fn: int
    fp: int

    def __add__(self, other: IdentityCounts) -> IdentityCounts:
        """Counts of both."""
        return IdentityCounts(self.tp + other.tp, self.fn + other.fn, self.fp + other.fp)

    @classmethod
    def zero(cls) -> IdentityCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(0, 0, 0)


def count_identity(overlaps: Overlaps) -> IdentityCounts:
    """Count one sequence.

    The usual formulation minimises IDFN + IDFP over a square matrix with a dummy partner for every
    track. Every agreeing box takes one from both, so the minimum is where the agreeing boxes are
    most: a smaller, rectangular problem with the same value.
    """
    close = overlaps.iou >= _THRESHOLD
    shape = (overlaps.num_gt_tracks, overlaps.num_pred_tracks)
    agree = np.bincount(overlaps.pair_tracks[close], minlength=shape[0] * shape[1]).reshape(shape)
    tp = int(agree[best_pairs(agree)].sum())
    return IdentityCounts(tp=tp, fn=len(overlaps.gt_frames) - tp, fp=len(overlaps.pred_frames) - tp)


def identity_metrics(counts: IdentityCounts) -> dict[str, Any]:
    """Turn counts into ``IDF1``, ``IDP``, ``IDR`` (0-1), ``IDTP``, ``IDFN``, ``IDFP`` (int)."""
    tp, fn, fp = counts.tp, counts.fn, counts.fp
    return {
        "IDF1": tp / max(1.0, tp + 0.5 * fp + 0.5 * fn),
        "IDP": tp / max(1.0, tp + fp),
        "IDR": tp / max(1.0, tp + fn),
        "IDTP": tp,
        "IDFN": fn,
        "IDFP": fp,
    }
