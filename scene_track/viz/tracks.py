"""Tracks of a whole video on its frames: boxes, identities and trails, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from scene_track.data.mot_files import BoxTable
from scene_track.viz.boxes import Frame, Trails, check_frame, draw_boxes, resize_width, text_bar


def draw_tracks(
    pictures: Iterable[tuple[int, ArrayLike]],
    tracks: BoxTable,
    size: tuple[int, int],
    *,
    name: str = "",
    max_width: int,
    every: int = 1,
) -> Iterator[Frame]:
    """Draw tracks on the frames of their video.

    Args:
        pictures: number and ``[H, W, 3]`` uint8 RGB of each frame, in order; any H and W.
        tracks: boxes in pixels of the footage.
        size: (height, width) of the footage in pixels.
        name: written below every frame, with the frame's number; empty writes nothing.
        max_width: pixels; wider frames are scaled down to it.
        every: only every so many frames are drawn, the trails being those of all, >= 1.

    Yields:
        ``[H', W', 3]`` uint8 RGB.
    """
    height, width = size
    trails = Trails()
    for position, (number, picture) in enumerate(pictures):
        rows = tracks.at(number)
        middle = rows.boxes[:, :2] + rows.boxes[:, 2:] / 2
        scale = np.array([width, height], dtype=np.float64)
        boxes = np.concatenate((middle / scale, rows.boxes[:, 2:] / scale), axis=1)
        trails.update(boxes, rows.ids)
        if position % every:
            continue
        frame = check_frame(picture)
        frame = resize_width(frame, min(max_width, frame.shape[1]))
        frame = draw_boxes(trails.draw(frame), boxes, rows.ids)
        if name:
            text = f"{name}, frame {number}: {len(rows)} tracks"
            frame = np.concatenate((frame, text_bar(frame.shape[1], text)))
        yield frame
