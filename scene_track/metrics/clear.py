"""CLEAR metrics: MOTA, MOTP, identity switches, fragmentations, mostly tracked and lost tracks.

Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT
Metrics", 2008; the rules are those of TrackEval. Special here: matching depends on the frame
before, but only where a box has several partners above the threshold. Those few frames are gone
through in order; all the rest, and all counting, is done for the whole sequence at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_track.metrics.assignment import solve_dense
from scene_track.metrics.similarity import EPS, FloatArray, IntArray, Overlaps

__all__ = ["ClearCounts", "clear_metrics", "count_clear"]

_THRESHOLD = 0.5
_KEEP_PARTNER = 1000.0  # outweighs any sum of IoU: first keep partners, then maximise IoU
_MOSTLY_TRACKED = 0.8
_MOSTLY_LOST = 0.2


@dataclass(frozen=True)
class ClearCounts:
    """Raw sums.

    Attributes:
        tp: matched pairs (IoU >= 0.5).
        fn: true boxes without a match.
        fp: predicted boxes without a match.
        idsw: matches whose true track had another partner at its last match.
        frag: how often a true track is matched again after a frame in which it was not, be it
            missed or absent.
        mt: true tracks matched in more than 80 % of their frames.
        pt: true tracks matched in 20 % to 80 % of their frames.
        ml: true tracks matched in less than 20 % of their frames.
        iou_sum: sum of the IoU of the matched pairs.
    """

    tp: int
    fn: int
    fp: int
    idsw: int
    frag: int
    mt: int
    pt: int
    ml: int
    iou_sum: float

    def __add__(self, other: ClearCounts) -> ClearCounts:
        """Counts of both."""
        return ClearCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @classmethod
    def zero(cls) -> ClearCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(tp=0, fn=0, fp=0, idsw=0, frag=0, mt=0, pt=0, ml=0, iou_sum=0.0)


@dataclass(frozen=True, eq=False)
class Matches:
    """Which predicted box was taken for which true one, by the rules of CLEAR, in frame order.

    Attributes:
        gt: ``[K]`` rows of true boxes.
        pred: ``[K]`` rows of predicted boxes.
        iou: ``[K]`` their overlap, at least 0.5.
        steps: ``[K]`` number of the frame among those that take part.
    """

    gt: IntArray
    pred: IntArray
    iou: FloatArray
    steps: IntArray


def match_boxes(overlaps: Overlaps) -> Matches:
    """Match the boxes of one sequence; partners of the frame before stay together.

    Frames without true or without predicted boxes are passed over: they keep the partners of the
    frame before and break no track into fragments.
    """
    close = np.flatnonzero(overlaps.iou >= _THRESHOLD - EPS)
    gt, pred = overlaps.gt[close], overlaps.pred[close]
    iou, frames = overlaps.iou[close], overlaps.gt_frames[gt]
    # Number the frames that take part; a frame with a match always does.
    takes_part = (np.bincount(overlaps.gt_frames, minlength=overlaps.num_frames) > 0) & (
        np.bincount(overlaps.pred_frames, minlength=overlaps.num_frames) > 0
    )
    steps = (np.cumsum(takes_part) - 1)[frames]

    matched = _match(overlaps, gt, pred, iou, steps)
    return Matches(gt[matched], pred[matched], iou[matched], steps[matched])


def count_clear(overlaps: Overlaps) -> ClearCounts:
    """Count one sequence; see ``match_boxes``."""
    num_gt, num_pred = len(overlaps.gt_frames), len(overlaps.pred_frames)
    matches = match_boxes(overlaps)
    gt, pred, iou, steps = matches.gt, matches.pred, matches.iou, matches.steps
    gt_tracks, pred_tracks = overlaps.gt_tracks[gt], overlaps.pred_tracks[pred]

    order = np.argsort(gt_tracks, kind="stable")  # by track, and within a track by time
    same_track = np.diff(gt_tracks[order]) == 0
    switched = np.diff(pred_tracks[order]) != 0
    interrupted = np.diff(steps[order]) > 1

    present = np.bincount(overlaps.gt_tracks, minlength=overlaps.num_gt_tracks)
    tracked = np.bincount(gt_tracks, minlength=overlaps.num_gt_tracks) / np.maximum(1, present)
    mt = int(np.count_nonzero(tracked > _MOSTLY_TRACKED))
    pt = int(np.count_nonzero(tracked >= _MOSTLY_LOST)) - mt
    tp = len(gt)
    return ClearCounts(
        tp=tp,
        fn=num_gt - tp,
        fp=num_pred - tp,
        idsw=int(np.count_nonzero(same_track & switched)),
        frag=int(np.count_nonzero(same_track & interrupted)),
        mt=mt,
        pt=pt,
        ml=overlaps.num_gt_tracks - mt - pt,
        iou_sum=float(iou.sum()),
    )


def clear_metrics(counts: ClearCounts) -> dict[str, Any]:
    """Turn counts into figures.

    Returns:
        ``MOTA`` (at most 1, may be negative), ``MODA``, ``sMOTA``, ``MOTP``, ``CLR_Re``, ``CLR_Pr``
        (fractions) and ``IDSW``, ``TP``, ``FN``, ``FP``, ``MT``, ``PT``, ``ML``, ``Frag`` (int).
        Without true boxes nothing can be divided by: MOTA, MODA and sMOTA are then 0.
    """
    truth = counts.tp + counts.fn
    # TrackEval gives a sequence without ground truth 0, not minus its false positives.
    fp = counts.fp if truth else 0
    whole = max(1.0, truth)
    return {
        "MOTA": (counts.tp - fp - counts.idsw) / whole,
        "MOTP": counts.iou_sum / max(1.0, counts.tp),
        "MODA": (counts.tp - fp) / whole,
        "sMOTA": (counts.iou_sum - fp - counts.idsw) / whole,
        "CLR_Re": counts.tp / whole,
        "CLR_Pr": counts.tp / max(1.0, counts.tp + counts.fp),
        "IDSW": counts.idsw,
        "FP": counts.fp,
        "FN": counts.fn,
        "TP": counts.tp,
        "MT": counts.mt,
        "PT": counts.pt,
        "ML": counts.ml,
        "Frag": counts.frag,
    }


def _match(
    overlaps: Overlaps, gt: IntArray, pred: IntArray, iou: FloatArray, steps: IntArray
) -> NDArray[np.bool_]:
    """``[K]`` True for the matched ones of the pairs above the threshold.

    A frame in which no box has two partners needs no decision and no memory. The others are gone
    through in order, because each needs the partners of the frame before.
    """
    matched = np.ones(len(gt), dtype=bool)
    if len(gt) == 0:
        return matched
    several = (np.bincount(gt)[gt] > 1) | (np.bincount(pred)[pred] > 1)
    open_steps = np.unique(steps[several])
    bounds = np.searchsorted(steps, np.stack((open_steps - 1, open_steps, open_steps + 1)))
    # Plain lists: a frame has a handful of pairs, too few for numpy calls to pay.
    gt_tracks = overlaps.gt_tracks[gt].tolist()
    pred_tracks = overlaps.pred_tracks[pred].tolist()
    for before, start, stop in bounds.T.tolist():
        partner = {gt_tracks[k]: pred_tracks[k] for k in range(before, start) if matched[k]}
        same = [partner.get(gt_tracks[k]) == pred_tracks[k] for k in range(start, stop)]
        choice = _keep_and_fill(gt_tracks[start:stop], pred_tracks[start:stop], same)
        if choice is None:
            rows, columns, shape = overlaps.in_frame(gt[start:stop], pred[start:stop])
            scores = _KEEP_PARTNER * np.array(same) + iou[start:stop]
            choice = solve_dense(rows, columns, scores, shape)
        matched[start:stop] = choice
    return matched


def _keep_and_fill(gt: list[int], pred: list[int], same: list[bool]) -> list[bool] | None:
    """The best assignment of one frame where it can be read off, None where it takes a solver.

    Pairs that were partners before never exclude each other, and each is worth more than all IoU of
    the frame: the best assignment has them all. If what is then left gives no box a choice, all of
    it is in as well.
    """
    if len(gt) >= _KEEP_PARTNER:  # so many pairs could outweigh a kept partner
        return None
    taken_gt = {g for g, kept in zip(gt, same, strict=True) if kept}
    taken_pred = {p for p, kept in zip(pred, same, strict=True) if kept}
    left = [g not in taken_gt and p not in taken_pred for g, p in zip(gt, pred, strict=True)]
    left_gt = [g for g, free in zip(gt, left, strict=True) if free]
    left_pred = [p for p, free in zip(pred, left, strict=True) if free]
    if len(set(left_gt)) < len(left_gt) or len(set(left_pred)) < len(left_pred):
        return None
    return [kept or free for kept, free in zip(same, left, strict=True)]
