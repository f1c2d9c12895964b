"""Strips of a few moments of a video, cut out around somebody, one row per tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from scene_track.viz.boxes import Frame, check_frame, contact_sheet, draw_boxes

_HEIGHT = 320  # pixels of a panel
_MARGIN = 0.6  # of the watched boxes' size, on each side
_LEAST = 0.2  # of the image's height: smallest window, so that one sees where it is
_ASPECT = (0.8, 1.8)  # width over height of the window


@dataclass(frozen=True)
class Moment:
    """The boxes of one frame.

    Attributes:
        boxes: ``[N, 4]`` left, top, width, height in pixels of the video.
        ids: ``[N]`` identities.
        watched: ``[N]`` bool; the others are drawn with a dashed line.
    """

    boxes: NDArray[np.float64]
    ids: NDArray[np.int64]
    watched: NDArray[np.bool_]


def window_around(boxes: ArrayLike, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of an image that shows these boxes and what is beside them.

    Args:
        boxes: ``[N, 4]`` left, top, width, height in pixels, N >= 1.
        size: (height, width) of the image.

    Returns:
        Left, top, right, bottom in pixels, inside the image.
    """
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate((array[:, :2], array[:, :2] + array[:, 2:]), axis=1)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    middle = (low + high) / 2
    extent = high - low + 2 * _MARGIN * array[:, 2:].max(axis=0)
    tall = max(extent[1], _LEAST * size[0], extent[0] / _ASPECT[1])
    wide = max(extent[0], _ASPECT[0] * tall)
    # Inside the image, moved rather than cut where there is room.
    limit = np.array(size[::-1], dtype=np.float64)
    extent = np.minimum((wide, tall), limit)
    start = np.clip(middle - extent / 2, 0, limit - extent)
    left, top = np.floor(start).astype(int).tolist()
    right, bottom = np.ceil(start + extent).astype(int).tolist()
    return left, top, min(right, size[1]), min(bottom, size[0])


def draw_strip(
    images: Sequence[ArrayLike],
    rows: Mapping[str, Sequence[Moment]],
    window: tuple[int, int, int, int],
    *,
    captions: Sequence[str],
    header: str,
) -> Frame:
    """Draw a strip: a column for each moment, a row for each tracker.

    Args:
        images: ``[H, W, 3]`` uint8 RGB of each moment, of the size of the video.
        rows: boxes at each moment, by the name of who found them.
        window: left, top, right, bottom in pixels; what is shown of each image.
        captions: of each moment.
        header: written above.

    Returns:
        ``[H', W', 3]`` uint8 RGB.
    """
    left, top, right, bottom = window
    wide, tall = right - left, bottom - top
    size = (max(1, round(_HEIGHT * wide / tall)), _HEIGHT)
    cut = [
        Image.fromarray(check_frame(image)[top:bottom, left:right]).resize(
            size, Image.Resampling.BILINEAR
        )
        for image in images
    ]
    panels, titles = [], []
    for name, moments in rows.items():
        for image, moment, caption in zip(cut, moments, captions, strict=True):
            middle = moment.boxes[:, :2] + moment.boxes[:, 2:] / 2 - (left, top)
            relative = np.concatenate((middle, moment.boxes[:, 2:]), axis=1)
            relative /= (wide, tall, wide, tall)
            near = (np.abs(relative[:, :2] - 0.5) < 0.5 + relative[:, 2:] / 2).all(axis=1)
            panels.append(
                draw_boxes(
                    np.asarray(image),
                    relative[near],
                    moment.ids[near],
                    dashed=~moment.watched[near],
                )
            )
            titles.append(f"{name}, {caption}")
    return contact_sheet(panels, len(cut), titles, header)
