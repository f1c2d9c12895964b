"""Ground truth with errors, as a detector of stated error rates would report it.

It stands in for detections where there is no file of them, and it judges a tracker apart from any
detector. ``fit_noise`` measures the rates of a real detector. No torch in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scene_track.data.boxes import pairwise_iou

_MATCH_IOU = 0.5
_NMS_PERCENTILE = 99.0


@dataclass(frozen=True)
class Beta:
    """A Beta distribution of scores.

    Attributes:
        a: > 0.
        b: > 0.
    """

    a: float
    b: float

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> Beta:
        """The distribution with the mean and the variance of ``values [n]``, 0-1, n >= 2."""
        mean, variance = float(values.mean()), max(float(values.var()), 1e-4)
        mean = min(max(mean, 0.02), 0.98)
        total = max(mean * (1 - mean) / variance - 1, 0.1)
        return cls(mean * total, (1 - mean) * total)


@dataclass(frozen=True)
class Noise:
    """Error rates of a detector.

    Attributes:
        misses: probability that a true box is not reported, 0-1.
        jitter: standard deviation of the centre in widths and heights, and of the logarithms of
            width and height.
        false_positives: mean number of boxes per frame that are on nobody (Poisson).
        true_scores: of boxes on somebody. The two distributions overlap as those of a real
            detector do: of the true boxes 1 in 7 is below 0.67, of the false ones 1 in 7 above.
        false_scores: of boxes on nobody.
        nms_iou: of two boxes that overlap by more the less sure one is not reported, > 0 and <= 1.
    """

    misses: float = 0.05
    jitter: float = 0.05
    false_positives: float = 0.2
    true_scores: Beta = Beta(8.0, 2.0)
    false_scores: Beta = Beta(4.0, 4.0)
    nms_iou: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether there is none: every box is reported as it is, with score 1."""
        return not (self.misses or self.jitter or self.false_positives)

    def __str__(self) -> str:
        if self.exact:
            return "exact"
        nms = f", NMS {self.nms_iou:.2f}" if self.nms_iou < 1 else ""
        return (
            f"{self.misses:.0%} missed, {self.jitter:.0%} jitter,"
            f" {self.false_positives:g} false a frame{nms}"
        )


EXACT = Noise(misses=0.0, jitter=0.0, false_positives=0.0)


@dataclass(frozen=True)
class Observed:
    """What is reported of one frame.

    Attributes:
        boxes: ``[Q, 4]`` float64 cxcywh, 0-1.
        scores: ``[Q]`` float64, 0-1.
        labels: ``[Q]`` int64.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


def observe(
    true: NDArray[np.float64],
    labels: NDArray[np.int64],
    of_video: NDArray[np.float64],
    noise: Noise,
    random: np.random.Generator,
) -> Observed:
    """What a detector with these errors reports of one frame.

    Args:
        true: ``[N, 4]`` cxcywh 0-1 in this frame.
        labels: ``[N]``.
        of_video: ``[R, 4]`` all true boxes of the video, which lend false ones their size.
        noise: error rates.
        random: draws.
    """
    if noise.exact:
        return Observed(true, np.ones(len(true)), labels)
    found = random.random(len(true)) >= noise.misses
    boxes, labels = true[found], labels[found]
    shift, growth = noise.jitter * random.standard_normal((2, len(boxes), 2))
    boxes = np.concatenate(
        (boxes[:, :2] + shift * boxes[:, 2:], boxes[:, 2:] * np.exp(growth)), axis=1
    )
    count = int(random.poisson(noise.false_positives)) if len(of_video) else 0
    sizes = of_video[random.integers(len(of_video), size=count), 2:] if count else boxes[:0, 2:]
    # Inside the image, as far as a box of this size fits.
    room = np.clip(1 - sizes, 0, None)
    false = np.concatenate((0.5 + (random.random((count, 2)) - 0.5) * room, sizes), axis=1)
    good, bad = noise.true_scores, noise.false_scores
    scores = np.concatenate(
        (random.beta(good.a, good.b, len(boxes)), random.beta(bad.a, bad.b, count))
    )
    boxes = np.concatenate((boxes, false))
    labels = np.concatenate((labels, np.zeros(count, dtype=np.int64)))
    if noise.nms_iou < 1:
        kept = surest(boxes, scores, noise.nms_iou)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    return Observed(boxes, scores, labels)


@dataclass(frozen=True)
class LabelledFrame:
    """One frame with its ground truth and what a detector reported.

    Attributes:
        true: ``[N, 4]`` cxcywh, 0-1.
        boxes: ``[Q, 4]`` cxcywh, 0-1.
        scores: ``[Q]``, 0-1.
    """

    true: NDArray[np.float64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


def fit_noise(frames: Iterable[LabelledFrame]) -> Noise:
    """The error rates of a detector, from its matches (IoU >= .5, one to one) with ground truth.

    The overlap of the NMS is the 99th percentile of the largest overlaps within a frame. Wants some
    hundreds of frames.

    Raises:
        ValueError: no true box was matched.
    """
    errors: list[NDArray[np.float64]] = []
    good: list[NDArray[np.float64]] = []
    bad: list[NDArray[np.float64]] = []
    overlaps: list[float] = []
    people = count = 0
    for frame in frames:
        count, people = count + 1, people + len(frame.true)
        overlap = pairwise_iou(frame.boxes, frame.true)
        rows, columns = linear_sum_assignment(-np.where(overlap >= _MATCH_IOU, overlap, 0))
        hit = overlap[rows, columns] >= _MATCH_IOU
        rows, columns = rows[hit], columns[hit]
        seen, true = frame.boxes[rows], frame.true[columns]
        shift = (seen[:, :2] - true[:, :2]) / true[:, 2:]
        errors.append(np.concatenate((shift, np.log(seen[:, 2:] / true[:, 2:])), axis=1))
        good.append(frame.scores[rows])
        bad.append(np.delete(frame.scores, rows))
        if len(frame.boxes) > 1:
            overlaps.append(float(np.triu(pairwise_iou(frame.boxes, frame.boxes), 1).max()))
    error, true_scores = np.concatenate(errors or [np.zeros((0, 4))]), np.concatenate(good or [[]])
    if len(error) < 2:
        raise ValueError(
            f"no detection overlaps a true box by {_MATCH_IOU} in {count} frames: nothing to fit"
            " noise to"
        )
    false_scores = np.concatenate(bad)
    crowded = len(overlaps) > 1
    return Noise(
        misses=1 - len(error) / people,
        jitter=float(np.sqrt(np.square(error - error.mean(axis=0)).mean())),
        false_positives=len(false_scores) / count,
        true_scores=Beta.fit(true_scores),
        false_scores=Beta.fit(false_scores) if len(false_scores) > 1 else Noise().false_scores,
        nms_iou=min(1.0, float(np.percentile(overlaps, _NMS_PERCENTILE))) if crowded else 1.0,
    )


def surest(
    boxes: NDArray[np.float64], scores: NDArray[np.floating], iou: float
) -> NDArray[np.int64]:
    """Rows that non-maximum suppression keeps, surest first.

    Args:
        boxes: ``[N, 4]`` cxcywh.
        scores: ``[N]``.
        iou: a box goes if a surer, kept one overlaps it by *more* than this.
    """
    order = np.argsort(-scores, kind="stable")
    close = pairwise_iou(boxes, boxes) > iou
    close.flat[:: len(boxes) + 1] = False  # with themselves
    if not close.any():
        return order
    kept: list[int] = []
    for row in order.tolist():
        if not close[row, kept].any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)
