"""TrackNet folders: splits by game and clip, both layouts, and faults that are told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from scene_track.ball.tracknet import TrackNetFolder

ONE = {0: (1, 3, 4), 1: (1, 5, 6)}

SHIPPED: dict = {"class_name": "ball", "frame_rate": 30.0}


def reader(folder: Path) -> TrackNetFolder:
    return TrackNetFolder(root=folder.parents[1], **SHIPPED)


def test_a_clip_is_read_exactly(make_clip, flight) -> None:
    folder = make_clip(balls=flight)
    (clip,) = reader(folder).sequences("game1")
    assert clip.name == "game1_Clip1" and clip.labelled and clip.label_file == "Label.csv"
    assert clip.frames.tolist() == [0, 1, 2, 3, 4, 5] and clip.info.frame_rate == 30
    assert (clip.info.height, clip.info.width) == (36, 64)
    assert (clip.info.first_frame, clip.info.last_frame) == (0, 5)
    points = clip.points
    assert points is not None and points.dtype == np.float64
    assert points[:, 2].tolist() == [1, 1, 0, 2, 3, 1]
    assert points[4, :2].tolist() == [37, 16] and np.isnan(points[2, :2]).all()
    assert clip.files[3].name == "0003.png"


def test_splits_by_game_and_by_clip(make_clip) -> None:
    for name in ("game1/Clip1", "game1/Clip10", "game1/Clip2", "game2/Clip1"):
        folder = make_clip(name, balls=ONE)
    source = reader(folder)

    def names(split: str | list[str]) -> list[str]:
        return [s.name for s in source.sequences(split)]

    assert names("game1") == ["game1_Clip1", "game1_Clip2", "game1_Clip10"]
    assert names(["game2", "game1/Clip2"]) == ["game2_Clip1", "game1_Clip2"]
    assert names(["game1/Clip1:1-1"]) == ["game1_Clip1_1-1"]
    (part,) = source.sequences(["game1/Clip1:1-1"])
    assert part.points is not None
    assert part.points.tolist() == [[5, 6, 1]] and part.frames.tolist() == [1] and len(part) == 1
    assert names(".") == ["game1_Clip1", "game1_Clip2", "game1_Clip10", "game2_Clip1"]


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        ("game7", FileNotFoundError, "holds 1 clips: game1/Clip1.*name other games or clips"),
        (["game1/Clip9"], FileNotFoundError, "Clip9: no clip there"),
        ([], ValueError, "empty list"),
        (["game1/Clip1:0-2"], ValueError, "frames are 0-1"),
        (["game1:0-1"], ValueError, "not of 1 clips"),
        (["game1/Clip1:0-0", "game1"], ValueError, "frame 0 of .*Clip1 is already in this split"),
        (["game1/Clip1:x"], ValueError, "expected FOLDER or FOLDER/CLIP:FIRST-LAST"),
    ],
)
def test_splits_that_cannot_be_meant(make_clip, split, error, message: str) -> None:
    folder = make_clip(balls=ONE)
    with pytest.raises(error, match=message):
        reader(folder).sequences(split)


def test_badminton(make_clip) -> None:
    balls = {n: ((1, 0, 1)[n % 3], n, n) for n in range(12)}
    folder = make_clip("match1/1_01_00", balls=balls, badminton=True)
    (clip,) = TrackNetFolder(root=folder.parents[2], **SHIPPED).sequences("match1")
    assert clip.name == "match1_1_01_00" and clip.labelled
    assert clip.label_file == "../../csv/1_01_00_ball.csv"
    assert clip.points is not None
    assert [f.name for f in clip.files][9:] == ["9.png", "10.png", "11.png"]
    assert clip.points[10, 2] == 0 and clip.points[11].tolist() == [11, 11, 1]


def test_two_clips_of_one_name_are_refused(make_clip) -> None:
    folder = make_clip("game1/Clip1", balls=ONE)
    other = folder.parents[1] / "more" / "game1"
    other.parent.mkdir()
    (folder.parent).rename(other)
    make_clip("game1/Clip1", balls=ONE)
    with pytest.raises(ValueError, match="called game1_Clip1"):
        reader(folder).sequences(".")


def test_frames_without_a_row_are_not_annotated(make_clip, flight) -> None:
    rows = "file name,visibility,x-coordinate,y-coordinate,status\n0001.png,1,13,7,0\n"
    (clip,) = reader(make_clip(balls=flight, labels=rows)).sequences("game1")
    assert clip.points is not None
    assert clip.points[:, 2].tolist() == [-1, 1, -1, -1, -1, -1]


def test_a_clip_without_labels(make_clip, flight) -> None:
    (clip,) = reader(make_clip(balls=flight, labels="")).sequences("game1")
    assert not clip.labelled and clip.points is not None and (clip.points[:, 2] == -1).all()


def test_faults_stop_or_are_counted(make_clip, flight, caplog) -> None:
    rows = "file name,visibility,x-coordinate,y-coordinate,status\n0001.png,1,99,7,0\n"
    folder = make_clip(balls=flight, labels=rows + "0003.png,1,5,5,0\n", missing=[2])
    with pytest.raises(FileNotFoundError, match="frame 2.*dataset.on_error=skip"):
        reader(folder).sequences("game1")
    (folder / "0002.png").write_bytes((folder / "0001.png").read_bytes())
    with pytest.raises(ValueError, match="line 2: x is 99, outside.*dataset.on_error=skip"):
        reader(folder).sequences("game1")
    (folder / "0002.png").unlink()
    with caplog.at_level(logging.WARNING):
        (clip,) = reader(folder).sequences("game1", on_error="skip")
    assert "skipped 2 faults" in caplog.text and "line 2: x is 99" in caplog.text
    assert clip.frames.tolist() == [0, 1, 3, 4, 5]
    assert clip.points is not None and clip.points[:, 2].tolist() == [-1, -1, 1, -1, -1]


def test_images_that_are_none(make_clip, flight) -> None:
    folder = make_clip(balls=flight)
    (folder / "0000.png").write_text("no picture")
    with pytest.raises(ValueError, match="0000.png: the size cannot be read"):
        reader(folder).sequences("game1")
    with pytest.raises(FileNotFoundError, match="Type dataset.root=FOLDER"):
        TrackNetFolder(root=Path("nowhere"), **SHIPPED).sequences("game1")


def test_real_footage(shared: Path) -> None:
    source = TrackNetFolder(root=shared / "data" / "tracknet_tennis", **SHIPPED)
    train, val = source.sequences(["game2"]), source.sequences(["game3"])
    assert (len(train), sum(map(len, train))) == (6, 282)
    assert (len(val), sum(map(len, val))) == (3, 47)
    first = train[0].points
    assert first is not None and first[0].tolist() == [652.4, 289.6, 1]
    assert {s.name for s in val} == {"game3_Clip1", "game3_Clip2", "game3_Clip3"}
