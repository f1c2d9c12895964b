"""Preprocessing of MOT17 and MOT20, against TrackEval's own figures and a case drawn by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scene_track.data.mot_files import BoxTable, read_boxes
from scene_track.data.seqinfo import read_length
from scene_track.metrics.benchmark import BENCHMARKS, Benchmark, detect_benchmark, preprocess
from scene_track.metrics.sequence import TrackingSequence
from scene_track.metrics.tracking import TrackingCounts, count_tracking, tracking_metrics


def _table(rows: list[tuple[int, int, float, int, int]]) -> BoxTable:
    """Rows (frame, id, left, flag, class) of boxes 10 x 10."""
    frame, ids, left, flag, classes = (np.array(column) for column in zip(*rows, strict=True))
    boxes = np.stack((left, left * 0, left * 0 + 10, left * 0 + 10), axis=1)
    return BoxTable.from_arrays(frame, ids, boxes, flag.astype(float), classes)


def _tables(rows: list[tuple[int, int, float, int, int]], found: list[tuple[int, int, float]]):
    predictions = _table([(frame, number, left, 1, 1) for frame, number, left in found])
    return TrackingSequence(_table(rows), predictions, length=2)


@pytest.mark.parametrize(
    ("benchmark", "left", "truth"),
    [
        ("mot17", [0.0, 60.0, 90.0], [1]),
        ("mot20", [0.0, 90.0], [1]),
        ("mot15", [0.0, 30.0, 60.0, 90.0], [1, 2, 3, 4]),
        ("dancetrack", [0.0, 30.0, 60.0, 90.0], [1, 2, 3, 4]),
    ],
)
def test_what_is_matched_to_a_distractor_is_removed(
    benchmark: Benchmark, left: list[float], truth: list[int]
) -> None:
    sequence = _tables(
        # A pedestrian, a static person, a vehicle, and a pedestrian that is not to be scored.
        [(1, 1, 0.0, 1, 1), (1, 2, 30.0, 0, 7), (1, 3, 60.0, 0, 6), (1, 4, 200.0, 0, 1)],
        [(1, 1, 0.0), (1, 2, 30.0), (1, 3, 60.0), (1, 4, 90.0)],
    )
    counted = preprocess(sequence, benchmark)
    assert counted.predictions.boxes[:, 0].tolist() == left
    assert counted.ground_truth.ids.tolist() == truth


def test_a_pedestrian_takes_the_prediction_from_a_distractor_beside_it() -> None:
    sequence = _tables([(1, 1, 0.0, 1, 1), (1, 2, 2.0, 0, 8)], [(1, 1, 0.0)])
    assert len(preprocess(sequence, "mot17").predictions) == 1


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("MOT17-02-FRCNN", (1,), "mot17"),
        ("MOT16-02", (1,), "mot17"),
        ("MOT20-01", (1, 7), "mot20"),
        ("dancetrack0004", (1,), "dancetrack"),
        ("yard", (1, 7), "mot17"),
        ("yard", (1, 1), "dancetrack"),
    ],
)
def test_the_layout_tells_the_benchmark(
    name: str, classes: tuple[int, ...], expected: Benchmark
) -> None:
    rows = [(1, number, 20.0 * number, 1, label) for number, label in enumerate(classes)]
    assert expected in BENCHMARKS
    assert detect_benchmark([name], [_table(rows)]) == expected


@pytest.mark.parametrize("benchmark", ["mot15", "mot17", "mot20"])
def test_equals_trackeval_on_mot17(shared: Path, benchmark: Benchmark) -> None:
    golden = shared / "golden" / "mot17_preprocessing"
    truths = shared / "data" / "association" / "mot17_train_half" / "gt"
    expected = json.loads((golden / "expected.json").read_text())[benchmark]
    total = TrackingCounts.zero()
    for name, figures in expected["sequences"].items():
        length = read_length(truths / name)
        truth, _ = read_boxes(truths / name / "gt" / "gt.txt", length=length)
        found, _ = read_boxes(golden / "pred" / f"{name}.txt", kind="result", length=length)
        counts = count_tracking(preprocess(TrackingSequence(truth, found, length), benchmark))
        total += counts
        _same(counts, figures)
    _same(total, expected["combined"])


def _same(counts: TrackingCounts, figures: dict[str, float]) -> None:
    """Counts are equal. The reference computed IoU in float32, where some tie an alpha.

    With float32 IoU here too, the largest difference is 2e-7.
    """
    metrics = {key.lower(): value for key, value in tracking_metrics(counts).items()}
    for key, value in figures.items():
        precision = 1e-9 if key in ("MOTA", "IDF1") else 1e-5
        if isinstance(value, int):
            assert metrics[key.lower()] == value, key
        else:
            assert metrics[key.lower()] == pytest.approx(value, abs=precision), key
