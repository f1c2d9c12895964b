"""The server's zip: what is in it, and everything that a sound one may not be."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scene_track.data.mot_files import BoxTable, parse_boxes
from scene_track.tracking.submission import Submission, examine, write_submission

FRAMES = {"b": range(1, 5), "a": range(1, 4)}
GOOD = "1,1,2,3,4,5,0.9,-1,-1,-1\n"


def tracks(seed: int = 0) -> dict[str, BoxTable]:
    """Two tracks through every frame, in an odd order."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, frames in FRAMES.items():
        numbers = np.repeat(frames, 2)[::-1]
        found[name] = BoxTable.from_arrays(
            numbers,
            np.tile([2, 1], len(frames)),
            generator.uniform(1e-3, 2000, (len(numbers), 4)),
            confidence=generator.uniform(0, 1, len(numbers)),
        )
    return found


def pack(path: Path, **files: str | bytes) -> Path:
    """A zip with these files in ``tracker/``, the others being as they should."""
    content = {f"tracker/{name}.txt": GOOD for name in FRAMES} | {
        f"tracker/{name}.txt": text for name, text in files.items()
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


def validate_submission(path: Path, frames: dict[str, range]) -> Submission:
    return examine(path, frames, f"{path} would not be scored")


def problems(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        validate_submission(path, FRAMES)
    message = str(caught.value)
    assert message.startswith(f"{path} would not be scored: ") and "\n" not in message
    return message


def test_the_zip_is_what_the_server_reads(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    done = write_submission(path, tracks(), FRAMES)
    assert (done.num_sequences, done.num_frames, done.num_boxes) == (2, 7, 14)
    assert done == validate_submission(path, FRAMES) and done.empty == ()
    number = r"\d+\.\d{4}"
    row = re.compile(rf"[1-4],[12],{number},{number},{number},{number},[01]\.\d{{6}},-1,-1,-1")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["tracker/a.txt", "tracker/b.txt"]
        for name, table in tracks().items():
            raw = archive.read(f"tracker/{name}.txt")
            assert all(row.fullmatch(line) for line in raw.decode().splitlines())
            found, faults = parse_boxes(raw, kind="result")
            order = np.lexsort((table.ids, table.frames))
            assert not faults and np.array_equal(found.ids, table.ids[order])
            assert np.abs(found.boxes - table.boxes[order]).max() <= 5.1e-5
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_never_written_with_an_exponent(tmp_path: Path) -> None:
    extreme = BoxTable.from_arrays(
        np.ones(1), np.ones(1), np.array([[-1e-9, 1e17, 1e-4, 1e9]]), confidence=np.array([1e-12])
    )
    write_submission(tmp_path / "s.zip", {"a": extreme}, {"a": range(1, 2)})
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        line = archive.read("tracker/a.txt").decode()
    left, top, *rest = line.split(",")[2:]
    assert left == "0.0000" and top == "100000000000000000.0000"
    assert rest == ["0.0001", "1000000000.0000", "0.000000", "-1", "-1", "-1\n"]


def test_the_same_tracks_give_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    found = tracks()
    write_submission(tmp_path / "one.zip", found, FRAMES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_submission(tmp_path / "two.zip", dict(reversed(found.items())), FRAMES)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_sequence_in_which_nothing_was_found_is_legal_and_told(tmp_path: Path) -> None:
    done = write_submission(tmp_path / "s.zip", tracks() | {"a": BoxTable.empty()}, FRAMES)
    assert done.empty == ("a",) and done.num_boxes == 8


@pytest.mark.parametrize(
    ("box", "track", "frame", "message"),
    [
        ([1, 1, 5, 5], 1, 9, "frame 9, id 1, size 5x5: expected frames 1 to 3"),
        ([1, 1, 5, 5], 0, 1, "frame 1, id 0, size 5x5: expected identities from 1"),
        ([1, 1, 5, 1e-5], 1, 1, "size 5x0: expected a width and height above 0"),
        ([1, np.nan, 5, 5], 1, 1, "line 1: top is nan, expected a finite number"),
        ([1, 1, np.inf, 5], 1, 1, "line 1: width is inf, expected a finite number"),
    ],
)
def test_what_is_wrong_is_not_written_and_the_old_zip_stays(
    box: list[float], track: int, frame: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.zip"
    path.write_bytes(b"of yesterday")
    wrong = BoxTable.from_arrays(np.array([frame]), np.array([track]), np.array([box], dtype=float))
    with pytest.raises(ValueError, match="s.zip is not written: 1 problem: tracker/a.txt") as error:
        write_submission(path, tracks() | {"a": wrong}, FRAMES)
    assert message in str(error.value)
    assert path.read_bytes() == b"of yesterday" and list(tmp_path.iterdir()) == [path]


def test_a_hole_and_a_file_too_many_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 2 sequences are missing: tracker/b.txt; files of"):
        write_submission(tmp_path / "s.zip", {"a": tracks()["a"], "c": tracks()["a"]}, FRAMES)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no such folder, create it"):
        write_submission(tmp_path / "new" / "s.zip", tracks(), FRAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD, "tracker/a.txt: line 2: id 1 appears more than once in frame 1"),
        ("4,1,2,3,4,5,0.9,-1,-1,-1\n", "frame 4, id 1, size 4x5: expected frames 1 to 3"),
        ("0,1,2,3,4,5,0.9,-1,-1,-1\n", "line 1: frame is 0, expected >= 1"),
        ("1,0,2,3,4,5,0.9,-1,-1,-1\n", "expected identities from 1"),
        ("1,1,2,3,0,5,0.9,-1,-1,-1\n", "size 0x5: expected a width and height above 0"),
        ("1,1,2,3,-4,5,0.9,-1,-1,-1\n", "line 1: width is -4, expected >= 0 pixels"),
        ("1,1,nan,3,4,5,0.9,-1,-1,-1\n", "left is nan, expected a finite number"),
        ("1,1,2,3,4,5,0.9\n", "line 1: has 7 columns, expected 10"),
        ("1 1 2 3 4 5 0.9 -1 -1 -1\n", "line 1: has 1 comma-separated columns"),
        (b"\xff\xfe1,1", "line 1: has 2 comma-separated columns"),
    ],
)
def test_wrong_rows_are_named_with_file_and_line(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    assert message in problems(pack(tmp_path / "s.zip", a=text))


def test_many_problems_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    rows = "".join(f"{frame},1,2,3,4,5,0.9,-1,-1,-1\n" for frame in range(1, 30))
    message = problems(pack(tmp_path / "s.zip", a=rows, c=GOOD))
    assert ": 27 problems: files of no sequence: tracker/c.txt; tracker/a.txt: frame 4," in message
    assert message.endswith("; and 22 more") and message.count(";") == 5


def test_other_files_and_names_that_come_twice(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("tracker")  # other packers write one; it is not a file
    assert validate_submission(path, FRAMES).num_boxes == 2
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("__MACOSX/._a.txt", "")
        archive.writestr("a.txt", GOOD)
        archive.writestr("tracker/a.txt", GOOD)
    message = problems(path)
    assert "files of no sequence: __MACOSX/._a.txt, a.txt" in message
    assert "files that are there twice: tracker/a.txt" in message


def test_a_zip_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    write_submission(path, tracks(), FRAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert "it is not a whole zip file" in problems(path)
    path.write_bytes(whole[:60] + bytes(40) + whole[100:])
    assert "it is not a whole zip file" in problems(path)


def test_a_stretch_of_a_longer_sequence_keeps_its_numbers(tmp_path: Path) -> None:
    table = BoxTable.from_arrays(np.array([401, 525]), np.ones(2), np.ones((2, 4)))
    stretch = {"a_401-525": range(401, 526)}
    assert write_submission(tmp_path / "s.zip", {"a_401-525": table}, stretch).num_frames == 125
    with pytest.raises(ValueError, match="frame 525, id 1, size 1x1: expected frames 401 to 524"):
        validate_submission(tmp_path / "s.zip", {"a_401-525": range(401, 525)})
