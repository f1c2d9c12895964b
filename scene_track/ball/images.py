"""Images of a ball: the frame with heat, prediction and truth, and the enlarged surroundings.

A ball of five pixels cannot be judged on a whole frame, so each panel has three parts: the frame
with the prediction (green or red ring) and the truth (white ring), the surroundings of the truth
enlarged without anything drawn on them, and the same with heat and rings.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from scene_track.viz.boxes import Colour, Frame, captioned, check_frame, resize_width
from scene_track.viz.sheet import FrameSheet

FOUND: Colour = (80, 230, 90)
WRONG: Colour = (255, 70, 60)
TRUE: Colour = (255, 255, 255)
HEAT: Colour = (255, 150, 0)

_TRAIL_FRAMES = 12
_CLOSE_PX = 5.0  # PCK@5, the error within which a prediction is drawn as found


class BallVisualiser(FrameSheet):
    """Collects frames of a validation run and makes one contact sheet of them."""

    LEGEND = "white: truth, green: found, red: wrong; px of the original video"

    def __init__(
        self,
        *,
        max_frames: Annotated[int, Field(ge=0)],
        columns: Annotated[int, Field(ge=1)],
        panel_width: Annotated[int, Field(ge=64)],
        around: Annotated[int, Field(ge=8)],
    ) -> None:
        """Starts empty. Options: see ``conf/head/heatmap.yaml``."""
        super().__init__(max_frames=max_frames, columns=columns, panel_width=panel_width)
        self.around = around

    def add_frame(
        self,
        image: ArrayLike,
        heat: ArrayLike | None,
        predicted: NDArray[np.float64],
        truth: NDArray[np.float64],
        size: tuple[int, int],
        caption: str,
    ) -> None:
        """Keeps a frame that is ``wanted``.

        Args:
            image: ``[H, W, 3]`` uint8 RGB.
            heat: ``[Hh, Wh]`` 0-1; None draws none.
            predicted: ``[3]`` x, y, visibility; pixels of the original.
            truth: ``[3]`` the same; visibility -1 = not annotated.
            size: (height, width) of the original.
            caption: one line, such as ``"game3_Clip1 frame 4"``.
        """
        error = np.linalg.norm(predicted[:2] - truth[:2])
        result = f"{error:.1f} px" if np.isfinite(error) else _absence(predicted, truth)
        draw = partial(
            draw_ball, check_frame(image).copy(), None if heat is None else np.array(heat),
            predicted, truth, size, width=self.panel_width, around=self.around,
        )  # fmt: skip
        self.keep(lambda: (draw(), f"{caption}   |   {result}"))


def _absence(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> str:
    if truth[2] < 0:
        return "not annotated"
    if predicted[2] <= 0:
        return "missed" if truth[2] > 0 else "no ball"
    return "false"


@dataclass(frozen=True)
class _Ring:
    """A ring around a place ``[2]`` in pixels of an image."""

    place: NDArray[np.float64]
    colour: Colour


def draw_ball(
    image: ArrayLike,
    heat: ArrayLike | None,
    predicted: NDArray[np.float64],
    truth: NDArray[np.float64],
    size: tuple[int, int],
    *,
    width: int,
    around: int,
) -> Frame:
    """One frame with rings, and the surroundings of the ball with and without them.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        heat: ``[Hh, Wh]`` 0-1; None draws none.
        predicted: ``[3]`` x, y, visibility; pixels of the original.
        truth: ``[3]`` the same.
        size: (height, width) of the original.
        width: pixels of the frame in the result.
        around: pixels of ``image`` to each side of the ball that are enlarged.

    Returns:
        ``[h, width + h, 3]`` uint8: the frame, and beside it the two enlarged parts.
    """
    frame = check_frame(image)
    scale = _scale(frame, size)
    near = np.linalg.norm(predicted[:2] - truth[:2]) <= _CLOSE_PX
    colours = (TRUE, FOUND if near or truth[2] < 0 else WRONG)
    rings = [
        _Ring((ball[:2] + 0.5) * scale, colour)
        for ball, colour in zip((truth, predicted), colours, strict=True)
        if ball[2] > 0
    ]
    left = resize_width(frame, width)
    whole = Image.fromarray(left)
    _draw_rings(whole, rings, radius=max(5, width // 64), zoom=left.shape[1] / frame.shape[1])
    side = left.shape[0] // 2
    centre = rings[0].place if rings else np.array(frame.shape[1::-1]) / 2
    x, y = round(centre[0]) - around, round(centre[1]) - around
    warm = frame if heat is None else _warm(frame, np.asarray(heat, dtype=np.float64))
    parts = [
        Image.fromarray(source)
        .crop((x, y, x + 2 * around, y + 2 * around))
        .resize((side, side), Image.Resampling.NEAREST)
        for source in (frame, warm)
    ]
    zoom = side / (2 * around)
    _draw_rings(parts[1], rings, radius=max(4, side // 16), zoom=zoom, corner=(x, y))
    column = np.zeros((left.shape[0], side, 3), np.uint8)
    column[: 2 * side] = np.concatenate([np.asarray(part) for part in parts])
    return np.concatenate((np.asarray(whole), column), axis=1)


def _scale(frame: Frame, size: tuple[int, int]) -> NDArray[np.float64]:
    """(x, y) pixels of a frame per pixel of the (height, width) original.

    The two differ: the model's image need not have the aspect ratio of the video.
    """
    return np.array(frame.shape[1::-1], dtype=np.float64) / np.array(size[::-1])


def _warm(frame: Frame, heat: NDArray[np.float64]) -> Frame:
    """The frame with the heatmap laid over it."""
    levels = Image.fromarray((heat.clip(0, 1) * 255).astype(np.uint8))
    levels = levels.resize(frame.shape[1::-1], Image.Resampling.BILINEAR)
    share = np.asarray(levels, dtype=np.float64)[..., None] / 255 * 0.7
    return (frame * (1 - share) + np.array(HEAT) * share).astype(np.uint8)


def _draw_rings(
    image: Image.Image,
    rings: list[_Ring],
    *,
    radius: int,
    zoom: float = 1.0,
    corner: tuple[int, int] = (0, 0),
) -> None:
    """Draws the rings on a part of the frame that begins at ``corner``, enlarged by ``zoom``."""
    draw = ImageDraw.Draw(image)
    for step, ring in enumerate(rings):
        x, y = (ring.place - np.array(corner)) * zoom
        r = radius - 2 * step  # the prediction inside of the truth
        draw.ellipse((x - r, y - r, x + r, y + r), outline=ring.colour, width=1)


class FlightPainter:
    """Draws a ball and its trail; takes every frame of one video, in order."""

    def __init__(self, max_width: int) -> None:
        """Starts without a trail.

        Args:
            max_width: pixels; wider frames are scaled down to it.
        """
        self.max_width = max_width
        self._past: deque[NDArray[np.float64]] = deque(maxlen=_TRAIL_FRAMES)

    def paint(
        self, image: ArrayLike | None, ball: NDArray[np.float64], size: tuple[int, int]
    ) -> Frame | None:
        """Draws the next frame.

        Args:
            image: ``[H, W, 3]`` uint8 RGB (any H and W); None for a frame that is not shown.
            ball: ``[3]`` x, y, visibility in pixels of the video.
            size: (height, width) of the video in pixels.

        Returns:
            ``[H', W', 3]`` uint8 RGB; None without an image.
        """
        self._past.append(ball)
        if image is None:
            return None
        array = check_frame(image)
        array = resize_width(array, min(self.max_width, array.shape[1]))
        scale, frame = _scale(array, size), Image.fromarray(array)
        draw = ImageDraw.Draw(frame)
        for before, after in itertools.pairwise(self._past):
            if before[2] > 0 and after[2] > 0:
                (x0, y0), (x1, y1) = ((place[:2] + 0.5) * scale for place in (before, after))
                draw.line((x0, y0, x1, y1), fill=HEAT, width=1)
        if ball[2] > 0:
            _draw_rings(frame, [_Ring((ball[:2] + 0.5) * scale, FOUND)], radius=6)
        return np.asarray(frame)


def draw_flight(
    frames: Iterable[tuple[int, ArrayLike, NDArray[np.float64]]],
    size: tuple[int, int],
    *,
    name: str,
    every: int,
) -> Iterator[Frame]:
    """Draws a ball and its trail on the frames of its video.

    Args:
        frames: of each frame, in order: its number, the image ``[H, W, 3]`` uint8 RGB (any H and
            W), and ``[3]`` x, y, visibility in pixels of the video.
        size: (height, width) of the video in pixels.
        name: written below every frame, with the frame's number.
        every: draw every n-th frame, >= 1.

    Yields:
        ``[H', W, 3]`` uint8 RGB.
    """
    painter: FlightPainter | None = None
    for position, (number, image, ball) in enumerate(frames):
        painter = painter or FlightPainter(check_frame(image).shape[1])
        painted = painter.paint(None if position % every else image, ball, size)
        if painted is not None:
            absent = "" if ball[2] > 0 else ": no ball"
            yield captioned(painted, f"{name}, frame {number}{absent}")
