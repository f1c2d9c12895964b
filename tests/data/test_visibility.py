"""Weights for frames of rare visibility."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.data.visibility import balanced_weights, count_visibility


def test_counting_leaves_out_what_nobody_annotated() -> None:
    counts = count_visibility([np.array([-1.0, 0, 1, 1, 3]), np.array([1, -1])])
    assert counts.tolist() == [1, 3, 0, 1]


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_rare_ones_count_more_and_the_mean_stays_one(power: float) -> None:
    counts = [25, 400, 0, 100]
    weights = balanced_weights(counts, power)
    assert sum(w * c for w, c in zip(weights, counts, strict=True)) == pytest.approx(sum(counts))
    assert weights[2] == 1  # nothing to weigh
    assert weights[0] / weights[1] == pytest.approx(16**power)
    if power == 1:  # every level counts as much as any other
        assert weights[0] * 25 == pytest.approx(weights[1] * 400)


def test_without_frames_all_are_one() -> None:
    assert balanced_weights([0, 0, 0, 0]) == [1, 1, 1, 1]
