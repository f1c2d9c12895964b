"""Hydra's sweep syntax as a search space and as a grid."""

from __future__ import annotations

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from scene_track.sweeps.search import axis
from scene_track.sweeps.sweeper import grid


def parsed(*words: str):
    return OverridesParser.create().parse_overrides(list(words))


def drawn(word: str) -> list:
    """Values that a random search draws."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    (override,) = parsed(word)
    return [study.ask({"a": axis(override)}).params["a"] for _ in range(100)]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=1,2.5,x,null,true", {1, 2.5, "x", "null"}),
        ("a=choice(3,3,1)", {3, 1}),
        ("a=range(1,4)", {1, 2, 3}),
        ("a=range(1,6,2)", {1, 3, 5}),
        ("a=range(0,1,0.25)", {0, 0.25, 0.5, 0.75}),
        ("a=shuffle(range(1,4))", {1, 2, 3}),
        ("a=int(interval(1,5))", {1, 2, 3, 4, 5}),
    ],
)
def test_values_of_a_finite_axis(word: str, values: set) -> None:
    assert set(drawn(word)) == values


@pytest.mark.parametrize(
    ("word", "low", "high", "share"),
    [("a=interval(0.5,1)", 0.5, 1, 0.5), ("a=tag(log,interval(1e-4,1e-2))", 1e-4, 1e-2, 0.09)],
)
def test_an_interval_is_drawn_evenly_or_by_its_logarithm(
    word: str, low: float, high: float, share: float
) -> None:
    values = sorted(drawn(word))
    assert low <= values[0] and values[-1] <= high
    assert (values[50] - low) / (high - low) == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize(
    "word",
    ["a=interval(2,1)", "a=tag(log,interval(0,1))", "a=range(3,1)", "a=range(2,2)",
     "monitor.mode=min,max"],
)  # fmt: skip
def test_an_axis_that_makes_no_sense_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=word.split("=")[0]):
        drawn(word)


def test_a_grid_is_every_combination_once() -> None:
    found = grid(parsed("a=1,2", "b=5", "c=x,y", "a=3,4"))
    assert [overrides for overrides, _ in found] == [
        (f"a={a}", "b=5", f"c={c}") for a in "34" for c in "xy"
    ]
    assert found[0][1] == {"a": "3", "c": "x"}
    with pytest.raises(HydraException, match="hydra/sweeper=optuna"):
        grid(parsed("a=interval(0,1)"))
