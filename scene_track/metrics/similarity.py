"""Which boxes of the same frame overlap, and by how much, for a whole sequence at once.

Special here: pairs are kept sparse. Of all pairs in a frame few overlap at all, and a pair without
overlap takes part in no tracking metric, so everything downstream works on short flat arrays
instead of one small matrix per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scene_track.metrics.sequence import TrackingSequence

__all__ = ["EPS", "Overlaps", "frame_pairs", "overlapping_pairs", "pairwise_iou"]

EPS = float(np.finfo(np.float64).eps)

# Candidate pairs looked at in one go: bounds memory in crowded scenes, and stays in the cache.
_PAIRS_PER_BLOCK = 50_000

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """All overlapping pairs of one sequence, N true and M predicted boxes in T frames.

    Attributes:
        gt_frames: ``[N]`` frame index from 0, ascending.
        gt_tracks: ``[N]`` identity as an index 0 to ``num_gt_tracks - 1``.
        pred_frames: ``[M]`` frame index from 0, ascending.
        pred_tracks: ``[M]`` identity as an index 0 to ``num_pred_tracks - 1``.
        num_frames: T.
        num_gt_tracks: number of different true identities.
        num_pred_tracks: number of different predicted identities.
        gt: ``[K]`` row of the true box of each pair, ascending (so pairs are in frame order).
        pred: ``[K]`` row of the predicted box of each pair.
        iou: ``[K]`` their intersection over union, in (0, 1].
    """

    gt_frames: IntArray
    gt_tracks: IntArray
    pred_frames: IntArray
    pred_tracks: IntArray
    num_frames: int
    num_gt_tracks: int
    num_pred_tracks: int
    gt: IntArray
    pred: IntArray
    iou: FloatArray

    @property
    def pair_frames(self) -> IntArray:
        """``[K]`` frame index of each pair, ascending."""
        return self.gt_frames[self.gt]

    @property
    def pair_tracks(self) -> IntArray:
        """``[K]`` flat index ``gt track * num_pred_tracks + predicted track`` of each pair."""
        return self.gt_tracks[self.gt] * self.num_pred_tracks + self.pred_tracks[self.pred]

    def in_frame(self, gt: IntArray, pred: IntArray) -> tuple[IntArray, IntArray, tuple[int, int]]:
        """Place pairs of one frame in that frame's matrix of true by predicted boxes.

        Args:
            gt: rows of true boxes, all of one frame, at least one.
            pred: rows of predicted boxes of the same frame.

        Returns:
            Matrix rows, matrix columns, and the size of the matrix.
        """
        frame = self.gt_frames[gt[0]]
        first_gt, last_gt = np.searchsorted(self.gt_frames, (frame, frame + 1)).tolist()
        first_pred, last_pred = np.searchsorted(self.pred_frames, (frame, frame + 1)).tolist()
        return gt - first_gt, pred - first_pred, (last_gt - first_gt, last_pred - first_pred)


def overlapping_pairs(sequence: TrackingSequence) -> Overlaps:
    """Find every pair of a true and a predicted box of one frame that overlap.

    True boxes with confidence 0 are left out here, once for all metrics (TrackEval drops these
    "zero-marked" rows in the same way with ``DO_PREPROC=False``).
    """
    truth = sequence.ground_truth
    if not truth.confidence.all():
        truth = truth.select(truth.confidence != 0)
    found = sequence.predictions
    gt_ids, gt_tracks = np.unique(truth.ids, return_inverse=True)
    pred_ids, pred_tracks = np.unique(found.ids, return_inverse=True)
    gt, pred, iou = frame_pairs(
        truth.boxes,
        truth.frame_offsets(sequence.length),
        found.boxes,
        found.frame_offsets(sequence.length),
    )
    return Overlaps(
        gt_frames=truth.frames - 1,
        gt_tracks=gt_tracks,
        pred_frames=found.frames - 1,
        pred_tracks=pred_tracks,
        num_frames=sequence.length,
        num_gt_tracks=len(gt_ids),
        num_pred_tracks=len(pred_ids),
        gt=gt,
        pred=pred,
        iou=iou,
    )


def frame_pairs(
    boxes_a: FloatArray, offsets_a: IntArray, boxes_b: FloatArray, offsets_b: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Overlapping pairs of boxes that share a frame.

    Args:
        boxes_a: ``[N, 4]`` left, top, width, height, frame after frame.
        offsets_a: ``[T + 1]`` frame ``t`` owns rows ``offsets_a[t]:offsets_a[t + 1]``.
        boxes_b: ``[M, 4]`` as ``boxes_a``.
        offsets_b: ``[T + 1]`` as ``offsets_a``.

    Returns:
        Rows of ``boxes_a`` (ascending), rows of ``boxes_b``, and their IoU in (0, 1], ``[K]`` each.
    """
    edges_a, edges_b = _edges(boxes_a), _edges(boxes_b)
    # For every box of a: where the boxes of b in its frame start, and how many there are.
    frames_a = np.repeat(np.arange(len(offsets_a) - 1), np.diff(offsets_a))
    starts = offsets_b[:-1][frames_a]
    counts = np.diff(offsets_b)[frames_a]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0

    blocks: list[tuple[IntArray, IntArray, FloatArray]] = []
    first = 0
    while first < len(counts):
        done = int(ends[first] - counts[first])
        last = max(first + 1, int(np.searchsorted(ends, done + _PAIRS_PER_BLOCK, side="right")))
        block = counts[first:last]
        rows_a = np.repeat(np.arange(first, last), block)
        shift = starts[first:last] - (ends[first:last] - block - done)
        rows_b = np.arange(len(rows_a)) + np.repeat(shift, block)
        blocks.append(_positive_iou(edges_a, edges_b, rows_a, rows_b))
        first = last
    if total == 0:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0)
    gt, pred, iou = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return gt, pred, iou


def pairwise_iou(boxes_a: FloatArray, boxes_b: FloatArray) -> FloatArray:
    """``[N, M]`` IoU of every box of ``boxes_a [N, 4]`` with every box of ``boxes_b [M, 4]``.

    Boxes are left, top, width, height. A box without area has IoU 0 with everything.
    """
    offsets = np.array([0, len(boxes_a)]), np.array([0, len(boxes_b)])
    rows_a, rows_b, iou = frame_pairs(boxes_a, offsets[0], boxes_b, offsets[1])
    dense = np.zeros((len(boxes_a), len(boxes_b)))
    dense[rows_a, rows_b] = iou
    return dense


def _edges(boxes: FloatArray) -> tuple[FloatArray, ...]:
    """Left, top, right, bottom, area, each contiguous.

    The area is taken from the edges and not from width and height, as TrackEval does: the last bit
    decides when an IoU ties a threshold.
    """
    left, top, width, height = np.ascontiguousarray(boxes.T)
    right, bottom = left + width, top + height
    return left, top, right, bottom, (right - left) * (bottom - top)


def _positive_iou(
    edges_a: tuple[FloatArray, ...],
    edges_b: tuple[FloatArray, ...],
    rows_a: IntArray,
    rows_b: IntArray,
) -> tuple[IntArray, IntArray, FloatArray]:
    left_a, top_a, right_a, bottom_a, area_a = edges_a
    left_b, top_b, right_b, bottom_b, area_b = edges_b
    # Most pairs are apart in x already: look at y only for the rest.
    wide = np.minimum(right_a[rows_a], right_b[rows_b]) - np.maximum(left_a[rows_a], left_b[rows_b])
    near = np.flatnonzero(wide > 0)
    rows_a, rows_b, wide = rows_a[near], rows_b[near], wide[near]
    high = np.minimum(bottom_a[rows_a], bottom_b[rows_b]) - np.maximum(top_a[rows_a], top_b[rows_b])
    near = np.flatnonzero(high > 0)
    rows_a, rows_b = rows_a[near], rows_b[near]
    intersection = wide[near] * high[near]
    areas = area_a[rows_a], area_b[rows_b]
    union = areas[0] + areas[1] - intersection
    sound = np.flatnonzero((areas[0] > EPS) & (areas[1] > EPS) & (union > EPS) & (intersection > 0))
    return rows_a[sound], rows_b[sound], intersection[sound] / union[sound]
