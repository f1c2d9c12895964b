"""Tracks of a whole video on its frames: boxes, identities and trails, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from scene_track.viz.boxes import Frame, Trails, check_frame, draw_boxes, resize_width, text_bar


def draw_tracks(
    frames: Iterable[tuple[int, ArrayLike, ArrayLike, ArrayLike]],
    size: tuple[int, int],
    *,
    name: str = "",
    max_width: int,
    every: int = 1,
) -> Iterator[Frame]:
    """Draw tracks on the frames of their video.

    Args:
        frames: of each frame, in order: its number, the picture ``[H, W, 3]`` uint8 RGB (any H and
            W), boxes ``[N, 4]`` left, top, width, height in pixels of the footage, ids ``[N]``.
        size: (height, width) of the footage in pixels.
        name: written below every frame, with the frame's number; empty writes nothing.
        max_width: pixels; wider frames are scaled down to it.
        every: only every so many frames are drawn, the trails being those of all, >= 1.

    Yields:
        ``[H', W', 3]`` uint8 RGB.
    """
    height, width = size
    trails = Trails()
    scale = np.array([width, height], dtype=np.float64)
    for position, (number, picture, corners, ids) in enumerate(frames):
        pixels, ids = np.asarray(corners, dtype=np.float64).reshape(-1, 4), np.asarray(ids)
        middle = pixels[:, :2] + pixels[:, 2:] / 2
        boxes = np.concatenate((middle / scale, pixels[:, 2:] / scale), axis=1)
        trails.update(boxes, ids)
        if position % every:
            continue
        frame = check_frame(picture)
        frame = resize_width(frame, min(max_width, frame.shape[1]))
        frame = draw_boxes(trails.draw(frame), boxes, ids)
        if name:
            text = f"{name}, frame {number}: {len(ids)} tracks"
            frame = np.concatenate((frame, text_bar(frame.shape[1], text)))
        yield frame
