"""What the launching shell hands over: words for Hydra, a notebook's backend, argparse of 3.14."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from scene_track.config.shell import accept_help_objects, readable, settle, what_to_type


def _value(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize(
    "value",
    ["/tmp/ダウンロード", "/tmp/data (1)", "a=b", "it's", "/x#y;z", "/data/[x]/y", 'say "(x)"']
    + ["C:\\a b\\(x)", "ends in \\é\\", "2024_05_01", "null/é"],
)
def test_a_path_is_taken_as_it_stands(value: str) -> None:
    word = readable([f"dataset.root={value}"], sweep=False)[0]
    assert _value(word) == value
    assert readable([word], sweep=False) == [word], "a quoted word stays, as a resumed run needs"


def test_the_home_folder_is_named() -> None:
    assert _value(readable(["dataset.root=~/data"], sweep=False)[0]) == str(Path.home() / "data")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dataset.train=[clip (1),b]", ["clip (1)", "b"]),
        ("dataset.train=[2024_05_01,0007,20240501]", ["2024_05_01", "0007", "20240501"]),
        ("dataset.val=20240501", "20240501"),
        ("dataset.test=null", None),
        ("trainer.max_steps=1_000", 1000),
        ("optimizer.lr=1e-3", 1e-3),
        ("a={b: 1}", {"b": 1}),
        ("a=[[1,2],3]", [[1, 2], 3]),
    ],
)
def test_names_are_no_numbers_and_numbers_stay(word: str, expected: object) -> None:
    assert _value(readable([word], sweep=False)[0]) == expected


def test_commas_separate_the_values_of_a_sweep() -> None:
    words = readable(["a=/x (1),/y", "b=choice(1,2)", "-m"], sweep=True)
    assert [str(getattr(v, "text", v)) for v in _value(words[0]).list] == ["/x (1)", "/y"]
    assert words[1:] == ["b=choice(1,2)", "-m"]


def test_what_stays_unreadable_says_what_to_type() -> None:
    assert readable(["a=choice(null,1)"], sweep=True) == ["a=choice(null,1)"]
    assert what_to_type("a=choice(null,1)", "why").endswith("type a=null,1")
    line = what_to_type("a=[x", "why")
    assert "why" in line and _value(line.partition("type ")[2].strip("'")) == "[x"


@pytest.mark.parametrize("word", ["]", "", "seed", "é é=3", "a b"])
def test_what_is_no_key_and_value_is_said(word: str) -> None:
    assert "is not key=value" in what_to_type(word, "why")


def test_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(ValueError, match=r"dataset.root=/x/\\xff"):
        readable([os.fsdecode(b"dataset.root=/x/\xff")], sweep=False)


@pytest.mark.parametrize(
    ("backend", "left"), [("module://matplotlib_inline.backend_inline", "agg"), ("pdf", "pdf")]
)
def test_the_backend_of_a_notebook_plays_no_part(
    monkeypatch: pytest.MonkeyPatch, backend: str, left: str
) -> None:
    monkeypatch.setenv("MPLBACKEND", backend)
    settle()
    assert os.environ["MPLBACKEND"] == left


def test_hydras_parser_passes_the_check_of_python_3_14(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser
    monkeypatch.setattr(parser, "add_argument", parser.add_argument)  # restored after the test
    accept_help_objects()
    accept_help_objects()
    parser = get_args_parser()
    for action in parser._actions:  # 3.14 does this to every one that is added
        if action.help:
            parser._get_formatter()._expand_help(action)
    assert parser.parse_args(["-m", "a=b"]).overrides == ["a=b"]
