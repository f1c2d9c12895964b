"""What the share of explained variance says, and what it does not say."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.sweeps.results import importance


def test_against_the_analysis_of_variance_by_hand() -> None:
    # Groups 1 2 3 and 5 6 7: between 24, within 4, total 28; epsilon squared (24 - 1) / 28.
    found = importance(["a"] * 3 + ["b"] * 3, [1, 2, 3, 5, 6, 7])
    assert found.share == pytest.approx(23 / 28) and found.trend is None and found.trials == 6
    assert found.chance == pytest.approx(0.00805, abs=1e-5)  # of F(1, 4) = 24


def test_a_number_with_many_values_is_taken_in_thirds() -> None:
    x = np.arange(12)
    found = importance([str(v) for v in x], list(-2.0 * x))
    assert found.trend == pytest.approx(-1)
    assert found.share is not None and found.share > 0.8
    assert found.chance is not None and found.chance < 1e-3


@pytest.mark.parametrize(
    ("values", "objectives", "share"),
    [
        ([], [], None),
        (["1", "2"], [1.0, 2.0], None),
        (["1"] * 5, [1, 2, 3, 4, 5], None),
        (["a", "b"] * 3, [1.0] * 6, None),
        (["a", "b"] * 3, [1.0, 2.0] * 3, 1.0),
        (["a", "b"] * 3, [1, 1, 2, 2, 3, 3], 0.0),
    ],
)
def test_the_ends(values: list[str], objectives: list[float], share: float | None) -> None:
    found = importance(values, objectives)
    assert found.share == share
    assert found.chance == (None if share is None else 1.0 - share)
