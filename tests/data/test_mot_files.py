"""Reading and writing MOTChallenge text: what is taken, what is refused, and what comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scene_track.data.mot_files import BoxTable, read_boxes, write_results


@pytest.fixture
def text_file(tmp_path: Path):
    def write(text: str) -> Path:
        file = tmp_path / "boxes.txt"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_reads_every_column_of_ground_truth(text_file) -> None:
    table, problems = read_boxes(text_file("1,7,10.5,20,30,40,0,3,0.25\n"))
    assert problems == []
    assert table.frames.tolist() == [1]
    assert table.ids.tolist() == [7]
    assert table.boxes.tolist() == [[10.5, 20.0, 30.0, 40.0]]
    assert (table.confidence[0], table.classes[0], table.visibility[0]) == (0.0, 3, 0.25)
    assert table.boxes.dtype == np.float64 and table.ids.dtype == np.int64


def test_result_columns_after_the_confidence_are_no_class(text_file) -> None:
    table, _ = read_boxes(text_file("1,7,10,20,30,40,0.5,-1,-1,-1\n"), kind="result")
    assert (table.confidence[0], table.classes[0], table.visibility[0]) == (0.5, 1, 1.0)


def test_unstated_class_and_visibility_are_one(text_file) -> None:
    table, _ = read_boxes(text_file("1,7,10,20,30,40,1,-1,-1,-1\n"))
    assert (table.classes[0], table.visibility[0]) == (1, 1.0)


def test_unsorted_rows_blank_lines_spaces_and_float_integers(text_file) -> None:
    text = "\ufeff3.0,2,0,0,1,1\r\n\r\n 1 , 9.0,0,0,1,1\n3,1,0,0,1,1\n\n"
    table, problems = read_boxes(text_file(text), on_error="skip")
    assert problems == []
    assert table.frames.tolist() == [1, 3, 3]
    assert table.ids.tolist() == [9, 2, 1], "the order of the file stays within a frame"


def test_rows_of_different_lengths_keep_what_they_state(text_file) -> None:
    table, _ = read_boxes(text_file("1,1,0,0,1,1\n2,1,0,0,1,1,0,2,0.5\n"))
    assert table.confidence.tolist() == [1.0, 0.0]
    assert table.classes.tolist() == [1, 2]


def test_long_files_and_a_change_of_layout_far_down(text_file) -> None:
    rows = [f"{k},{k % 7},{k / 4},-{k}.5,3,4" for k in range(1, 9001)]
    table, _ = read_boxes(text_file("\n".join(rows)))
    assert table.frames.tolist() == list(range(1, 9001))
    np.testing.assert_array_equal(table.boxes[:, 0], np.arange(1, 9001) / 4)
    table, _ = read_boxes(text_file("\n".join([*rows, "9001,1,0,0,1,1,0"])))
    assert table.confidence.tolist() == [1.0] * 9000 + [0.0]


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_an_empty_file_is_an_empty_table(text_file, text: str) -> None:
    table, problems = read_boxes(text_file(text))
    assert len(table) == 0 and table.boxes.shape == (0, 4) and problems == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,x,0,1,1", "left is 'x', expected a number"),
        ("1,2,,0,1,1", "left is '', expected a number"),
        ("1,2,-,0,1,1", "left is '-', expected a number"),
        ("1,2,0,.,1,1", "top is '.', expected a number"),
        ("1,2,0,1-2,1,1", "top is '1-2', expected a number"),
        ("1,2,0,0,1.2.3,1", "width is '1.2.3', expected a number"),
        ("1,2,0,0,1_0,1", "width is '1_0', expected a number"),
        ("1,2,0,0,1", "has 5 comma-separated columns"),
        ("1,2,1,5,1,5,1,5,1,5,1", "has 11 columns, expected at most 10"),
        ("1 2 0 0 1 1", "has 1 comma-separated columns"),
        ("1,2,0,0,nan,1", "width is nan, expected a finite number"),
        ("1,2,0,0,1,inf", "height is inf, expected a finite number"),
        ("1,2,0,0,0,1", "width is 0, expected > 0 pixels"),
        ("1,2,0,0,1,-4", "height is -4, expected > 0 pixels"),
        ("0,2,0,0,1,1", "frame is 0, expected 1 to 5"),
        ("6,2,0,0,1,1", "frame is 6, expected 1 to 5"),
        ("1.5,2,0,0,1,1", "frame is 1.5, expected a whole number"),
        ("1,2.5,0,0,1,1", "id is 2.5, expected a whole number"),
        ("1,1,9,9,9,9", "id 1 appears more than once in frame 1"),
    ],
)
def test_a_wrong_row_is_named_or_left_out(text_file, row: str, reason: str) -> None:
    file = text_file(f"1,1,0,0,1,1\n\n{row}\n2,1,0,0,1,1\n")
    with pytest.raises(ValueError, match="1 fault") as error:
        read_boxes(file, length=5)
    assert f"line 3: {reason}" in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)

    table, problems = read_boxes(file, length=5, on_error="skip")
    assert len(problems) == 1 and problems[0].startswith(f"line 3: {reason}")
    assert table.frames.tolist() == [1, 2]
    assert table.boxes[0].tolist() == [0, 0, 1, 1], "of a repeated id the first row stands"


def test_the_message_counts_all_wrong_rows_and_shows_the_first(text_file) -> None:
    file = text_file("1,1,0,0,1,1\n" + "1,1,0,0,1,1\n" * 8)
    with pytest.raises(ValueError, match=r"8 faults: line 2: .*line 4: .*; and 5 more$"):
        read_boxes(file)


def test_a_wrong_row_does_not_take_the_place_of_a_sound_one(text_file) -> None:
    table, problems = read_boxes(text_file("1,1,0,0,-1,1\n1,1,0,0,1,1\n"), on_error="skip")
    assert problems == ["line 1: width is -1, expected > 0 pixels"]
    assert table.boxes.tolist() == [[0, 0, 1, 1]]


def test_a_result_without_area_is_a_box_but_a_negative_one_is_not(text_file) -> None:
    table, _ = read_boxes(text_file("1,1,5,5,0,4,0.9,-1,-1,-1\n"), kind="result")
    assert len(table) == 1
    with pytest.raises(ValueError, match="expected >= 0 pixels"):
        read_boxes(text_file("1,1,5,5,-1,4,0.9,-1,-1,-1\n"), kind="result")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_boxes(tmp_path / "none.txt")


def test_a_file_that_is_not_text_is_an_error_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "boxes.txt"
    file.write_bytes(b"\xff\xd8\xff\xe0JFIF\x00\x10,1,2,3,4,5,6\n")
    with pytest.raises(ValueError, match="line 1: "):
        read_boxes(file)


decimals = st.from_regex(r"-?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})", fullmatch=True)


@given(
    st.lists(st.tuples(decimals, decimals), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"])
)
@settings(max_examples=50, deadline=None)
def test_decimals_are_read_as_python_reads_them(tmp_path_factory, numbers, ending: str) -> None:
    """Whichever of the two readers takes a file, to the last bit."""
    file = tmp_path_factory.getbasetemp() / "b.txt"
    rows = [f"{k},1,{x},{y},1.50,2" for k, (x, y) in enumerate(numbers, start=1)]
    file.write_bytes(ending.join(rows).encode())
    table, _ = read_boxes(file)
    expected = [[float(x), float(y), 1.5, 2.0] for x, y in numbers]
    np.testing.assert_array_equal(table.boxes, expected)


finite = st.floats(min_value=-1e6, max_value=1e6)


@given(
    centres=hnp.arrays(np.float64, (6, 2), elements=finite),
    sizes=hnp.arrays(np.float64, (6, 2), elements=st.floats(min_value=0, max_value=1e5)),
    confidence=hnp.arrays(np.float64, 6, elements=st.floats(min_value=0, max_value=1)),
)
@settings(max_examples=50, deadline=None)
def test_results_come_back_bit_for_bit(tmp_path_factory, centres, sizes, confidence) -> None:
    file = tmp_path_factory.getbasetemp() / "r.txt"
    table = BoxTable.from_arrays(
        frames=np.array([2, 1, 1, 9, 2, 2]),
        ids=np.array([5, 70, -3, 1, 4, 6]),
        boxes=np.hstack((centres, sizes)),
        confidence=confidence,
    )
    write_results(file, table)
    back, problems = read_boxes(file, kind="result")
    order = np.lexsort((table.ids, table.frames))
    assert problems == []
    for name in ("frames", "ids", "boxes", "confidence"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name)[order])


def test_result_lines_have_the_layout_of_the_challenge(tmp_path: Path) -> None:
    table = BoxTable.from_arrays(
        np.array([1]), np.array([3]), np.array([[1.5, 2.0, 3.0, 4.25]]), np.array([0.5])
    )
    write_results(tmp_path / "r.txt", table)
    assert (tmp_path / "r.txt").read_text() == "1,3,1.5,2.0,3.0,4.25,0.5,-1,-1,-1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["r.txt"], "no temporary file is left"


def test_results_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    file = tmp_path / "r.txt"
    file.write_text("before")
    boxes = np.array([[0, 0, 1, 1], [0, 0, np.nan, 1]])
    with pytest.raises(ValueError, match="frame 1, id 8: width is nan"):
        write_results(file, BoxTable.from_arrays(np.array([1, 1]), np.array([7, 8]), boxes))
    with pytest.raises(ValueError, match="id 7 appears more than once in frame 1"):
        write_results(
            file, BoxTable.from_arrays(np.array([1, 1]), np.array([7, 7]), np.ones((2, 4)))
        )
    assert file.read_text() == "before"
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_results(tmp_path / "none" / "r.txt", BoxTable.empty())


def test_box_table_sorts_selects_and_finds_frames() -> None:
    table = BoxTable.from_arrays(
        frames=np.array([3, 1, 3, 5]), ids=np.array([1, 2, 3, 4]), boxes=np.eye(4)
    )
    assert table.ids.tolist() == [2, 1, 3, 4]
    assert table.boxes[0].tolist() == [0, 1, 0, 0], "boxes move with their frame"
    assert table.at(3).ids.tolist() == [1, 3]
    assert len(table.at(2)) == 0
    assert table.between(2, 5).ids.tolist() == [1, 3, 4]
    assert table.frame_offsets(5).tolist() == [0, 1, 1, 3, 3, 4]
    assert table.select(table.ids > 2).frames.tolist() == [3, 5]


def test_box_table_refuses_columns_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"boxes has shape \(1, 3\), expected \(1, 4\)"):
        BoxTable.from_arrays(np.array([1]), np.array([1]), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"ids has shape \(2,\), expected \(1,\)"):
        BoxTable.from_arrays(np.array([1]), np.array([1, 2]), np.ones((1, 4)))
