"""HOTA, CLEAR and Identity against TrackEval's numbers, hand-drawn cases and invariants."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.data.mot_files import BoxTable, read_boxes
from scene_track.data.seqinfo import read_length
from scene_track.metrics.tracking import (
    TrackingCounts,
    TrackingSequence,
    count_tracking,
    tracking_metrics,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "mot_metrics"
SMALL_CASES = sorted(folder.name for folder in GOLDEN.iterdir())
NOT_FIGURES = {"sequence", "seq_length", "evaluator"}


def load(folder: Path) -> TrackingSequence:
    length = read_length(folder)
    truth, _ = read_boxes(folder / "gt.txt", length=length)
    found, _ = read_boxes(folder / "pred.txt", kind="result", length=length)
    return TrackingSequence(truth, found, length)


def assert_equal_to_trackeval(counts: TrackingCounts, expected: dict) -> None:
    metrics = tracking_metrics(counts)
    figures = {key: value for key, value in expected.items() if key not in NOT_FIGURES}
    assert len(figures) > 30
    for key, value in figures.items():
        np.testing.assert_allclose(metrics[key], value, rtol=0, atol=1e-9, err_msg=key)


def test_all_small_cases_are_here() -> None:
    assert len(SMALL_CASES) == 8


@pytest.mark.parametrize("case", SMALL_CASES)
def test_against_trackeval(case: str) -> None:
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    assert_equal_to_trackeval(count_tracking(load(GOLDEN / case)), expected)


def test_against_trackeval_long_sequences_and_combined_figures(shared: Path) -> None:
    root = shared / "golden" / "mot_metrics"
    combined = json.loads((root / "combined.json").read_text())
    cases = combined["members_COMBINED"]
    counts = {case: count_tracking(load(root / case)) for case in cases}
    for case in ("big_a", "big_b"):
        expected = json.loads((root / case / "expected.json").read_text())
        assert_equal_to_trackeval(counts[case], expected)
    for name, members in (
        ("COMBINED", cases),
        ("COMBINED_small_big", combined["members_small_big"]),
    ):
        total = sum((counts[member] for member in members), start=TrackingCounts.zero())
        assert_equal_to_trackeval(total, combined[name])


def box(left: float, top: float = 0.0, width: float = 10.0, height: float = 10.0) -> list[float]:
    return [left, top, width, height]


def sequence_of(gt_ids: list, gt_boxes: list, pred_ids: list, pred_boxes: list) -> TrackingSequence:
    """A sequence of lists with one entry per frame."""

    def table(ids: list, boxes: list) -> BoxTable:
        frames = [number for number, frame in enumerate(ids, start=1) for _ in frame]
        flat = [np.asarray(frame, dtype=np.float64).reshape(-1, 4) for frame in boxes]
        return BoxTable.from_arrays(np.array(frames), np.concatenate(ids), np.concatenate(flat))

    return TrackingSequence(table(gt_ids, gt_boxes), table(pred_ids, pred_boxes), len(gt_ids))


def score(gt: list[dict[int, list[float]]], pred: list[dict[int, list[float]]]) -> dict:
    sequence = sequence_of(
        [list(frame) for frame in gt],
        [list(frame.values()) for frame in gt],
        [list(frame) for frame in pred],
        [list(frame.values()) for frame in pred],
    )
    return tracking_metrics(count_tracking(sequence))


def test_an_identity_switch_halfway() -> None:
    """One track of four frames, found by id 1, 1, 2, 2: DetA 1, AssA 2/4, IDF1 4/8."""
    metrics = score([{1: box(0)}] * 4, [{1: box(0)}, {1: box(0)}, {2: box(0)}, {2: box(0)}])
    assert metrics["DetA"] == 1.0
    assert metrics["AssA"] == 0.5
    assert metrics["HOTA"] == pytest.approx(np.sqrt(0.5))
    assert metrics["IDSW"] == 1
    assert metrics["MOTA"] == 0.75
    assert metrics["IDF1"] == 0.5
    assert (metrics["MT"], metrics["Frag"]) == (1, 0)


def test_frames_without_predictions_break_no_track_but_missed_frames_do() -> None:
    """The middle frame is missed: without any prediction it is passed over, as in TrackEval."""
    track = [{1: box(0)}] * 3
    passed_over = score(track, [{1: box(0)}, {}, {1: box(0)}])
    missed = score(track, [{1: box(0)}, {9: box(500)}, {1: box(0)}])
    assert (passed_over["Frag"], missed["Frag"]) == (0, 1)
    assert (passed_over["FN"], missed["FN"]) == (1, 1)
    assert (passed_over["FP"], missed["FP"]) == (0, 1)


def test_a_person_who_leaves_and_returns_counts_as_a_fragment() -> None:
    """TrackEval does not ask why a track has no match: absence breaks it like a miss."""
    visit = [{1: box(0), 2: box(99)}, {2: box(99)}, {1: box(0), 2: box(99)}]
    metrics = score(visit, visit)
    assert (metrics["Frag"], metrics["IDSW"], metrics["FN"]) == (1, 0, 0)


def test_clear_keeps_a_partner_although_another_box_fits_better() -> None:
    """In frame 2 a new box fits better, but the partner of frame 1 still overlaps enough."""
    gt = [{1: box(0)}, {1: box(0)}]
    kept = score(gt, [{1: box(0)}, {1: box(2), 2: box(0)}])
    assert (kept["IDSW"], kept["TP"], kept["FP"]) == (0, 2, 1)
    assert kept["MOTP"] == pytest.approx((1 + 8 / 12) / 2)
    lost = score(gt, [{1: box(0)}, {1: box(4), 2: box(0)}])
    assert (lost["IDSW"], lost["MOTP"]) == (1, 1.0)


def test_thresholds_at_exact_ties() -> None:
    """IoU exactly 0.5 counts for CLEAR, Identity and HOTA up to alpha 0.5."""
    metrics = score([{1: box(0)}], [{1: box(0, height=5)}])
    assert (metrics["TP"], metrics["IDTP"]) == (1, 1)
    assert metrics["HOTA_TP_alpha"].tolist() == [1] * 10 + [0] * 9


def test_ground_truth_marked_zero_is_not_scored_but_predictions_of_confidence_zero_are() -> None:
    table = BoxTable.from_arrays(np.array([1, 2]), np.array([1, 1]), np.array([box(0)] * 2))
    half = replace(table, confidence=np.array([1.0, 0.0]))
    assert tracking_metrics(count_tracking(TrackingSequence(half, table, 2)))["FP"] == 1
    assert tracking_metrics(count_tracking(TrackingSequence(table, half, 2)))["FP"] == 0


def test_nothing_at_all_gives_numbers() -> None:
    metrics = tracking_metrics(TrackingCounts.zero())
    assert metrics["HOTA"] == 0.0 and metrics["LocA"] == 1.0 and metrics["MOTA"] == 0.0
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert score([{}], [{}])["HOTA"] == 0.0


@st.composite
def crowds(draw: st.DrawFn) -> tuple[TrackingSequence, np.random.Generator]:
    """Crowds on a coarse grid: many exact ties, empty frames, misses and clutter."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames, people, found = (draw(st.integers(1, high)) for high in (8, 6, 7))
    grid = draw(st.sampled_from((1e-3, 5.0, 10.0)))
    home = rng.uniform(0, 50, (people, 2))

    def boxes(at: np.ndarray) -> np.ndarray:
        low = at + rng.normal(0, 4, at.shape)
        return np.hstack((np.round(low / grid) * grid, np.full(at.shape, 20.0)))

    gt_ids = [np.flatnonzero(rng.random(people) < 0.8) for _ in range(frames)]
    pred_ids = [rng.permutation(found)[: rng.integers(0, found + 1)] for _ in range(frames)]
    sequence = sequence_of(
        gt_ids,
        [boxes(home[ids]) for ids in gt_ids],
        pred_ids,
        [boxes(home[ids % people]) for ids in pred_ids],
    )
    return sequence, rng


@given(crowds())
@settings(max_examples=60, deadline=None)
def test_figures_stay_in_range_and_counts_agree(crowd) -> None:
    sequence, _ = crowd
    metrics = tracking_metrics(count_tracking(sequence))
    for key in ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "IDF1", "IDP", "IDR", "MOTP"):
        assert 0 <= metrics[key] <= 1 + 1e-12, key
    truth, found = len(sequence.ground_truth), len(sequence.predictions)
    for tp, fn, fp in (("TP", "FN", "FP"), ("IDTP", "IDFN", "IDFP")):
        assert metrics[tp] + metrics[fn] == truth
        assert metrics[tp] + metrics[fp] == found
    assert (metrics["HOTA_TP_alpha"] + metrics["HOTA_FN_alpha"] == truth).all()
    assert (np.diff(metrics["HOTA_TP_alpha"]) <= 0).all()
    assert metrics["MT"] + metrics["PT"] + metrics["ML"] == len(set(sequence.ground_truth.ids))


@given(crowds())
@settings(max_examples=30, deadline=None)
def test_names_of_identities_do_not_matter(crowd) -> None:
    sequence, _ = crowd
    rename = np.array([900, -4, 13, 2**40, 0, 77, 5])
    renamed = TrackingSequence(
        sequence.ground_truth,
        replace(sequence.predictions, ids=rename[sequence.predictions.ids]),
        sequence.length,
    )
    before = tracking_metrics(count_tracking(sequence))
    after = tracking_metrics(count_tracking(renamed))
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=0, atol=1e-12, err_msg=key)


@given(crowds())
@settings(max_examples=30, deadline=None)
def test_ground_truth_as_prediction_is_perfect(crowd) -> None:
    truth = crowd[0].ground_truth
    metrics = tracking_metrics(count_tracking(TrackingSequence(truth, truth, crowd[0].length)))
    expected = float(len(truth) > 0)
    # Two people in one and the same place cannot be told apart; IoU alone settles nothing there.
    apart = len(np.unique(np.column_stack((truth.frames, truth.boxes)), axis=0)) == len(truth)
    if apart:
        for key in ("HOTA", "DetA", "AssA", "MOTA", "IDF1"):
            assert metrics[key] == pytest.approx(expected), key
        assert metrics["IDSW"] == 0
    assert (metrics["FP"], metrics["FN"]) == (0, 0)


def test_counts_add_up_and_travel_between_processes() -> None:
    parts = [count_tracking(load(GOLDEN / case)) for case in SMALL_CASES]
    forth = sum(parts, start=TrackingCounts.zero())
    back = sum(pickle.loads(pickle.dumps(parts[::-1])), start=TrackingCounts.zero())
    for key, value in tracking_metrics(forth).items():
        np.testing.assert_allclose(tracking_metrics(back)[key], value, rtol=1e-12, err_msg=key)
    assert forth.clear.tp == sum(part.clear.tp for part in parts)


@pytest.mark.parametrize(
    ("gt_ids", "gt_boxes", "message"),
    [
        ([[1, 1]], [[box(0), box(20)]], "ground truth: id 1 appears more than once in frame 1"),
        ([[1]], [[box(float("nan"))]], "ground truth: frame 1, id 1: box"),
        ([[1]], [[box(0, width=-1)]], "ground truth: frame 1, id 1: box"),
    ],
)
def test_wrong_sequences_are_refused(gt_ids, gt_boxes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence_of(gt_ids, gt_boxes, [[]], [[]])


def test_frames_outside_the_sequence_are_refused() -> None:
    table = BoxTable.from_arrays(np.array([4]), np.array([1]), np.array([box(0)]))
    with pytest.raises(ValueError, match="predictions: frames 4 to 4, expected 1 to 3"):
        TrackingSequence(BoxTable.empty(), table, 3)


def test_metrics_and_file_readers_do_without_torch() -> None:
    code = (
        "import sys; import scene_track.metrics.tracking, scene_track.metrics.detection, "
        "scene_track.score, scene_track.data.mot_files; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
