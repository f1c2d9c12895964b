"""Tracking metrics of whole sequences: HOTA, CLEAR and Identity together.

``count_tracking`` makes raw counts of one sequence, ``+`` adds them up over sequences (and over
processes), ``tracking_metrics`` turns any such sum into figures. Equal to TrackEval within
rounding.

    counts = sum((count_tracking(s) for s in sequences), start=TrackingCounts.zero())
    hota = tracking_metrics(counts)["HOTA"]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scene_track.metrics.clear import ClearCounts, clear_metrics, count_clear
from scene_track.metrics.hota import ALPHAS, HotaCounts, count_hota, hota_metrics
from scene_track.metrics.identity import IdentityCounts, count_identity, identity_metrics
from scene_track.metrics.sequence import TrackingSequence
from scene_track.metrics.similarity import overlapping_pairs

__all__ = ["ALPHAS", "TrackingCounts", "TrackingSequence", "count_tracking", "tracking_metrics"]


@dataclass(frozen=True, eq=False)
class TrackingCounts:
    """Raw counts of one or several sequences; picklable, addable with ``+``.

    Attributes:
        hota: sums per alpha.
        clear: sums for MOTA and its company.
        identity: sums for IDF1 and its company.
    """

    hota: HotaCounts
    clear: ClearCounts
    identity: IdentityCounts

    def __add__(self, other: TrackingCounts) -> TrackingCounts:
        """Counts of both."""
        return TrackingCounts(
            hota=self.hota + other.hota,
            clear=self.clear + other.clear,
            identity=self.identity + other.identity,
        )

    @classmethod
    def zero(cls) -> TrackingCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(HotaCounts.zero(), ClearCounts.zero(), IdentityCounts.zero())


def count_tracking(sequence: TrackingSequence) -> TrackingCounts:
    """Count one sequence for all three families of metrics."""
    overlaps = overlapping_pairs(sequence)
    return TrackingCounts(
        hota=count_hota(overlaps),
        clear=count_clear(overlaps),
        identity=count_identity(overlaps),
    )


def tracking_metrics(counts: TrackingCounts) -> dict[str, Any]:
    """Turn counts into figures, fractions as 0-1.

    Returns:
        Everything that :func:`hota_metrics`, :func:`clear_metrics` and :func:`identity_metrics`
        return, and ``alphas``. Values are float or int, and ``[19]`` arrays for ``*_alpha``.
    """
    return (
        hota_metrics(counts.hota)
        | clear_metrics(counts.clear)
        | identity_metrics(counts.identity)
        | {"alphas": ALPHAS}
    )
