"""The DanceTrack / MOTChallenge reader: layouts it must take, faults it must name, its cache."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from scene_track.data import video as module
from scene_track.data.video import MotFolder, OnError, Video, read_sequence

PERSON = {1: "person"}


@pytest.mark.parametrize(("digits", "extension"), [(6, "jpg"), (8, "jpg"), (6, "png"), (8, "png")])
def test_layouts(make_sequence, walking_gt, digits: int, extension: str) -> None:
    folder = make_sequence(digits=digits, extension=extension, gt=walking_gt)
    sequence = read_sequence(folder, classes=PERSON)
    assert sequence.frames.tolist() == [1, 2, 3, 4, 5, 6]
    assert sequence.files[4].name == f"{5:0{digits}d}.{extension}"
    assert all(f.is_file() for f in sequence.files)
    assert sequence.table.boxes[sequence.rows(2)].tolist() == [[6, 4, 8, 10]]
    assert sequence.labelled


def test_rows_that_are_not_targets_are_dropped(make_sequence) -> None:
    gt = (
        "1,1,0,0,5,5,1,1,1\n"
        "1,2,0,0,5,5,0,1,1\n"  # flag 0
        "1,3,0,0,5,5,1,8,1\n"  # a class nobody asked for
        "2,4,0,0,5,5,1,3,1\n"
    )
    sequence = read_sequence(make_sequence(gt=gt), classes={3: "car", 1: "person"})
    assert sequence.table.ids.tolist() == [1, 4]
    assert sequence.labels.tolist() == [1, 0]  # the order of the option is the order of the labels


def test_boxes_over_the_border_stay_as_written(make_sequence) -> None:
    sequence = read_sequence(make_sequence(gt="1,1,-7.5,-3,20,60.25,1,1,1\n"), classes=PERSON)
    assert sequence.table.boxes.tolist() == [[-7.5, -3.0, 20.0, 60.25]]


def test_without_ground_truth(make_sequence) -> None:
    sequence = read_sequence(make_sequence(gt=None), classes=PERSON)
    assert not sequence.labelled
    assert len(sequence.table) == 0
    assert len(sequence) == 6


def test_xyz_follows_its_row(make_sequence) -> None:
    gt = "2,5,0,0,5,5,1,1,1\n1,5,0,0,5,5,1,1,1\n1,9,0,0,5,5,1,1,1\n"
    folder = make_sequence(gt=gt, xyz="1,9,1,2,3\n2,5,4,5,6\n")
    sequence = read_sequence(folder, classes=PERSON)
    assert sequence.xyz is not None
    np.testing.assert_array_equal(sequence.xyz, [[np.nan] * 3, [1, 2, 3], [4, 5, 6]])


def test_frame_ranges(make_sequence, walking_gt, tmp_path: Path) -> None:
    make_sequence("A", gt=walking_gt)
    make_sequence("B", gt=walking_gt)
    source = MotFolder(root=tmp_path / "root" / "train", classes=PERSON)
    first, second, whole = source.sequences(["A:2-3", "A:4-6", "B"])
    assert (first.name, second.name, whole.name) == ("A_2-3", "A_4-6", "B")
    assert first.frames.tolist() == [2, 3]
    assert first.table.frames.tolist() == [2, 3]
    assert first.table.boxes[first.rows(1)].tolist() == [[6, 4, 8, 10]]
    assert [f.name for f in second.files] == ["000004.png", "000005.png", "000006.png"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["A:0-3"], "frames are 1-6"),
        (["A:3-7"], "frames are 1-6"),
        (["A:5-4"], "frames are 1-6"),
        (["A:1-3", "A:3-6"], "frame 3 of .* is already"),
        (["A", "A"], "frame 1 of .* is already"),
        (["A:1-"], "NAME:FIRST-LAST"),
        ([], "empty list"),
    ],
)
def test_wrong_lists(make_sequence, tmp_path: Path, split: list[str], message: str) -> None:
    make_sequence("A")
    with pytest.raises(ValueError, match=message):
        MotFolder(root=tmp_path / "root" / "train", classes=PERSON).sequences(split)


def test_what_is_not_there_is_named_with_what_to_type(make_sequence, tmp_path: Path) -> None:
    make_sequence("A")
    root = tmp_path / "root"
    (root / "empty").mkdir()
    for source, split, named in (
        (MotFolder(root=tmp_path / "nowhere", classes=PERSON), "train", "nowhere"),
        (MotFolder(root=root, classes=PERSON), "val", str(root / "val")),
        (MotFolder(root=root, classes=PERSON), "empty", str(root / "empty")),
        (MotFolder(root=root / "train", classes=PERSON), ["B"], str(root / "train" / "B")),
    ):
        with pytest.raises(FileNotFoundError, match="dataset.root=") as caught:
            source.sequences(split)
        assert named in str(caught.value)


def test_classes_that_match_no_row(make_sequence) -> None:
    folder = make_sequence(gt="1,1,0,0,5,5,1,7,1\n")
    with pytest.raises(ValueError, match=r"class of \[1\], found 7.*dataset.source.classes"):
        read_sequence(folder, classes=PERSON)


WRONG_ROWS = {
    "does not parse": "2,1,zero,0,5,5,1,1,1",
    "negative box": "2,1,0,0,-5,5,1,1,1",
    "frame out of range": "7,1,0,0,5,5,1,1,1",
    "duplicate": "1,1,9,9,5,5,1,1,1",
}


@pytest.mark.parametrize("row", WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_wrong_rows(make_sequence, row: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sequence(gt=f"1,1,0,0,5,5,1,1,1\n{row}\n3,1,0,0,5,5,1,1,1\n")
    with pytest.raises(ValueError, match=r"line 2.*dataset.on_error=skip") as caught:
        read_sequence(folder, classes=PERSON)
    assert str(folder / "gt" / "gt.txt") in str(caught.value)

    with caplog.at_level(logging.WARNING):
        sequence = read_sequence(folder, classes=PERSON, on_error="skip")
    assert sequence.table.frames.tolist() == [1, 3]
    assert "skipped 1 faults" in caplog.text
    assert "line 2" in caplog.text


def test_missing_frames(make_sequence, walking_gt, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sequence(gt=walking_gt, missing=(3, 5))
    with pytest.raises(FileNotFoundError, match=r"2 of 6 frames.*first: frame 3.*on_error=skip"):
        read_sequence(folder, classes=PERSON)
    with caplog.at_level(logging.WARNING):
        sequence = read_sequence(folder, classes=PERSON, on_error="skip")
    assert sequence.frames.tolist() == [1, 2, 4, 6]
    assert sequence.table.frames.tolist() == [1, 2, 4, 6]
    assert "2 of 6 frames" in caplog.text


def test_no_frame_at_all_is_an_error_also_with_skip(make_sequence) -> None:
    folder = make_sequence(length=3, missing=(1, 2, 3))
    with pytest.raises(FileNotFoundError, match="is empty"):
        read_sequence(folder, classes=PERSON, on_error="skip")


def test_a_frame_with_two_files_is_refused(make_sequence) -> None:
    folder = make_sequence()
    (folder / "img1" / "00000002.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="frame 2 is there twice"):
        read_sequence(folder, classes=PERSON)


def same(a: Video, b: Video) -> None:
    assert a.files == b.files
    for name in ("frames", "ids", "boxes", "classes", "confidence", "visibility"):
        np.testing.assert_array_equal(getattr(a.table, name), getattr(b.table, name))
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.info, a.labelled) == (b.info, b.labelled)
    if a.xyz is not None:
        assert b.xyz is not None
        np.testing.assert_array_equal(a.xyz, b.xyz)


def test_the_cache_gives_the_same_without_parsing(
    make_sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gt = "1,1,0.1,1e-3,5.000000000000001,5,1,1,0.3\n2,1,0,0,5,5,1,1,1\n"
    folder = make_sequence(gt=gt, xyz="1,1,0.1,2,3\n")
    first = read_sequence(folder, classes=PERSON, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(module, "_parse", lambda *_: pytest.fail("parsed although cached"))
    same(first, read_sequence(folder, classes=PERSON, cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("change", ["gt", "seqinfo", "image", "xyz", "torn"])
def test_the_cache_notices_changes(make_sequence, tmp_path: Path, change: str) -> None:
    cache = tmp_path / "cache"
    folder = make_sequence(gt="1,1,0,0,5,5,1,1,1\n", xyz="1,1,0,0,1\n")
    read_sequence(folder, classes=PERSON, cache_dir=cache)
    if change == "gt":  # same length, so that only the time tells
        (folder / "gt" / "gt.txt").write_text("1,1,0,0,6,6,1,1,1\n")
        os.utime(folder / "gt" / "gt.txt", ns=(1, 1))
    elif change == "seqinfo":
        text = (folder / "seqinfo.ini").read_text()
        (folder / "seqinfo.ini").write_text(text.replace("frameRate=20", "frameRate=7.5"))
    elif change == "image":
        (folder / "img1" / "000002.png").rename(folder / "img1" / "00000002.png")
    elif change == "xyz":
        (folder / "gt" / "xyz.txt").write_text("1,1,0,0,22\n")
    else:
        [file] = cache.iterdir()
        file.write_text(file.read_text()[:50])
    same(
        read_sequence(folder, classes=PERSON),
        read_sequence(folder, classes=PERSON, cache_dir=cache),
    )


def test_faults_are_told_again_although_there_is_a_cache(
    make_sequence, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_sequence(gt="1,1,0,0,-5,5,1,1,1\n2,1,0,0,5,5,1,1,1\n")
    for _ in range(2):
        caplog.clear()
        read_sequence(folder, classes=PERSON, on_error="skip", cache_dir=tmp_path / "cache")
        assert "skipped 1 faults" in caplog.text
    with pytest.raises(ValueError, match="line 1"):
        read_sequence(folder, classes=PERSON, cache_dir=tmp_path / "cache")


def test_real_footage(shared: Path) -> None:
    source = MotFolder(root=shared / "data" / "mot", classes=PERSON)
    adl, tud = source.sequences(["ADL-Rundle-6", "TUD-Campus"])
    assert (len(adl), len(adl.table), len(np.unique(adl.table.ids))) == (525, 5009, 24)
    assert (len(tud), len(tud.table), len(np.unique(tud.table.ids))) == (71, 359, 8)
    corner = tud.table.boxes[:, :2] + tud.table.boxes[:, 2:]
    over = (tud.table.boxes[:, :2] < 0).any(1) | (corner > (640, 480)).any(1)
    assert over.sum() >= 19  # kept as they are
    train, val = source.sequences(["ADL-Rundle-6:1-400", "ADL-Rundle-6:401-525"])
    assert (len(train), len(val)) == (400, 125)
    assert len(train.table) + len(val.table) == 5009
    assert val.frames[0] == 401


def _rename(images: Path, name: str) -> None:
    for file in sorted(images.iterdir(), reverse=True):
        file.rename(images / name.format(int(file.stem)))


def test_names_with_a_prefix_are_numbers_too(make_sequence, walking_gt) -> None:
    folder = make_sequence(gt=walking_gt)
    _rename(folder / "img1", "img2_{:05d}.png")
    (folder / "img1" / "._img2_00001.png").touch()  # as left by other systems
    video = read_sequence(folder, classes={1: "person"})
    assert video.frames.tolist() == [1, 2, 3, 4, 5, 6]
    assert [file.name for file in video.files][:2] == ["img2_00001.png", "img2_00002.png"]
    (folder / "img1" / "left1.png").touch()
    with pytest.raises(ValueError, match="left1.png"):
        read_sequence(folder, classes={1: "person"})


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(("shift", "first", "last"), [(-1, "0", "5"), (371, "372", "377")])
def test_frames_that_are_numbered_otherwise(
    make_sequence, walking_gt, shift: int, first: str, last: str, on_error: OnError
) -> None:
    """Also with skip: leaving frames out would move the labels by one frame."""
    folder = make_sequence(gt=walking_gt)
    files = sorted((folder / "img1").iterdir(), reverse=shift > 0)
    for file in files:
        file.rename(file.with_name(f"{int(file.stem) + shift:06d}.png"))
    with pytest.raises(ValueError, match=f"{first} to {last}, expected 1 to 6"):
        read_sequence(folder, classes={1: "person"}, on_error=on_error)


def test_what_the_folder_holds_is_said(make_sequence, walking_gt) -> None:
    folder = make_sequence(gt=walking_gt)
    _rename(folder / "img1", "{:06d}.bmp")
    with pytest.raises(FileNotFoundError, match=r"6 files, 000001.bmp … 000006.bmp.*jpg") as caught:
        read_sequence(folder, classes={1: "person"}, on_error="skip")
    assert "on_error" not in str(caught.value)


def test_a_stated_length_or_size_that_is_not_the_images(make_sequence, walking_gt) -> None:
    folder = make_sequence(gt=walking_gt)
    info = folder / "seqinfo.ini"
    text = info.read_text()
    info.write_text(text.replace("seqLength=6", "seqLength=4"))
    with pytest.raises(ValueError, match="6 images.*000006.png.*seqLength=4"):
        read_sequence(folder, classes={1: "person"})
    info.write_text(text.replace("imWidth=48", "imWidth=64"))
    with pytest.raises(ValueError, match="000001.png is 48x32.*imWidth=64"):
        read_sequence(folder, classes={1: "person"}, on_error="skip")
    info.write_text(text.replace("seqLength=6", "seqLength=1e15"))
    with pytest.raises(ValueError, match="seqLength=1e15"):
        read_sequence(folder, classes={1: "person"})


def test_rows_that_are_ignored_may_have_any_size(make_sequence) -> None:
    ignored = "1,9,0,0,8,0,0,1,1\n1,9,0,0,8,0,0,1,1\n2,7,4,4,0,10,1,12,1\n"
    folder = make_sequence(gt="1,7,2,4,8,10,1,1,1\n" + ignored)
    assert read_sequence(folder, classes={1: "person"}).table.ids.tolist() == [7]
    (folder / "gt" / "gt.txt").write_text("1,7,2,4,8,0,1,1,1\n" + ignored)
    with pytest.raises(ValueError, match="line 1: height"):
        read_sequence(folder, classes={1: "person"})


def test_two_sequences_of_one_name_are_refused(make_sequence, walking_gt, tmp_path: Path) -> None:
    for camera in ("camA", "camB"):
        make_sequence("seq1", split=camera, gt=walking_gt)
    source = MotFolder(root=tmp_path / "root", classes={1: "person"})
    with pytest.raises(ValueError, match="called seq1.*rename"):
        source.sequences(["camA/seq1", "camB/seq1"])
    assert len(source.sequences(["camA/seq1:1-3", "camB/seq1:4-6"])) == 2


def test_a_folder_without_its_seqinfo_does_not_vanish(
    make_sequence, walking_gt, tmp_path: Path
) -> None:
    for name in ("A", "B"):
        make_sequence(name, gt=walking_gt)
    (tmp_path / "root" / "train" / "notes").mkdir()
    source = MotFolder(root=tmp_path / "root", classes={1: "person"})
    assert len(source.sequences("train")) == 2
    (tmp_path / "root" / "train" / "B" / "seqinfo.ini").unlink()
    with pytest.raises(FileNotFoundError, match="B/seqinfo.ini"):
        source.sequences("train")


def test_a_cache_that_cannot_be_written_is_no_error(
    make_sequence, walking_gt, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder = make_sequence(gt=walking_gt)
    video = read_sequence(folder, classes={1: "person"}, cache_dir=tmp_path / "cache")
    assert len(video) == 6
    assert "cache" in caplog.text
