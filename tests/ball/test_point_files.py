"""CSV files of a ball: three layouts read alike, results written whole and read strictly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scene_track.ball.point_files import PointRules, PointTable, read_points, write_points

TRACKNET = "file name,visibility,x-coordinate,y-coordinate,status\n"
ANY = PointRules()


def written(folder: Path, text: str) -> Path:
    file = folder / "Label.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "text",
    [
        f"{TRACKNET}0000.jpg,1,10.5,20,0\n0001.jpg,0,,,0\n0002.jpg,3,12,22.25,2\n",
        "Frame,Visibility,X,Y\n0,1,10.5,20\n1,0,0,0\n2,3,12,22.25\n",
        "frame,visibility,x,y,confidence\n0,1,10.5,20,1\n1,0,,,1\n2,3,12,22.25,1\n",
        "\ufeffY , X,frame,Visibility\n22.25,12,2,3\n\n20,10.5,0,1\n,,1,0\n",
    ],
)
def test_the_layouts_say_the_same(tmp_path: Path, text: str) -> None:
    table, problems = read_points(written(tmp_path, text), ANY)
    assert problems == []
    assert table.frames.tolist() == [0, 1, 2] and table.visibility.tolist() == [1, 0, 3]
    assert table.xy.dtype == np.float64
    np.testing.assert_array_equal(table.xy, [(10.5, 20), (np.nan, np.nan), (12, 22.25)])
    assert table.confidence.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0000.jpg,1,,,0", "x is '', expected a number"),
        ("0000.jpg,1,5,nan,0", "y is 'nan'"),
        ("0000.jpg,1,1_0,5,0", "x is '1_0'"),
        ("0000.jpg,4,5,5,0", "visibility is 4, expected 0, 1, 2 or 3"),
        ("0000.jpg,yes,5,5,0", "visibility is 'yes'"),
        ("first.jpg,1,5,5,0", "frame is 'first', expected a whole number"),
        ("0.5,1,5,5,0", "frame is '0.5'"),
        ("0009.jpg,1,5,5,0", "frame 9 is not one of the 3 frames 0 to 2"),
        ("0000.jpg,1,64,5,0", r"x is 64, outside the image \(64x36 pixels\)"),
        ("0000.jpg,2,5,-3,0", "y is -3, outside the image"),
        ("0001.jpg,1,5,5,0", "frame 1 appears more than once"),
        ("0000.jpg", "visibility is ''"),
    ],
)
def test_wrong_rows_are_named_or_left_out(tmp_path: Path, row: str, reason: str) -> None:
    file = written(tmp_path, f"{TRACKNET}0001.jpg,1,5,6,0\n{row}\n0002.jpg,1,7,8,0\n")
    rules = PointRules(frames=range(3), size=(36, 64))
    with pytest.raises(ValueError, match=rf"Label.csv: 1 fault: line 3: {reason}"):
        read_points(file, rules)
    table, problems = read_points(file, rules, on_error="skip")
    assert len(problems) == 1 and table.frames.tolist() == [1, 2]


def test_a_header_that_lacks_a_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1 has no column visibility, x, y"):
        read_points(written(tmp_path, "frame,left,top\n1,2,3\n"), ANY)
    with pytest.raises(ValueError, match="has no column"):
        read_points(written(tmp_path, ""), ANY)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_points(tmp_path / "nothing.csv", ANY)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((0, 2, 3), "no row for 1 frames: 1"),
        ((0, 1, 3, 2), "line 5: frame 2 comes after frame 3"),
        ((0, 1, 2, 2, 3), "line 5: frame 2 appears more than once"),
        ((0, 1, 2, 3, 4), "line 6: frame 4 is not one of the 4 frames 0 to 3"),
    ],
)
def test_a_result_must_be_whole_and_in_order(
    tmp_path: Path, frames: tuple[int, ...], reason: str
) -> None:
    rows = "".join(f"{n},1,5,5,1\n" for n in frames)
    file = written(tmp_path, f"frame,visibility,x,y,confidence\n{rows}")
    with pytest.raises(ValueError, match=f"1 fault: {reason}"):
        read_points(file, PointRules(frames=range(4), every_frame=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.floats(-1e9, 1e9, allow_nan=False),
            st.floats(-1e-9, 1e9, allow_nan=False),
            st.floats(0, 1),
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read_again_bit_for_bit(tmp_path: Path, rows: list) -> None:
    visible = np.array([row[0] for row in rows], dtype=np.int64)
    xy = np.array([row[1:3] for row in rows]).reshape(-1, 2)
    xy[visible == 0] = np.nan
    table = PointTable(
        np.arange(len(rows)) + 7, xy, visible, np.array([row[3] for row in rows], dtype=float)
    )
    write_points(tmp_path / "r.csv", table)
    again, _ = read_points(
        tmp_path / "r.csv", PointRules(range(7, 7 + len(rows)), every_frame=True)
    )
    for name in ("frames", "xy", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


def test_nothing_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    good = PointTable(np.arange(2), np.ones((2, 2)), np.ones(2, dtype=np.int64), np.ones(2))
    file = tmp_path / "r.csv"
    write_points(file, good)
    before = file.read_text()
    for wrong in (
        PointTable(np.array([1, 1]), good.xy, good.visibility, good.confidence),
        PointTable(good.frames, good.xy * np.nan, good.visibility, good.confidence),
        PointTable(good.frames, good.xy, good.visibility + 3, good.confidence),
    ):
        with pytest.raises(ValueError, match="not written"):
            write_points(file, wrong)
    assert file.read_text() == before
    assert [f.name for f in tmp_path.iterdir()] == ["r.csv"]


def test_a_decimal_comma_is_no_other_coordinate(tmp_path: Path) -> None:
    file = tmp_path / "Label.csv"
    header = "file name,visibility,x-coordinate,y-coordinate,status"
    file.write_text(f"{header}\n0000.jpg,1,10,5,12,5,0\n0001.jpg,1,10,12,0,,\n")
    with pytest.raises(ValueError, match="1 fault: line 2: has 7 cells.*comma"):
        read_points(file, PointRules())
    table, problems = read_points(file, PointRules(), on_error="skip")
    assert (table.frames.tolist(), len(problems)) == ([1], 1)


def test_names_with_a_prefix_are_frames(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file name,visibility,x,y\nimg2_0007.jpg,1,5,6\n")
    assert read_points(tmp_path / "a.csv", PointRules())[0].frames.tolist() == [7]


def test_what_no_csv_reader_reads(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("frame,visibility,x,y\n1,1,5," + "6" * 200_000)
    with pytest.raises(ValueError, match="a.csv"):
        read_points(tmp_path / "a.csv", PointRules())
