"""Hydra's sweep syntax as what Optuna is asked for, and as a grid."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from scene_track.sweeps.grid import grid
from scene_track.sweeps.space import Choice, Interval, points, split


def parsed(*words: str):
    return OverridesParser.create().parse_overrides(list(words))


@pytest.mark.parametrize(
    ("word", "axis"),
    [
        ("a=1,2.5,x,null,true", Choice((1, 2.5, "x", "null", True))),
        ("a=choice(3,3,1)", Choice((3, 1))),
        ("a=range(1,4)", Interval(1, 3, step=1, integer=True)),
        ("a=range(0,1,0.25)", Interval(0, 0.75, step=0.25)),
        ("a=int(interval(1,5))", Interval(1, 5, integer=True)),
        ("a=interval(0.5,1)", Interval(0.5, 1)),
        ("a=tag(log,interval(1e-4,1e-2))", Interval(1e-4, 1e-2, log=True)),
    ],
)
def test_what_is_typed_and_what_is_searched(word: str, axis: object) -> None:
    space, fixed = split(parsed("b=2", word, "c=x"))
    assert space == {"a": axis} and fixed == ["b=2", "c=x"]


def test_the_later_word_of_a_key_counts() -> None:
    assert split(parsed("a=1,2", "a=3")) == ({}, ["a=3"])
    assert split(parsed("a=3", "a=1,2"))[0] == {"a": Choice((1, 2))}


@pytest.mark.parametrize(
    "word", ["a=interval(2,1)", "a=tag(log,interval(0,1))", "a=range(3,1)", "a=range(2,2)"]
)
def test_an_empty_interval_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="a="):
        split(parsed(word))


def test_the_points_of_a_space() -> None:
    space = {"a": Choice(("x", "y")), "b": Interval(1, 5, step=2, integer=True)}
    assert [tuple(p.values()) for p in points(space)] == [(a, b) for a in "xy" for b in (1, 3, 5)]
    assert list(points({**space, "c": Interval(0, 1)})) == []
    assert list(points({"a": Interval(1, 10**9, integer=True)})) == []


def test_a_grid_is_every_combination_once() -> None:
    found = grid(parsed("a=1,2", "b=5", "c=x,y", "a=3,4"))
    assert [point.overrides for point in found] == [
        (f"a={a}", "b=5", f"c={c}") for a in "34" for c in "xy"
    ]
    assert found[0].params == {"a": "3", "c": "x"}
    with pytest.raises(HydraException, match="hydra/sweeper=optuna"):
        grid(parsed("a=interval(0,1)"))


def test_what_trials_are_compared_by_cannot_vary() -> None:
    from scene_track.sweeps.search import _check_space

    with pytest.raises(ValueError, match="monitor.mode cannot vary"):
        _check_space(split(parsed("monitor.mode=min,max"))[0])
