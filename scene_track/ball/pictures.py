"""Pictures of a ball: the frame with heat, prediction and truth, and what lies around the ball.

A ball of five pixels cannot be judged on a whole frame, so each panel has three parts: the frame
with what the model says (green ring) and what is true (white ring), the surroundings of the truth
enlarged without anything drawn on them, and the same with heat and rings.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from scene_track.viz.boxes import Frame, check_frame, contact_sheet, resize_width, text_bar
from scene_track.viz.thinned import ThinnedFrames

FOUND = (80, 230, 90)
WRONG = (255, 70, 60)
TRUE = (255, 255, 255)
HEAT = (255, 150, 0)

_CLOSE_PX = 5.0  # PCK@5, the error within which a prediction is drawn as found


class BallVisualiser:
    """Collects frames of a validation run and makes one contact sheet of them."""

    def __init__(
        self,
        *,
        max_frames: Annotated[int, Field(ge=0)] = 8,
        columns: Annotated[int, Field(ge=1)] = 2,
        panel_width: Annotated[int, Field(ge=64)] = 448,
        around: Annotated[int, Field(ge=8)] = 32,
    ) -> None:
        """Start empty.

        Args:
            max_frames: frames on the sheet at most; 0 collects none.
            columns: panels beside each other.
            panel_width: width in pixels to which each frame is resized.
            around: pixels of the model's picture to each side of the truth that are enlarged.
        """
        self.max_frames, self.columns = max_frames, columns
        self.panel_width, self.around = panel_width, around
        self._shots = ThinnedFrames[Frame](max_frames)

    def __len__(self) -> int:
        """Frames that the sheet would show."""
        return len(self._shots)

    def reset(self) -> None:
        """Forget all frames (a new epoch)."""
        self._shots.reset()

    def wanted(self) -> bool:
        """Whether the next frame is one to add; ask once per frame, before its picture is copied.

        Most are not wanted: the sheet has few frames, spread over all.
        """
        return self._shots.wanted()

    def add_frame(
        self,
        image: ArrayLike,
        heat: ArrayLike | None,
        predicted: NDArray[np.float64],
        truth: NDArray[np.float64],
        size: tuple[int, int],
        caption: str,
    ) -> None:
        """Keep a frame that is ``wanted``.

        Args:
            image: ``[H, W, 3]`` uint8 RGB.
            heat: ``[Hh, Wh]`` 0-1; None draws none.
            predicted: ``[3]`` x, y, visibility; pixels of the original.
            truth: ``[3]`` the same; visibility -1 where nobody knows.
            size: (height, width) of the original.
            caption: one line, such as ``"game3_Clip1 frame 4"``.
        """
        panel = draw_ball(
            image, heat, predicted, truth, size, width=self.panel_width, around=self.around
        )
        error = np.linalg.norm(predicted[:2] - truth[:2])
        far = f"{error:.1f} px" if np.isfinite(error) else _absence(predicted, truth)
        self._shots.add(panel, f"{caption}   |   {far}")

    def picture(self, header: str = "") -> Frame:
        """The contact sheet of the frames so far.

        Args:
            header: one line above it.

        Raises:
            ValueError: no frame was offered.
        """
        if not len(self._shots):
            raise ValueError("no frames to show: add_frame was never called")
        panels, captions = self._shots.chosen()
        legend = "white: truth, green: found, red: wrong; px of the original footage"
        return contact_sheet(
            panels, self.columns, captions, header=f"{header}   |   {legend}" if header else legend
        )


def _absence(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> str:
    if truth[2] < 0:
        return "not annotated"
    if predicted[2] <= 0:
        return "missed" if truth[2] > 0 else "no ball"
    return "false"


def draw_ball(
    image: ArrayLike,
    heat: ArrayLike | None,
    predicted: NDArray[np.float64],
    truth: NDArray[np.float64],
    size: tuple[int, int],
    *,
    width: int = 448,
    around: int = 32,
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
    picture = check_frame(image)
    scale = _scale(picture.shape[1::-1], size)
    near = np.linalg.norm(predicted[:2] - truth[:2]) <= _CLOSE_PX
    places = [(truth, TRUE), (predicted, FOUND if near or truth[2] < 0 else WRONG)]
    marks = [((place[:2] + 0.5) * scale, colour) for place, colour in places if place[2] > 0]
    warm = picture if heat is None else _warm(picture, np.asarray(heat, dtype=np.float64))

    left = resize_width(picture, width)
    whole = Image.fromarray(left)
    _rings(whole, marks, left.shape[1] / picture.shape[1], (0, 0), radius=max(5, width // 64))
    side = left.shape[0] // 2
    centre = marks[0][0] if marks else np.array(picture.shape[1::-1]) / 2
    corner = (round(centre[0]) - around, round(centre[1]) - around)
    zoom = side / (2 * around)
    parts = []
    for source, drawn in ((picture, False), (warm, True)):
        box = (corner[0], corner[1], corner[0] + 2 * around, corner[1] + 2 * around)
        part = Image.fromarray(source).crop(box).resize((side, side), Image.Resampling.NEAREST)
        if drawn:
            _rings(part, marks, zoom, corner, radius=max(4, side // 16))
        parts.append(np.asarray(part))
    column = np.zeros((left.shape[0], side, 3), np.uint8)
    stacked = np.concatenate(parts)
    column[: len(stacked)] = stacked
    return np.concatenate((np.asarray(whole), column), axis=1)


def _scale(picture: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.float64]:
    """(x, y) pixels of a (width, height) picture per pixel of the (height, width) original.

    The two differ: the model's picture need not have the shape of the footage.
    """
    return np.array(picture, dtype=np.float64) / np.array(size[::-1])


def _warm(picture: Frame, heat: NDArray[np.float64]) -> Frame:
    """The picture with the heatmap laid over it."""
    levels = Image.fromarray((heat.clip(0, 1) * 255).astype(np.uint8))
    levels = levels.resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
    share = np.asarray(levels, dtype=np.float64)[..., None] / 255 * 0.7
    return (picture * (1 - share) + np.array(HEAT) * share).astype(np.uint8)


def _rings(
    picture: Image.Image,
    marks: list[tuple[NDArray[np.float64], tuple[int, int, int]]],
    zoom: float,
    corner: tuple[int, int],
    *,
    radius: int,
) -> None:
    draw = ImageDraw.Draw(picture)
    for step, (place, colour) in enumerate(marks):
        x, y = (place - np.array(corner)) * zoom
        r = radius - 2 * step  # the prediction inside of the truth
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=1)


def draw_flight(
    frames: Iterable[tuple[int, ArrayLike, NDArray[np.float64]]],
    size: tuple[int, int],
    *,
    name: str = "",
    every: int = 1,
    trail: int = 12,
) -> Iterator[Frame]:
    """Draw a ball and where it came from on the frames of its video.

    Args:
        frames: of each frame, in order: its number, the picture ``[H, W, 3]`` uint8 RGB (any H and
            W), and ``[3]`` x, y, visibility in pixels of the footage.
        size: (height, width) of the footage in pixels.
        name: written below every frame, with the frame's number; empty writes nothing.
        every: only every so many frames are drawn, >= 1.
        trail: frames that the trail reaches back.

    Yields:
        ``[H', W, 3]`` uint8 RGB.
    """
    past: deque[NDArray[np.float64]] = deque(maxlen=trail)
    for position, (number, picture, ball) in enumerate(frames):
        past.append(ball)
        if position % every:
            continue
        frame = Image.fromarray(check_frame(picture))
        scale = _scale(frame.size, size)
        draw = ImageDraw.Draw(frame)
        for before, after in itertools.pairwise(past):
            if before[2] > 0 and after[2] > 0:
                ends = [tuple((place[:2] + 0.5) * scale) for place in (before, after)]
                draw.line(ends, fill=HEAT, width=1)  # pyright: ignore[reportArgumentType]
        if ball[2] > 0:
            _rings(frame, [((ball[:2] + 0.5) * scale, FOUND)], 1.0, (0, 0), radius=6)
        drawn = np.asarray(frame)
        if name:
            text = f"{name}, frame {number}{'' if ball[2] > 0 else ': no ball'}"
            drawn = np.concatenate((drawn, text_bar(drawn.shape[1], text)))
        yield drawn
