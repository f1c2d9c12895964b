"""Metrics of a ball: against two references, a naive loop, and by hand."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene_track.ball.metrics import THRESHOLDS, BallCounts, ball_metrics, count_ball

GOLDEN = Path(__file__).parents[1] / "golden" / "ball_metrics.json"
HD = (720, 1280)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda c: str(c["size"]))
@pytest.mark.parametrize("convention", ["wasb", "tracknetv3"])
def test_against_the_references(case: dict, convention: str) -> None:
    """``Evaluator`` of nttcom/WASB-SBDT and ``evaluate`` of qaz812345/TrackNetV3, run by us."""
    figures = ball_metrics(count_ball(case["truth"], case["found"], tuple(case["size"])))
    for key, expected in case[convention].items():
        assert figures[f"{key}_{convention}"] == pytest.approx(expected, abs=1e-12), key


def one(truth: tuple[float, float, int], found: tuple[float, float, int] | None) -> dict:
    """Figures of one frame of an HD clip."""
    return ball_metrics(count_ball([truth], [found or (math.nan, math.nan, 0)], HD))


def outcome(figures: dict, convention: str) -> str:
    (name,) = (n for n in ("tp", "tn", "fp1", "fp2", "fn") if figures[f"{n}_{convention}"])
    return name


@pytest.mark.parametrize(
    ("truth", "found", "wasb", "tracknetv3"),
    [
        ((100, 100, 1), (103.9, 100, 1), "tp", "tp"),
        ((100, 100, 1), (104, 100, 1), "fp1", "tp"),  # WASB: less than 4 pixels
        ((100, 100, 2), (110, 100, 1), "fp1", "tp"),  # 10 pixels of 1280 are 4 of 512
        ((100, 100, 1), (112.4, 100, 1), "fp1", "tp"),  # 4.96 of 512, cut off: 44 - 40
        ((100, 100, 1), (112.5, 100, 1), "fp1", "fp1"),
        ((100, 100, 1), None, "fn", "fn"),
        ((math.nan, math.nan, 0), (5, 5, 1), "fp2", "fp2"),
        ((math.nan, math.nan, 0), None, "tn", "tn"),
        ((100, 100, 3), (100, 100, 1), "fp2", "tp"),  # WASB: an occluded ball is none
        ((100, 100, 3), None, "tn", "fn"),
    ],
)
def test_the_conventions_by_hand(truth, found, wasb: str, tracknetv3: str) -> None:
    figures = one(truth, found)
    assert (outcome(figures, "wasb"), outcome(figures, "tracknetv3")) == (wasb, tracknetv3)


def test_pck_and_distances_by_hand() -> None:
    truth = [(10, 10, 1), (20, 20, 1), (30, 30, 2), (40, 40, 3), (0, 0, 0), (5, 5, -1)]
    found = [(13, 14, 1), (20, 22, 1), (0, 0, 0), (40, 30, 1), (7, 7, 1), (900, 9, 1)]
    figures = ball_metrics(count_ball(truth, found, HD))
    # Distances 5, 2, missed, 10; the absent one was "found", the last frame nobody annotated.
    assert [figures[f"pck_{t}"] for t in THRESHOLDS] == [0.25, 0.25, 0.5, 0.75]
    assert figures["l2_mean"] == pytest.approx(17 / 3) and figures["l2_median"] == 5
    assert figures["visibility_accuracy"] == 3 / 5
    assert (figures["pck_5_visible"], figures["pck_5_hard"], figures["pck_5_occluded"]) == (1, 0, 0)
    levels = ("absent", "visible", "hard", "occluded")
    assert [figures[f"frames_{n}"] for n in levels] == [1, 2, 1, 1]


def test_nothing_to_find_and_nothing_found() -> None:
    empty = ball_metrics(BallCounts.zero())
    assert (
        empty
        == ball_metrics(count_ball([], [], HD))
        == ball_metrics(count_ball([(0, 0, -1)], [(1, 1, 1)], HD))
    )
    assert empty["pck_5"] == empty["f1_wasb"] == 0 and empty["l2_median"] == math.inf
    missed = one((5, 5, 1), None)
    assert missed["pck_10"] == 0 and missed["l2_mean"] == math.inf
    assert all(isinstance(value, float | int) for value in empty.values())


def naive(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """The same, frame by frame."""
    hits, total, agreed, known, errors = dict.fromkeys(THRESHOLDS, 0), 0, 0, 0, []
    for (x, y, v), (px, py, pv) in zip(truth.tolist(), found.tolist(), strict=True):
        if v < 0:
            continue
        known += 1
        agreed += (v > 0) == (pv > 0)
        if v > 0:
            total += 1
            if pv > 0:
                error = math.dist((x, y), (px, py))
                errors.append(error)
                for threshold in THRESHOLDS:
                    hits[threshold] += error <= threshold
    return {f"pck_{t}": h / max(total, 1) for t, h in hits.items()} | {
        "visibility_accuracy": agreed / max(known, 1),
        "l2_mean": sum(errors) / len(errors) if errors else math.inf,
        "l2_median": float(np.median(errors)) if errors else math.inf,
    }


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 30), st.integers(-1, 3),
        st.integers(0, 30), st.integers(0, 30), st.integers(0, 1),
    ),
    max_size=12,
)  # fmt: skip


@given(FRAMES, FRAMES)
def test_against_a_naive_loop_and_counts_add_up(first: list, second: list) -> None:
    clips = [np.array(c, dtype=float).reshape(-1, 6) for c in (first, second)]
    parts = [count_ball(c[:, :3], c[:, 3:], HD) for c in clips]
    both = np.concatenate(clips)
    whole = ball_metrics(count_ball(both[:, :3], both[:, 3:], HD))
    assert ball_metrics(parts[0] + parts[1]) == pytest.approx(whole)
    assert ball_metrics(sum(pickle.loads(pickle.dumps(parts)), BallCounts.zero())) == pytest.approx(
        whole
    )
    expected = naive(both[:, :3], both[:, 3:])
    assert {key: whole[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ([(1, 1, 1)], [], "1 frames of truth, 0 of predictions"),
        ([(1, 1)], [(1, 1, 1)], r"truth has shape \(1, 2\), expected \[F, 3\]"),
        ([(math.nan, 1, 1)], [(1, 1, 1)], "truth: holds a position"),
        ([(1, 1, 1)], [(1, math.inf, 1)], "found: holds a position"),
        ([(1, 1, 4)], [(1, 1, 1)], "visibility must be -1, 0, 1, 2 or 3"),
    ],
)
def test_wrong_input_is_refused(truth: list, found: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_ball(truth, found, HD)
