"""Average precision of boxes as COCO has it: greedy matching by score, 101-point interpolation.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014. Differences from the official code:
no crowd regions, no area ranges, no limit of 100 detections per image. Special here: the scores and
match flags are kept raw, so counts of frames, sequences and processes add up exactly, which
averages of AP do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scene_track.metrics.similarity import EPS, FloatArray, IntArray, frame_pairs

__all__ = [
    "DetectionCounts",
    "average_precision",
    "count_detections",
    "detection_metrics",
]

THRESHOLDS = (0.5, 0.75)
_RECALL_POINTS: FloatArray = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class DetectionCounts:
    """Raw results of D predictions at K IoU thresholds in C classes.

    Attributes:
        thresholds: K IoU thresholds.
        num_ground_truth: ``[C]`` true boxes of each class.
        scores: ``[D]`` score of each prediction.
        labels: ``[D]`` class of each prediction, 0 to C - 1.
        matched: ``[D, K]`` True where the prediction found a true box.
    """

    thresholds: tuple[float, ...]
    num_ground_truth: IntArray
    scores: FloatArray
    labels: IntArray
    matched: NDArray[np.bool_]

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        """Counts of both.

        Raises:
            ValueError: if thresholds or number of classes differ.
        """
        mine = (self.thresholds, len(self.num_ground_truth))
        theirs = (other.thresholds, len(other.num_ground_truth))
        if mine != theirs:
            raise ValueError(
                f"cannot add counts of (thresholds, classes) {theirs} to counts of {mine}"
            )
        return DetectionCounts(
            thresholds=self.thresholds,
            num_ground_truth=self.num_ground_truth + other.num_ground_truth,
            scores=np.concatenate((self.scores, other.scores)),
            labels=np.concatenate((self.labels, other.labels)),
            matched=np.concatenate((self.matched, other.matched)),
        )

    @classmethod
    def zero(
        cls, num_classes: int = 1, thresholds: Sequence[float] = THRESHOLDS
    ) -> DetectionCounts:
        """Counts of nothing, the neutral element of ``+``."""
        return cls(
            thresholds=tuple(thresholds),
            num_ground_truth=np.zeros(num_classes, dtype=np.int64),
            scores=np.zeros(0),
            labels=np.zeros(0, dtype=np.int64),
            matched=np.zeros((0, len(thresholds)), dtype=bool),
        )


def count_detections(
    gt_boxes: Sequence[ArrayLike],
    pred_boxes: Sequence[ArrayLike],
    pred_scores: Sequence[ArrayLike],
    *,
    gt_labels: Sequence[ArrayLike] | None = None,
    pred_labels: Sequence[ArrayLike] | None = None,
    num_classes: int = 1,
    thresholds: Sequence[float] = THRESHOLDS,
) -> DetectionCounts:
    """Match predictions to true boxes, frame by frame and class by class.

    In each frame predictions choose in the order of their scores (equal scores: as given); each
    takes the free true box with the highest IoU, if that is at least the threshold.

    Args:
        gt_boxes: T arrays ``[N_t, 4]`` left, top, width, height, in any one unit.
        pred_boxes: T arrays ``[M_t, 4]`` in the same unit.
        pred_scores: T arrays ``[M_t]``; higher is surer.
        gt_labels: T arrays ``[N_t]`` of classes 0 to ``num_classes - 1``; None: all 0.
        pred_labels: T arrays ``[M_t]`` of classes; None: all 0.
        num_classes: number of classes C, >= 1.
        thresholds: K IoU thresholds in (0, 1].

    Raises:
        ValueError: if lengths do not agree, a number is not finite, or a label or threshold is out
            of range.
    """
    truth, truth_frames = _stack("gt_boxes", gt_boxes)
    found, found_frames = _stack("pred_boxes", pred_boxes)
    if len(gt_boxes) != len(pred_boxes):
        raise ValueError(f"{len(gt_boxes)} frames of gt_boxes, {len(pred_boxes)} of pred_boxes")
    scores = _flatten("pred_scores", pred_scores, found_frames)
    truth_labels = _labels("gt_labels", gt_labels, truth_frames, num_classes)
    found_labels = _labels("pred_labels", pred_labels, found_frames, num_classes)
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds are {tuple(thresholds)}, expected IoU in (0, 1]")

    rows, columns, iou = frame_pairs(
        found,
        np.concatenate(([0], np.cumsum(found_frames))),
        truth,
        np.concatenate(([0], np.cumsum(truth_frames))),
    )
    same = found_labels[rows] == truth_labels[columns]
    rows, columns, iou = rows[same], columns[same], iou[same]
    # Best score first; for one prediction best overlap first. Frames need not be told apart: a pair
    # never spans two of them.
    order = np.lexsort((columns, -iou, rows, -scores[rows]))
    rows, columns, iou = rows[order], columns[order], iou[order]
    matched = np.zeros((len(found), len(thresholds)), dtype=bool)
    for k, threshold in enumerate(thresholds):
        near = iou >= threshold - EPS
        taken: set[int] = set()
        hit: set[int] = set()
        # Each choice depends on the ones before; only the few close pairs are gone through.
        for row, column in zip(rows[near].tolist(), columns[near].tolist(), strict=True):
            if row not in hit and column not in taken:
                hit.add(row)
                taken.add(column)
        matched[list(hit), k] = True
    return DetectionCounts(
        thresholds=tuple(thresholds),
        num_ground_truth=np.bincount(truth_labels, minlength=num_classes),
        scores=scores,
        labels=found_labels,
        matched=matched,
    )


def average_precision(counts: DetectionCounts) -> FloatArray:
    """``[K, C]`` average precision 0-1 per threshold and class; NaN for a class without true boxes.

    The mean, over recall 0, 0.01 ... 1, of the best precision at that recall or a higher one.
    """
    result = np.full((len(counts.thresholds), len(counts.num_ground_truth)), np.nan)
    for label in np.flatnonzero(counts.num_ground_truth).tolist():
        mine = np.flatnonzero(counts.labels == label)
        ranked = mine[np.argsort(-counts.scores[mine], kind="stable")]
        for k in range(len(counts.thresholds)):
            hits = np.cumsum(counts.matched[ranked, k])
            recall = hits / counts.num_ground_truth[label]
            precision = hits / np.arange(1, len(hits) + 1)
            best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(recall, _RECALL_POINTS, side="left")
            reached = np.append(best_from_here, 0.0)[places]
            result[k, label] = reached.mean()
    return result


def detection_metrics(counts: DetectionCounts) -> dict[str, float]:
    """``{"AP50": ..., "AP75": ...}``: mean over the classes that have true boxes, 0-1.

    Without any true box there is nothing to find: 0, so that the figure is always a number.
    """
    present = counts.num_ground_truth > 0
    table = average_precision(counts)[:, present]
    means = table.mean(axis=1) if present.any() else np.zeros(len(counts.thresholds))
    return {
        f"AP{100 * threshold:.3g}": float(mean)
        for threshold, mean in zip(counts.thresholds, means, strict=True)
    }


def _stack(name: str, frames: Sequence[ArrayLike]) -> tuple[FloatArray, IntArray]:
    parts = [np.asarray(frame, dtype=np.float64).reshape(-1, 4) for frame in frames]
    boxes = np.concatenate(parts) if parts else np.zeros((0, 4))
    if not np.isfinite(boxes).all():
        raise ValueError(f"{name}: holds a number that is not finite")
    return boxes, np.array([len(part) for part in parts], dtype=np.int64)


def _flatten(name: str, frames: Sequence[ArrayLike], counts: IntArray) -> FloatArray:
    parts = [np.asarray(frame, dtype=np.float64).reshape(-1) for frame in frames]
    if [len(part) for part in parts] != counts.tolist():
        raise ValueError(f"{name}: expected one number per box in every frame")
    flat = np.concatenate(parts) if parts else np.zeros(0)
    if not np.isfinite(flat).all():
        raise ValueError(f"{name}: holds a number that is not finite")
    return flat


def _labels(
    name: str, frames: Sequence[ArrayLike] | None, counts: IntArray, num_classes: int
) -> IntArray:
    if frames is None:
        return np.zeros(int(counts.sum()), dtype=np.int64)
    labels = _flatten(name, frames, counts).astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"{name}: found {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}"
        )
    return labels
