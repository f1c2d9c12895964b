"""Draws the tracks of a video on its frames: boxes, identities and trails, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from scene_track.viz.boxes import Frame, Trails, captioned, check_frame, paint_boxes, resize_width


class TrackPainter:
    """Draws boxes, identities and trails; takes every frame of one video, in order."""

    def __init__(self, max_width: int) -> None:
        """Starts without trails.

        Args:
            max_width: pixels; wider frames are scaled down to it.
        """
        self.max_width = max_width
        self._trails = Trails()

    def paint(self, image: ArrayLike | None, boxes: ArrayLike, ids: ArrayLike) -> Frame | None:
        """Draws the next frame.

        Args:
            image: ``[H, W, 3]`` uint8 RGB; None for a frame that is not shown, which the trails
                know all the same.
            boxes: ``[N, 4]`` cxcywh, 0-1 of the frame.
            ids: ``[N]`` identities.

        Returns:
            ``[H', W', 3]`` uint8 RGB; None without an image.
        """
        self._trails.update(boxes, ids)
        if image is None:
            return None
        frame = check_frame(image)
        frame = resize_width(frame, min(self.max_width, frame.shape[1]))  # a copy
        return paint_boxes(self._trails.paint(frame), boxes, ids)


def draw_tracks(
    frames: Iterable[tuple[int, ArrayLike, ArrayLike, ArrayLike]],
    size: tuple[int, int],
    *,
    name: str,
    max_width: int,
    every: int,
) -> Iterator[Frame]:
    """Draws tracks on the frames of their video.

    Args:
        frames: of each frame, in order: its number, the image ``[H, W, 3]`` uint8 RGB (any H and
            W), boxes ``[N, 4]`` left, top, width, height in pixels of the video, ids ``[N]``.
        size: (height, width) of the video in pixels.
        name: written below every frame, with the frame's number.
        max_width: pixels; wider frames are scaled down to it.
        every: draw every n-th frame, >= 1; the trails know all frames.

    Yields:
        ``[H', W', 3]`` uint8 RGB.
    """
    painter = TrackPainter(max_width)
    scale = np.array(size[::-1], dtype=np.float64)
    for position, (number, image, corners, ids) in enumerate(frames):
        pixels, ids = np.asarray(corners, dtype=np.float64).reshape(-1, 4), np.asarray(ids)
        middle = pixels[:, :2] + pixels[:, 2:] / 2
        boxes = np.concatenate((middle / scale, pixels[:, 2:] / scale), axis=1)
        painted = painter.paint(None if position % every else image, boxes, ids)
        if painted is not None:
            yield captioned(painted, f"{name}, frame {number}: {len(ids)} tracks")
