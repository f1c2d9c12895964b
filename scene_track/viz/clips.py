"""Writes clips: GIF with Pillow, MP4 where the optional PyAV is installed.

Frames may come from a generator. MP4 frames are encoded while they come. A file appears under its
name when it is complete, so an interrupted job leaves no half clip.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from numpy.typing import ArrayLike
from PIL import Image

from scene_track.io.atomic import atomic_path
from scene_track.viz.boxes import Frame, check_frame

GIF_MAX_FPS = 50
"""Players slow down frames shorter than two hundredths of a second."""


def write_clip(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Writes a ``.gif`` or ``.mp4`` file, as its name says.

    Args:
        path: file to write; its folder is made.
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


def write_png(path: str | Path, image: ArrayLike) -> Path:
    """Writes one image; it appears complete or not at all.

    Args:
        path: file to write; its folder is made.
        image: ``[H, W, 3]`` uint8 RGB.

    Returns:
        The path.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(check_frame(image)).save(temporary, format="PNG")
    return Path(path)


def write_gif(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Writes an endlessly repeating GIF; arguments and errors as in ``write_clip``.

    The frames wait in memory at one byte per pixel until the last one has come. GIF counts in
    hundredths of a second, and players slow down frames shorter than two of them: above 50 frames
    per second is an error. Durations are rounded so that they add up (30 fps is 3, 4, 3, ...).
    """
    if not 0 < fps <= GIF_MAX_FPS:
        raise ValueError(
            f"a GIF plays 0-{GIF_MAX_FPS} frames per second, not {fps}: write .mp4, or skip frames"
        )
    first, *others = [
        Image.fromarray(frame).quantize(dither=Image.Dither.NONE)
        for frame in _checked(frames, path)
    ]
    ends = [10 * round(100 * n / fps) for n in range(len(others) + 2)]  # milliseconds
    durations = [end - start for start, end in itertools.pairwise(ends)]
    with atomic_path(path) as partial:
        first.save(partial, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return Path(path)


def write_mp4(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Writes an H.264 MP4 that browsers play; arguments and errors as in ``write_clip``.

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
        atomic_path(path) as partial,
        av.open(str(partial), mode="w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20"}
        for array in itertools.chain([first], checked):
            cut = array[:height, :width].copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
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
