"""Average precision against a hand-drawn case and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.metrics.detection import (
    DetectionCounts,
    average_precision,
    count_detections,
    detection_metrics,
)
from scene_track.metrics.similarity import pairwise_iou


def test_a_hand_drawn_case() -> None:
    """Three people; ranked hit, false alarm, hit (IoU 0.6), and one person is never found.

    At 0.5: precision 1 up to recall 1/3 (34 of 101 points), 2/3 up to recall 2/3 (33 points).
    At 0.75: the loose box is a false alarm as well, so only the first 34 points count.
    """
    people = [[0, 0, 10, 10], [100, 0, 10, 10], [200, 0, 10, 10]]
    found = [[100, 0, 10, 6], [0, 0, 10, 10], [50, 50, 10, 10]]
    metrics = detection_metrics(count_detections([people], [found], [[0.3, 0.9, 0.6]]))
    assert metrics["AP50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert metrics["AP75"] == pytest.approx(34 / 101)


def test_a_second_box_on_the_same_person_is_a_false_alarm() -> None:
    counts = count_detections([[[0, 0, 10, 10]]], [[[0, 0, 10, 10], [0, 0, 10, 9]]], [[0.5, 0.9]])
    assert counts.matched.tolist() == [[False, False], [True, True]], "the surer box chooses first"


def test_classes_do_not_match_each_other_and_are_averaged() -> None:
    square = [[0, 0, 10, 10]]
    counts = count_detections(
        [square, square],
        [square, square],
        [[0.9], [0.8]],
        gt_labels=[[0], [2]],
        pred_labels=[[0], [1]],
        num_classes=3,
    )
    table = average_precision(counts)
    np.testing.assert_allclose(table, [[1.0, np.nan, 0.0]] * 2)
    assert detection_metrics(counts) == {"AP50": 0.5, "AP75": 0.5}


def test_nothing_to_find_is_zero() -> None:
    assert detection_metrics(DetectionCounts.zero()) == {"AP50": 0.0, "AP75": 0.0}
    assert detection_metrics(count_detections([[]], [[[0, 0, 1, 1]]], [[1.0]]))["AP50"] == 0.0


def plain_average_precision(frames: list, threshold: float) -> float:
    """COCO's procedure, spelled out for one class."""
    hits, total = [], 0
    for people, found, scores in frames:
        total += len(people)
        iou, free = pairwise_iou(found, people), set(range(len(people)))
        for row in np.argsort(-scores, kind="stable"):
            best = max(free, key=lambda person: (iou[row, person], -person), default=None)
            hit = best is not None and iou[row, best] >= threshold
            free -= {best} if hit else set()
            hits.append((scores[row], hit))
    if total == 0:
        return 0.0
    hits.sort(key=lambda entry: -entry[0])
    curve, found_so_far = [], 0
    for rank, (_, hit) in enumerate(hits, start=1):
        found_so_far += hit
        curve.append((found_so_far / total, found_so_far / rank))
    points = [
        max((p for r, p in curve if r >= point), default=0.0) for point in np.linspace(0, 1, 101)
    ]
    return float(np.mean(points))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_against_a_plain_loop_and_in_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(6):
        people = rng.uniform(0, 40, (rng.integers(0, 6), 2))
        people = np.hstack((people, np.full_like(people, 15.0)))
        copies = people[rng.integers(0, len(people), 5)] if len(people) else np.ones((2, 4))
        found = copies + rng.normal(0, 2, copies.shape)
        frames.append((people, found, rng.permutation(1000)[: len(found)] / 1000))
    truth, found, scores = (list(side) for side in zip(*frames, strict=True))
    whole = count_detections(truth, found, scores)
    metrics = detection_metrics(whole)
    assert metrics["AP50"] == pytest.approx(plain_average_precision(frames, 0.5), abs=1e-12)
    assert metrics["AP75"] == pytest.approx(plain_average_precision(frames, 0.75), abs=1e-12)
    parts = DetectionCounts.zero()
    for k in range(6):
        parts += count_detections([truth[k]], [found[k]], [scores[k]])
    assert detection_metrics(parts) == metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred_scores": [[0.5, 0.5]]}, "pred_scores: expected one number per box"),
        ({"pred_scores": [[float("nan")]]}, "pred_scores: holds a number that is not finite"),
        ({"gt_boxes": []}, "0 frames of gt_boxes, 1 of pred_boxes"),
        ({"gt_labels": [[3]]}, "gt_labels: found 3 to 3, expected 0 to 0"),
        ({"thresholds": (0.5, 50)}, r"expected IoU in \(0, 1\]"),
    ],
)
def test_wrong_input_is_refused(change: dict, message: str) -> None:
    square = [[[0, 0, 1, 1]]]
    good = {"gt_boxes": square, "pred_boxes": square, "pred_scores": [[0.5]]}
    with pytest.raises(ValueError, match=message):
        count_detections(**(good | change))


def test_counts_of_different_kinds_do_not_add() -> None:
    with pytest.raises(ValueError, match="cannot add"):
        DetectionCounts.zero(num_classes=1).__add__(DetectionCounts.zero(num_classes=2))
