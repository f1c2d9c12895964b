"""Sparse overlaps against a plain loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.metrics import similarity
from scene_track.metrics.similarity import frame_pairs, pairwise_iou


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(wide, 0) * max(high, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter) if inter > 0 else 0.0


def test_a_hand_drawn_pair() -> None:
    boxes = np.array([[0, 0, 4, 4]]), np.array([[2, 2, 4, 4], [4, 0, 4, 4], [0, 0, 4, 0]])
    np.testing.assert_allclose(pairwise_iou(*boxes), [[4 / 28, 0, 0]])


@pytest.mark.parametrize("block", [1, 7, 1_000_000])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_all_pairs_of_a_frame_and_no_others(block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (2, 6))
    sides = [
        np.hstack((rng.uniform(0, 30, (n, 2)), rng.choice([0.0, 5, 10, 20], (n, 2))))
        for n in counts.sum(axis=1)
    ]
    offsets = np.hstack((np.zeros((2, 1), dtype=np.int64), np.cumsum(counts, axis=1)))
    expected = {}
    for frame in range(6):
        for i in range(*offsets[0, frame : frame + 2]):
            for j in range(*offsets[1, frame : frame + 2]):
                iou = plain_iou(sides[0][i], sides[1][j])
                if iou > 0:
                    expected[i, j] = iou
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "_PAIRS_PER_BLOCK", block)
        rows, columns, iou = frame_pairs(sides[0], offsets[0], sides[1], offsets[1])
    found = dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), iou, strict=True))
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(iou, abs=1e-12) for pair, iou in expected.items())
    assert (np.diff(rows) >= 0).all()
