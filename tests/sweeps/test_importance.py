"""What the share of explained variance says, and what it does not say."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.sweeps.results import importance


def test_against_the_analysis_of_variance_by_hand() -> None:
    # Groups 1 2 3 and 5 6 7: between 24, within 4, total 28; epsilon squared (24 - 1) / 28.
    found = importance(["a"] * 3 + ["b"] * 3, [1, 2, 3, 5, 6, 7])
    assert found.share == pytest.approx(23 / 28)
    assert found.trend is None and found.trials == 6
    assert found.chance == pytest.approx(2 / 20, abs=0.03), "2 of the 20 ways to choose a group"


def test_a_number_with_many_values_is_taken_in_thirds() -> None:
    x = np.arange(12)
    found = importance([str(v) for v in x], list(-2.0 * x))
    assert found.trend == pytest.approx(-1)
    assert found.share is not None and found.share > 0.8 and found.chance == 0


def test_what_plays_no_part_explains_nothing_on_average() -> None:
    random = np.random.default_rng(1)
    values = ["a", "b", "c"] * 6
    shares, chances = [], []
    for seed in range(30):
        found = importance(values, list(random.normal(size=18)), seed=seed)
        shares.append(found.share)
        chances.append(found.chance)
    assert np.mean(shares) < 0.08
    assert 0.35 < np.mean(chances) < 0.65


@pytest.mark.parametrize(
    ("values", "objectives"),
    [([], []), (["1", "2"], [1.0, 2.0]), (["1"] * 5, [1, 2, 3, 4, 5]), (["a", "b"] * 3, [1.0] * 6)],
)
def test_too_little_to_say(values: list[str], objectives: list[float]) -> None:
    found = importance(values, objectives)
    assert found.share is None and found.chance is None
