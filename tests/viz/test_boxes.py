"""Drawing: where ink lands, that identities keep their colours, that odd input is survived."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.viz.boxes import (
    TRAIL_FRAMES,
    Trails,
    colour_of,
    contact_sheet,
    draw_boxes,
    resize_width,
    side_by_side,
    text_bar,
)


def blank(height: int = 120, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), 60, np.uint8)


def test_outline_lands_on_the_box_and_input_is_untouched() -> None:
    frame = blank()
    drawn = draw_boxes(frame, [[0.5, 0.5, 0.4, 0.5]], [3])
    assert (frame == 60).all()
    changed = (drawn != 60).any(-1)
    rows, columns = np.nonzero(changed[32:])  # below the label
    assert (columns.min(), columns.max()) == (60, 140)
    assert rows.max() + 32 == 90
    assert not changed[40:85, 65:135].any()  # the inside stays visible
    assert tuple(drawn[60, 60]) == colour_of(3)


def test_colours_are_stable_and_neighbours_differ() -> None:
    colours = np.array([colour_of(n) for n in range(40)], float)
    assert [colour_of(n) for n in range(40)] == [tuple(map(int, c)) for c in colours]
    for n in range(40):
        for other in range(n + 1, min(n + 8, 40)):
            assert np.abs(colours[n] - colours[other]).max() > 35, (n, other)
    # bright enough for a dark stage
    assert (colours @ [0.299, 0.587, 0.114]).min() > 120
    assert colour_of(-1) == colour_of(-7)


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((0, 4)),
        [],
        [[0.5, 0.5, 0.0, 0.0]],
        [[0.0, 0.0, 0.5, 0.5], [1.0, 1.0, 9.0, 9.0]],  # over the border
        [[1e30, -1e30, 1e30, 1]],
        [[np.nan, 0.5, 0.1, 0.1]],
        [[0.5, 0.5, -0.1, -0.2]],
    ],
)
def test_odd_boxes_can_be_drawn(boxes) -> None:
    count = len(boxes)
    drawn = draw_boxes(blank(), boxes, np.arange(count), np.ones(count), np.arange(count) % 2 == 0)
    assert drawn.shape == (120, 200, 3) and drawn.dtype == np.uint8


def test_dashes_leave_gaps() -> None:
    box = [[0.5, 0.5, 0.8, 0.8]]
    solid = (draw_boxes(blank(), box, [1]) != 60).any(-1).sum()
    dashed = (draw_boxes(blank(), box, [1], dashed=[True]) != 60).any(-1).sum()
    assert 0.35 * solid < dashed < 0.7 * solid


def test_labels_of_boxes_on_top_of_each_other_are_both_there() -> None:
    boxes = [[0.5, 0.5, 0.3, 0.5]] * 2
    drawn = draw_boxes(blank(240, 400), boxes, [1, 2])
    for number in (1, 2):
        # at least a chip's worth of each colour
        assert (drawn == colour_of(number)).all(-1).sum() > 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_boxes(np.zeros((3, 4, 5), np.uint8), [], []), r"\[3, 4, 5\] of uint8"),
        (lambda: draw_boxes(np.zeros((4, 5, 3)), [], []), "float64"),
        (lambda: draw_boxes(blank(), [[1, 2, 3]], [1]), "cxcywh"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_trails_follow_feet_fade_and_are_forgotten() -> None:
    trails = Trails()
    for x in (0.2, 0.4, 0.6):
        trails.update([[x, 0.5, 0.1, 0.4]], [5])
    drawn = trails.paint(blank())
    changed = (drawn != 60).any(-1)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 0.7 * 120) < 2  # lower edges
    assert (columns.min(), columns.max()) == pytest.approx((40, 120), abs=2)
    contrast = np.abs(drawn[84].astype(int) - 60).sum(-1)
    assert contrast[110] > contrast[50] > 0  # the past is fainter
    for _ in range(TRAIL_FRAMES):
        trails.update([], [])
    for x in (0.2, 0.6):
        trails.update([[x, 0.5, 0.1, 0.4]], [-1])  # no identity, no trail
    assert (trails.paint(blank()) == 60).all()


def test_sheet_layout() -> None:
    frames = [np.full((20, 30, 3), 10 * n, np.uint8) for n in range(5)]
    sheet = contact_sheet(frames, 3, ["", "1", "2", "3", "4"], header="epoch 1")
    assert sheet.shape == (34 + 2 * (24 + 20 + 8) + 8, 3 * (30 + 8) + 8, 3)
    for n in range(5):
        top, left = 34 + 8 + n // 3 * 52 + 24, 8 + n % 3 * 38
        assert (sheet[top : top + 20, left : left + 30] == 10 * n).all()
    assert contact_sheet(frames[:1], 3, ["0"], "").shape[1] == 46


def test_side_by_side_keeps_both_panels() -> None:
    left, right = blank(), np.full((120, 200, 3), 200, np.uint8)
    pair = side_by_side(left, right)
    assert pair.shape == (120, 404, 3)
    assert (pair[:90, :200] == 60).all() and (pair[:90, 204:] == 200).all()


def test_resize_keeps_aspect() -> None:
    assert resize_width(blank(128, 224), 448).shape == (256, 448, 3)
    assert resize_width(blank(448, 800), 448).shape == (251, 448, 3)


def test_long_text_is_cut_to_its_bar() -> None:
    bar = text_bar(100, "a very long caption " * 20)
    assert bar.shape == (24, 100, 3)
    assert (bar[:, -4:] == bar[0, 0]).all()  # nothing touches the edge
