"""Frames to a moving picture: GIF with Pillow, MP4 where the optional PyAV is installed.

Frames may come from a generator and are encoded while they come, so a clip of any length needs the
memory of one frame. Pillow's own animation writer keeps all frames until the end, which is why each
frame is written as a GIF of its own here and its blocks are put into the clip. A file appears under
its name when it is complete, so an interrupted job leaves no half clip.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from numpy.typing import ArrayLike
from PIL import Image

from scene_track.viz.boxes import Frame, check_frame

GIF_MAX_FPS = 50
"""Players slow frames down that are shorter than two hundredths of a second."""


def write_clip(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Write ``.gif`` or ``.mp4``, as the name says.

    Args:
        path: where to; folders are made.
        frames: ``[H, W, 3]`` uint8 RGB each, all of one size, at least one.
        fps: frames per second, > 0.

    Returns:
        The path.

    Raises:
        ValueError: another ending, no frames, frames of different sizes, ``fps`` out of range.
        ModuleNotFoundError: MP4 without PyAV; says how to install it.
    """
    path = Path(path)
    if path.suffix.lower() == ".gif":
        return write_gif(path, frames, fps)
    if path.suffix.lower() == ".mp4":
        return write_mp4(path, frames, fps)
    raise ValueError(f"a clip ends in .gif or .mp4, not {path.name!r}")


def write_png(path: str | Path, picture: ArrayLike) -> Path:
    """Write one picture; it appears complete or not at all.

    Args:
        path: file to write; its folder is made.
        picture: ``[H, W, 3]`` uint8 RGB.

    Returns:
        The path.
    """
    with _complete(path) as temporary:
        Image.fromarray(check_frame(picture)).save(temporary, format="PNG")
    return Path(path)


def write_gif(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Write an endlessly repeating GIF; arguments and errors as in ``write_clip``.

    GIF counts in hundredths of a second, and players slow frames shorter than two of them down:
    above 50 frames per second is an error. Durations are rounded so that they add up (30 fps is
    3, 4, 3, 3, 4, ...).
    """
    if not 0 < fps <= GIF_MAX_FPS:
        raise ValueError(
            f"a GIF plays 0-{GIF_MAX_FPS} frames per second, not {fps}: write .mp4, or skip frames"
        )
    checked = _checked(frames, path)
    first = next(checked)
    height, width = first.shape[:2]
    with _complete(path) as partial, partial.open("wb") as file:
        # Screen without a common palette, then the endless loop.
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")
        array, start, count = first, 0, 1
        while array is not None:
            end = round(100 * count / fps)
            file.write(struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 4, end - start, 0, 0))
            file.write(_gif_image(array))
            array, start, count = next(checked, None), end, count + 1
        file.write(b"\x3b")
    return Path(path)


def _gif_image(frame: Frame) -> bytes:
    """Image descriptor, palette and compressed pixels of one frame (GIF89a, sections 18 to 22)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(frame).quantize(colors=256, dither=Image.Dither.NONE)
    picture.save(buffer, format="GIF", optimize=False)
    data = buffer.getvalue()
    flags, place = data[10], 13
    has_palette, depth = flags >> 7, flags & 7
    palette = data[place : place + (3 * 2 ** (depth + 1) if has_palette else 0)]
    place += len(palette)
    while data[place] == 0x21:  # extensions: a chain of blocks, each led by its length
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    descriptor, packed = data[place : place + 9], data[place + 9]
    if packed & 0x80:  # the frame's palette stands here already
        return data[place:-1]
    own = bytes((packed | 0x80 | depth,))
    return descriptor + own + palette + data[place + 10 : -1]


def write_mp4(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Write an H.264 MP4 that browsers play; arguments and errors as in ``write_clip``.

    Odd sides lose their last row or column: the codec halves the colour resolution.
    """
    if fps <= 0:
        raise ValueError(f"frames per second must be above 0, not {fps}")
    try:
        av = importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"writing {path} needs PyAV: pip install 'scene_track[video]', or write a .gif"
        ) from error
    checked = _checked(frames, path)
    first = next(checked)
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    if height == 0 or width == 0:
        raise ValueError(
            f"{path}: frames of {first.shape[0]}x{first.shape[1]} are too small for MP4"
        )
    with (
        _complete(path) as partial,
        av.open(str(partial), mode="w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20"}
        array = first
        while array is not None:
            cut = array[:height, :width].copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
            array = next(checked, None)
        container.mux(stream.encode())
    return Path(path)


def _checked(frames: Iterable[ArrayLike], path: str | Path) -> Iterator[Frame]:
    """The frames one by one, all of the first one's size."""
    shape = None
    for n, frame in enumerate(frames):
        array = check_frame(frame)
        if shape is not None and array.shape != shape:
            raise ValueError(
                f"{path}: frame {n} is {array.shape[0]}x{array.shape[1]}, the ones before are"
                f" {shape[0]}x{shape[1]}"
            )
        shape = array.shape
        yield array
    if shape is None:
        raise ValueError(f"{path}: no frames to write")


@contextmanager
def _complete(path: str | Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its name if nothing goes wrong."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
