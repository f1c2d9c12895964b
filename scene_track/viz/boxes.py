"""Draws boxes, identities and trails on frames, and lays frames out. Needs no torch.

The colour of an identity is a function of its number alone, so it is the same in every frame and
run. Consecutive numbers are far apart in hue.
"""

from __future__ import annotations

import colorsys
import functools
import itertools
from collections import deque
from collections.abc import Sequence

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]

INK: Colour = (235, 235, 235)
PAPER: Colour = (24, 24, 28)
TRAIL_FRAMES = 30
"""Frames that a trail reaches back."""
NO_IDENTITY: Colour = (170, 170, 170)
_GOLDEN_RATIO = 0.618033988749895


def check_frame(frame: ArrayLike) -> Frame:
    """Returns ``frame`` as an array.

    Raises:
        ValueError: it is not ``[H, W, 3]`` uint8.
    """
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"a frame is a [H, W, 3] uint8 RGB array, not {list(array.shape)} of {array.dtype}"
        )
    return array


def colour_of(track_id: int) -> Colour:
    """RGB 0-255 of an identity; negative numbers (no identity) are grey."""
    if track_id < 0:
        return NO_IDENTITY
    # Steps of the golden ratio never repeat a hue and keep consecutive numbers apart. Two
    # saturations separate hues that come close after many identities.
    hue = (0.02 + track_id * _GOLDEN_RATIO) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[track_id // 13 % 2], 1.0)
    # Blues and purples are mixed with white until they stand out from a dark stage.
    luminance = _luminance(rgb)
    white = max(0.0, (0.5 - luminance) / (1 - luminance))
    red, green, blue = (round(255 * (white + (1 - white) * channel)) for channel in rgb)
    return red, green, blue


def resize_width(frame: ArrayLike, width: int) -> Frame:
    """``[H, W, 3]`` uint8 RGB as a new array, resized to ``width`` pixels.

    Smaller by the mean over an area, which takes a fifth of the time of Pillow's Lanczos (7.7 in
    place of 37 ms from 1920x1080 to 1280x720); larger by Lanczos.
    """
    array = check_frame(frame)
    height = max(1, round(array.shape[0] * width / array.shape[1]))
    if array.shape[:2] == (height, width):
        return array.copy()
    if width < array.shape[1]:
        shown = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(array), format="rgb24")
        smaller = VideoReformatter().reformat(
            shown, width, height, interpolation=Interpolation.AREA, threads=1
        )
        return np.asarray(smaller.to_ndarray(), dtype=np.uint8)
    return np.array(Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS))


def draw_boxes(
    frame: ArrayLike,
    boxes: ArrayLike,
    ids: ArrayLike,
    scores: ArrayLike | None = None,
    dashed: ArrayLike | None = None,
) -> Frame:
    """``paint_boxes`` on a copy of the frame."""
    return paint_boxes(check_frame(frame).copy(), boxes, ids, scores, dashed)


def paint_boxes(
    canvas: Frame,
    boxes: ArrayLike,
    ids: ArrayLike,
    scores: ArrayLike | None = None,
    dashed: ArrayLike | None = None,
) -> Frame:
    """Draws boxes and their labels into a frame.

    Boxes are drawn from back to front (a lower edge is nearer), all labels after all boxes.

    Args:
        canvas: ``[H, W, 3]`` uint8 RGB; is changed.
        boxes: ``[N, 4]`` cxcywh, 0-1 of the frame; may reach over the border.
        ids: ``[N]`` identities, written and shown by colour; negative = no identity.
        scores: ``[N]`` 0-1, written as percent.
        dashed: ``[N]`` bool, boxes to draw with a dashed line.

    Returns:
        ``canvas``.
    """
    corners, numbers = _corners(boxes, canvas), np.asarray(ids)
    marks = None if scores is None else np.asarray(scores)
    broken = np.zeros(len(corners)) if dashed is None else np.asarray(dashed)
    line = max(1, round(canvas.shape[1] / 220))
    order = np.argsort(corners[:, 3], kind="stable")
    colours = [colour_of(int(number)) for number in numbers]
    for n in order:
        _outline(canvas, corners[n], colours[n], line, 4 * line if broken[n] else 0)
    labels = _Labels(canvas)
    for n in order:
        words = [str(int(numbers[n]))] if numbers[n] >= 0 else []
        if marks is not None:
            words.append(f"{100 * float(marks[n]):.0f}%")
        if words:
            labels.draw(" ".join(words), corners[n], colours[n])
    return canvas


class Trails:
    """Remembers where each identity stood (the middle of the lower edge of its box), and draws it.

    Takes every frame of one video, in order.
    """

    def __init__(self) -> None:
        """Starts without memory."""
        self._points: dict[int, deque[tuple[int, float, float]]] = {}
        self._frame = 0

    def update(self, boxes: ArrayLike, ids: ArrayLike) -> None:
        """Takes the boxes of the next frame.

        Args:
            boxes: ``[N, 4]`` cxcywh, 0-1 of the frame.
            ids: ``[N]`` identities; negative ones leave no trail.
        """
        self._frame += 1
        for box, number in zip(_boxes(boxes), np.asarray(ids), strict=True):
            if number >= 0:
                trail = self._points.setdefault(int(number), deque(maxlen=TRAIL_FRAMES))
                trail.append((self._frame, float(box[0]), float(box[1] + box[3] / 2)))
        oldest = self._frame - TRAIL_FRAMES
        for number in list(self._points):
            trail = self._points[number]
            while trail and trail[0][0] <= oldest:
                trail.popleft()
            if not trail:
                del self._points[number]

    def paint(self, canvas: Frame) -> Frame:
        """Draws the trails, fading into the past, into ``[H, W, 3]`` uint8 RGB; returns it."""
        height, width = canvas.shape[:2]
        line = max(1, round(width / 250))
        for number, trail in self._points.items():
            if len(trail) < 2:
                continue
            places = np.array([(x * width, y * height) for _, x, y in trail])
            # Blending costs by area, so only the part of the frame under the trail is blended.
            low = np.clip(places.min(axis=0) - 2 * line, 0, (width, height)).astype(int)
            high = np.clip(places.max(axis=0) + 2 * line + 1, 0, (width, height)).astype(int)
            part = canvas[low[1] : high[1], low[0] : high[0]]
            if not part.size:
                continue
            layer = Image.new("RGBA", part.shape[1::-1], (0, 0, 0, 0))
            draw = ImageDraw.Draw(layer)
            for (start, end), (when, _, _) in zip(
                itertools.pairwise(places - low), itertools.islice(trail, 1, None), strict=True
            ):
                fade = 1 - (self._frame - when) / TRAIL_FRAMES
                ink = (*colour_of(number), round(60 + 195 * fade))
                draw.line((*start, *end), fill=ink, width=line)
            base = Image.fromarray(part).convert("RGBA")
            part[:] = np.asarray(Image.alpha_composite(base, layer))[..., :3]
        return canvas


def text_bar(width: int, text: str, height: int = 24) -> Frame:
    """``[height, width, 3]`` uint8 bar with one line of text; an ellipsis ends text that is cut."""
    bar = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(bar)
    font = ImageFont.load_default(size=round(height * 0.62))
    if draw.textlength(text, font=font) > width - 12:
        while text and draw.textlength(f"{text}…", font=font) > width - 12:
            text = text[:-1]
        text = f"{text}…"
    draw.text((6, height / 2), text, fill=INK, font=font, anchor="lm")
    return np.asarray(bar)


def captioned(frame: Frame, text: str) -> Frame:
    """The frame with one line of text below it."""
    return np.concatenate((frame, text_bar(frame.shape[1], text)))


def side_by_side(prediction: ArrayLike, truth: ArrayLike) -> Frame:
    """Prediction (left) and ground truth (right), each with its name in the lower left corner.

    Args:
        prediction: ``[H, W, 3]`` uint8 RGB.
        truth: ``[H, W, 3]`` uint8 RGB, of the same size.

    Returns:
        ``[H, 2 W + 4, 3]`` uint8 RGB.
    """
    left, right = check_frame(prediction), check_frame(truth)
    panels = []
    for frame, title in ((left, "prediction"), (right, "ground truth")):
        panel, (height, width) = frame.copy(), frame.shape[:2]
        _Labels(panel).draw(title, np.array([0, height, width, height], np.float64), PAPER)
        panels.append(panel)
    between = np.full((left.shape[0], 4, 3), PAPER, np.uint8)
    return np.concatenate((panels[0], between, panels[1]), axis=1)


def contact_sheet(
    frames: Sequence[ArrayLike], columns: int, captions: Sequence[str], header: str
) -> Frame:
    """Lays frames out in a grid, row by row; cells are as large as the largest frame.

    Args:
        frames: at least one ``[H, W, 3]`` uint8 RGB; sizes may differ.
        columns: cells per row, >= 1; fewer frames than columns give a narrower sheet.
        captions: one line of text above each frame.
        header: one line of text above the sheet.

    Returns:
        ``[H', W', 3]`` uint8 RGB.
    """
    arrays = [
        np.concatenate((text_bar(array.shape[1], caption), array))
        for array, caption in zip(map(check_frame, frames), captions, strict=True)
    ]
    columns, gap = min(columns, len(arrays)), 8
    rows = -(-len(arrays) // columns)
    height, width = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    size = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    sheet = np.full(size, PAPER, np.uint8)
    for n, array in enumerate(arrays):
        top, left = gap + n // columns * (height + gap), gap + n % columns * (width + gap)
        sheet[top : top + array.shape[0], left : left + array.shape[1]] = array
    return np.concatenate((text_bar(sheet.shape[1], header, 34), sheet))


def _boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes are [N, 4] cxcywh, not {list(array.shape)}")
    return array


def _corners(boxes: ArrayLike, canvas: Frame) -> NDArray[np.float64]:
    """``[N, 4]`` pixel corners (x0, y0, x1, y1), ordered even where a size is negative."""
    array = _boxes(boxes)
    half = np.abs(array[:, 2:]) / 2
    corners = np.concatenate((array[:, :2] - half, array[:, :2] + half), axis=1)
    # NaN has no place on an image; values far outside overflow the drawing library.
    corners = np.nan_to_num(corners, nan=-1.0).clip(-2, 3)
    return corners * np.array(canvas.shape[1::-1] * 2, np.float64)


def _outline(
    canvas: Frame, corners: NDArray[np.float64], colour: Colour, line: int, dash: int
) -> None:
    """Draws a rectangle into the canvas: lines of ``line`` pixels inwards, ``dash`` 0 = solid."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (round(float(value)) for value in corners)
    far_x, far_y = max(x0, x1 + 1 - line), max(y0, y1 + 1 - line)
    rows = np.arange(max(y0, 0), min(y1 + 1, height))
    columns = np.arange(max(x0, 0), min(x1 + 1, width))
    if dash:
        rows = rows[(rows - y0) // dash % 2 == 0]
        columns = columns[(columns - x0) // dash % 2 == 0]
    for y in (y0, far_y):
        canvas[max(y, 0) : max(min(y + line, y1 + 1), 0), columns] = colour
    for x in (x0, far_x):
        canvas[rows, max(x, 0) : max(min(x + line, x1 + 1), 0)] = colour


class _Labels:
    """Writes labels into a canvas so that they cover each other as little as possible."""

    def __init__(self, canvas: Frame) -> None:
        self._canvas = canvas
        self._size = max(10, round(canvas.shape[1] / 36))
        self._taken: list[tuple[int, int, int, int]] = []

    def draw(self, text: str, box: NDArray[np.float64], colour: Colour) -> None:
        """Text on a chip above ``box [4]``, or at another corner of it if that place is taken."""
        chip = _chip(text, colour, self._size)
        height, width = chip.shape[:2]
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        right_edge, above = x1 - width, y0 - height
        places = []
        for x, y in (
            (x0, above), (right_edge, above), (x0, y1), (right_edge, y1), (x0, above - height),
            (x0, y0),
        ):  # fmt: skip
            x = max(min(x, self._canvas.shape[1] - width), 0)
            y = max(min(y, self._canvas.shape[0] - height), 0)
            places.append((x, y, x + width, y + height))
        place = next(filter(self._is_free, places), places[0])
        self._taken.append(place)
        x, y, end_x, end_y = place
        part = self._canvas[y:end_y, x:end_x]
        part[:] = chip[: part.shape[0], : part.shape[1]]  # a frame may be smaller than the text

    def _is_free(self, chip: tuple[int, int, int, int]) -> bool:
        x0, y0, x1, y1 = chip
        return all(x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in self._taken)


@functools.lru_cache(maxsize=1024)
def _chip(text: str, colour: Colour, size: int) -> Frame:
    """``[h, w, 3]`` uint8: text on a ground of a colour; the same ones come in every frame."""
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    chip = Image.new("RGB", (round(right - left) + 4, round(bottom - top) + 4), colour)
    bright = _luminance((colour[0] / 255, colour[1] / 255, colour[2] / 255)) > 0.45
    ink = PAPER if bright else INK
    ImageDraw.Draw(chip).text((2 - left, 2 - top), text, fill=ink, font=font, anchor="ls")
    return np.asarray(chip)


def _luminance(rgb: tuple[float, float, float]) -> float:
    """0-1 perceived brightness (ITU-R BT.601 weights)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
