"""A check that one reader has, its twins have too: doubles, gaps, names, missing labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from scene_track.data.footage import open_footage
from scene_track.data.video import MotFolder
from tests.faults import malformed


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """A whole sequence of four frames with ground truth."""
    file = tmp_path / "train" / "A" / "seqinfo.ini"
    file.parent.mkdir(parents=True)
    file.write_text(malformed.SEQINFO)
    malformed.KINDS["sequence"].read(file)
    return file.parent


def _read(folder: Path) -> object:
    return MotFolder(root=folder.parent.parent, classes={1: "person"}).sequences("train")


def _track(folder: Path) -> object:
    return list(open_footage(folder / "img1", 20).frames)


def _twice(folder: Path) -> None:
    Image.new("RGB", (48, 32)).save(folder / "img1" / "000002.jpg")


def _xyz(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "gt" / "xyz.txt").write_text(text)


@pytest.mark.parametrize(
    ("read", "spoil", "words"),
    [
        (_read, _twice, "twice"),
        (_track, _twice, "twice"),
        (_read, _xyz("1,1,0,0,3\n1,1,0,0,4\n"), "xyz.txt"),
        (_read, _xyz("1.5,1,0,0,3\n"), "xyz.txt"),
        (_read, lambda folder: folder.rename(folder.parent / os.fsdecode(b"A\xff")), "UTF-8"),
    ],
)
def test_what_is_wrong_is_one_line(
    sequence: Path, read: Callable, spoil: Callable, words: str
) -> None:
    assert read(sequence)
    spoil(sequence)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        read(sequence)
    assert "\n" not in str(caught.value)


def test_a_gap_in_a_sequence_that_is_tracked_is_said(sequence: Path, caplog) -> None:
    (sequence / "img1" / "000002.png").unlink()
    (sequence / "img1" / "._000003.png").write_bytes(b"of a Mac")
    assert [frame.number for frame in open_footage(sequence).frames] == [1, 3, 4]
    assert "1 frames have no image file" in caplog.text
    caplog.clear()
    assert len(list(open_footage(sequence / "img1", 20).frames)) == 3 and not caplog.text
