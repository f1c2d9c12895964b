"""Tracks on frames: boxes where they belong, trails that follow, frames that are skipped."""

from __future__ import annotations

import numpy as np

from scene_track.data.mot_files import BoxTable
from scene_track.viz.boxes import colour_of
from scene_track.viz.tracks import draw_tracks


def frames(count: int, table: BoxTable):
    for number in range(1, count + 1):
        rows = table.at(number)
        yield number, np.zeros((100, 200, 3), np.uint8), rows.boxes, rows.ids


def test_boxes_are_scaled_to_the_image() -> None:
    # A video of 400 x 200, shown at 200 x 100.
    table = BoxTable.from_arrays(np.array([2]), np.array([5]), np.array([[100.0, 60, 80, 100]]))
    first, second = draw_tracks(frames(2, table), (200, 400), name="a", max_width=640, every=1)
    assert not first[:100].any()
    rows, columns = np.nonzero(np.all(second[:100] == np.array(colour_of(5)), axis=-1))
    assert columns.min() in range(48, 52) and columns.max() in range(88, 92)
    assert rows.max() in range(78, 82)


def test_frames_are_scaled_down_skipped_and_named() -> None:
    table = BoxTable.from_arrays(np.arange(1, 8), np.ones(7), np.ones((7, 4)))
    drawn = list(draw_tracks(frames(7, table), (100, 200), name="a", max_width=80, every=3))
    assert [frame.shape for frame in drawn] == [(64, 80, 3)] * 3  # 40 rows and the line of text


def test_a_trail_knows_the_frames_that_are_not_shown() -> None:
    x = np.array([0.0, 60, 120])
    boxes = np.stack((x, np.full(3, 10.0), np.full(3, 20.0), np.full(3, 40.0)), axis=1)
    table = BoxTable.from_arrays(np.array([1, 2, 3]), np.ones(3), boxes)
    _, last = draw_tracks(frames(3, table), (100, 200), name="a", max_width=640, every=2)
    feet = last[50, 12:118].sum(axis=-1)
    assert feet.min() > 0  # one way from frame 1 over 2 to 3
