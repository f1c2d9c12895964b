"""Preprocessing that a benchmark applies before it counts, as TrackEval does it.

MOT16, MOT17 and MOT20 annotate objects that are not to be scored: people in vehicles, statues,
reflections. A tracker may find them or not: a prediction that is matched to such a *distractor* is
removed, then every ground-truth row that is no pedestrian, or has flag 0, is left out. MOT15,
DanceTrack and SportsMOT have no such classes; there only rows with flag 0 are left out.

Reference: TrackEval, ``MotChallenge2DBox.get_preprocessed_seq_data``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scene_track.data.mot_files import BoxTable
from scene_track.metrics.sequence import TrackingSequence
from scene_track.metrics.similarity import pairwise_iou

__all__ = ["BENCHMARKS", "Benchmark", "detect_benchmark", "known", "preprocess"]

Benchmark = Literal["mot15", "mot17", "mot20", "dancetrack", "sportsmot"]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)

_PEDESTRIAN = 1
# Class numbers: 2 person on vehicle, 6 non-motorised vehicle, 7 static person, 8 distractor,
# 12 reflection.
_DISTRACTORS: Mapping[Benchmark, tuple[int, ...]] = {
    "mot17": (2, 7, 8, 12),
    "mot20": (2, 6, 7, 8, 12),
}
_PREFIXES: Mapping[str, Benchmark] = {
    "mot16-": "mot17",
    "mot17-": "mot17",
    "mot20-": "mot20",
    "dancetrack": "dancetrack",
}
_MATCH_IOU = 0.5  # IoU from which a prediction is matched to a distractor
_EPS = float(np.finfo(np.float64).eps)


def detect_benchmark(names: Iterable[str], truths: Iterable[BoxTable]) -> Benchmark:
    """Returns the benchmark whose layout the ground truth has.

    Sequence names decide where they tell (``MOT17-02-FRCNN``, ``MOT20-01``, ``dancetrack0004``).
    Otherwise rows of several classes mean ``mot17``, rows of one class ``dancetrack``: no
    distractors.

    Args:
        names: sequence names.
        truths: their ground truth.
    """
    for name in names:
        for prefix, benchmark in _PREFIXES.items():
            if name.lower().startswith(prefix):
                return benchmark
    several = any(bool((table.classes != _PEDESTRIAN).any()) for table in truths)
    return "mot17" if several else "dancetrack"


def known(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: there is none.
    """
    if name == "mot16":  # the same videos and rules
        return "mot17"
    for benchmark in BENCHMARKS:
        if benchmark == name:
            return benchmark
    raise ValueError(f"benchmark={name}: expected auto, mot16 or one of {', '.join(BENCHMARKS)}")


def preprocess(sequence: TrackingSequence, benchmark: Benchmark) -> TrackingSequence:
    """Removes what the benchmark does not score.

    Args:
        sequence: all rows of the ground truth, and the predictions.
        benchmark: whose rules hold. ``mot15``, ``dancetrack`` and ``sportsmot`` change nothing:
            every metric leaves out rows with flag 0 by itself.

    Returns:
        The sequence with the predictions and ground truth that are counted.
    """
    distractors = _DISTRACTORS.get(benchmark)
    if distractors is None:
        return sequence
    truth, found = sequence.ground_truth, sequence.predictions
    kept = np.ones(len(found), dtype=np.bool_)
    is_distractor = np.isin(truth.classes, distractors)
    gt_offsets = truth.frame_offsets(sequence.length)
    pred_offsets = found.frame_offsets(sequence.length)
    # A frame without a distractor loses no prediction, whatever the assignment is.
    for frame in np.unique(truth.frames[is_distractor]).tolist():
        gt = slice(gt_offsets[frame - 1], gt_offsets[frame])
        pred = slice(pred_offsets[frame - 1], pred_offsets[frame])
        columns = _matched(truth.boxes[gt], found.boxes[pred], is_distractor[gt])
        kept[pred.start + columns] = False
    scored = (truth.classes == _PEDESTRIAN) & (truth.confidence != 0)
    return TrackingSequence(truth.select(scored), found.select(kept), sequence.length)


def _matched(
    gt_boxes: NDArray[np.float64],
    pred_boxes: NDArray[np.float64],
    is_distractor: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Predictions of one frame that the best assignment gives to a distractor."""
    scores = pairwise_iou(gt_boxes, pred_boxes)
    scores[scores < _MATCH_IOU - _EPS] = 0
    rows, columns = linear_sum_assignment(-scores)
    chosen = (scores[rows, columns] > _EPS) & is_distractor[rows]
    return columns[chosen].astype(np.int64)
