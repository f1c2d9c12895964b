"""HOTA: higher order tracking accuracy, with its detection, association and localisation parts.

Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021; the
rules are those of TrackEval. Special here: counts are raw sums per localisation threshold alpha,
so sequences combine by ``+``, and ratios are taken once at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from scene_track.metrics.assignment import assign_frames
from scene_track.metrics.similarity import EPS, FloatArray, Overlaps

__all__ = ["ALPHAS", "HotaCounts", "count_hota", "hota_metrics"]

ALPHAS: FloatArray = np.arange(0.05, 0.99, 0.05)
"""``[19]`` localisation thresholds 0.05, 0.10 ... 0.95, with the rounding that TrackEval has."""

_TINY = 1e-10  # TrackEval's guard in LocA: no match at all gives 1


@dataclass(frozen=True, eq=False)
class HotaCounts:
    """Raw sums, ``[19]`` each, one per alpha.

    Attributes:
        tp: matched pairs.
        fn: true boxes without a match.
        fp: predicted boxes without a match.
        localisation: sum of the IoU of the matched pairs.
        association: sum over matched pairs of their track pair's association IoU.
        association_recall: the same for recall.
        association_precision: the same for precision.
    """

    tp: FloatArray
    fn: FloatArray
    fp: FloatArray
    localisation: FloatArray
    association: FloatArray
    association_recall: FloatArray
    association_precision: FloatArray

    def __add__(self, other: HotaCounts) -> HotaCounts:
        """Counts of both."""
        return HotaCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @classmethod
    def zero(cls) -> HotaCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(**{f.name: np.zeros(len(ALPHAS)) for f in fields(cls)})


def count_hota(overlaps: Overlaps) -> HotaCounts:
    """Count one sequence.

    One assignment per frame, shared by all alphas, maximises the sum of IoU times the alignment of
    the two tracks over the whole sequence. A pair counts at alpha when its IoU is >= alpha - eps.
    """
    num_gt, num_pred = len(overlaps.gt_frames), len(overlaps.pred_frames)
    tracks = overlaps.pair_tracks
    gt_size = np.bincount(overlaps.gt_tracks, minlength=overlaps.num_gt_tracks)
    pred_size = np.bincount(overlaps.pred_tracks, minlength=overlaps.num_pred_tracks)

    matched = assign_frames(overlaps, _alignment(overlaps, tracks, gt_size, pred_size))
    iou = overlaps.iou[matched]
    # A match reaches alphas 0 .. reach - 1; sums from the far end turn "reach" into "at least".
    reach = np.searchsorted(ALPHAS - EPS, iou, side="right")
    levels = len(ALPHAS) + 1
    tp = _at_least(np.bincount(reach, minlength=levels))
    localisation = _at_least(np.bincount(reach, weights=iou, minlength=levels))

    pairs, pair = np.unique(tracks[matched], return_inverse=True)
    shape = (len(pairs), levels)
    hits = np.bincount(pair * levels + reach, minlength=len(pairs) * levels).reshape(shape)
    hits = _at_least(hits)
    gt_of_pair = gt_size[pairs // max(1, overlaps.num_pred_tracks)][:, None]
    pred_of_pair = pred_size[pairs % max(1, overlaps.num_pred_tracks)][:, None]
    return HotaCounts(
        tp=tp,
        fn=num_gt - tp,
        fp=num_pred - tp,
        localisation=localisation,
        association=(hits * hits / np.maximum(1, gt_of_pair + pred_of_pair - hits)).sum(axis=0),
        association_recall=(hits * hits / np.maximum(1, gt_of_pair)).sum(axis=0),
        association_precision=(hits * hits / np.maximum(1, pred_of_pair)).sum(axis=0),
    )


def hota_metrics(counts: HotaCounts) -> dict[str, Any]:
    """Turn counts into fractions 0-1.

    Returns:
        ``HOTA``, ``DetA``, ``AssA``, ``LocA``, ``DetRe``, ``DetPr``, ``AssRe``, ``AssPr``: mean
        over alphas (float); the same with ``_alpha``: ``[19]``; ``HOTA_TP_alpha``,
        ``HOTA_FN_alpha``, ``HOTA_FP_alpha``: the counts. Without any match LocA is 1 and the
        others are 0.
    """
    tp, fn, fp = counts.tp, counts.fn, counts.fp
    matches = np.maximum(1, tp)
    curves = {
        "DetA": tp / np.maximum(1, tp + fn + fp),
        "AssA": counts.association / matches,
        "LocA": np.maximum(_TINY, counts.localisation) / np.maximum(_TINY, tp),
        "DetRe": tp / np.maximum(1, tp + fn),
        "DetPr": tp / np.maximum(1, tp + fp),
        "AssRe": counts.association_recall / matches,
        "AssPr": counts.association_precision / matches,
    }
    curves = {"HOTA": np.sqrt(curves["DetA"] * curves["AssA"])} | curves
    return (
        {name: float(np.mean(curve)) for name, curve in curves.items()}
        | {f"{name}_alpha": curve for name, curve in curves.items()}
        | {"HOTA_TP_alpha": tp, "HOTA_FN_alpha": fn, "HOTA_FP_alpha": fp}
    )


def _alignment(
    overlaps: Overlaps, tracks: np.ndarray, gt_size: np.ndarray, pred_size: np.ndarray
) -> FloatArray:
    """``[K]`` score of each pair: IoU times how well its two tracks agree over the sequence."""
    gt, pred, iou = overlaps.gt, overlaps.pred, overlaps.iou
    gt_sum = np.bincount(gt, weights=iou, minlength=len(overlaps.gt_frames))
    pred_sum = np.bincount(pred, weights=iou, minlength=len(overlaps.pred_frames))
    around = pred_sum[pred] + gt_sum[gt] - iou
    share = np.divide(iou, around, out=np.zeros_like(iou), where=around > EPS)
    together = np.bincount(tracks, weights=share)[tracks] if len(tracks) else share
    either = gt_size[overlaps.gt_tracks[gt]] + pred_size[overlaps.pred_tracks[pred]] - together
    return together / either * iou


def _at_least(counts: np.ndarray) -> FloatArray:
    """Turn counts by exact level ``[..., 20]`` into counts of level > a, ``[..., 19]``."""
    return np.cumsum(counts[..., :0:-1], axis=-1)[..., ::-1].astype(np.float64)
