"""Frames of any video, one by one: a file, images, a sequence folder, a camera, a stream, arrays.

Frames are as a player shows them: turned as the file says, with square pixels, 8 bits of RGB. Times
are the file's, counted from its first frame. What is broken in the middle of a video is left out,
with a warning that names the frame; what is no video at all is one line.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scene_track.data.container import VIDEOS, FootageFrame, open_container, rejoin
from scene_track.data.container import Footage as Footage
from scene_track.data.images import EXTENSIONS as IMAGES
from scene_track.data.images import FrameError, images_among, read_image, what_is_there
from scene_track.data.seqinfo import read_seqinfo
from scene_track.data.video import list_images

log = logging.getLogger(__name__)


def open_footage(
    source: str | int | Path | Iterable[ArrayLike], fps: float | None = None
) -> Footage:
    """Open a video and decode its first frame.

    Args:
        source: a video file or named pipe, a folder or a glob of images, an image, a sequence
            folder with ``seqinfo.ini``, the number of a camera, the address of a stream, or RGB
            arrays ``[H, W, 3]`` uint8.
        fps: frames per second, in place of the times that the source states; must be given for
            images and arrays, which state none.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: it is no video, or nothing in it can be decoded.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps}: expected a number of frames per second above 0")
    if isinstance(source, str | int | Path):
        text = str(source)
        if text.isdecimal():
            return open_container(text, fps, camera=True)
        if "://" in text:
            return open_container(text, fps)
        path = Path(text).expanduser()
        if path.is_fifo() or (path.is_file() and path.suffix.lower() not in IMAGES):
            return open_container(str(path), fps)
        return _open_images(path, fps)
    return _open_arrays(source, fps)


def _open_arrays(source: Iterable[ArrayLike], fps: float | None) -> Footage:
    if fps is None:
        raise ValueError("arrays have no times: give fps=FRAMES_PER_SECOND")
    iterator = iter(source)
    try:
        first = _checked(next(iterator), 1)
    except StopIteration:
        raise ValueError("the source has no frames") from None

    def frames() -> Iterator[FootageFrame]:
        for number, array in enumerate(itertools.chain([first], iterator), start=1):
            image = _checked(array, number)
            if image.shape != first.shape:
                raise ValueError(
                    f"frame {number} is {_size(image)} pixels and the first is {_size(first)}:"
                    " expected frames of one size"
                )
            yield FootageFrame(image, number, (number - 1) / fps)

    length = len(source) if hasattr(source, "__len__") else None  # type: ignore[arg-type]
    height, width = first.shape[:2]
    return Footage("frames", fps, height, width, length, False, frames())


def _checked(array: ArrayLike, number: int) -> NDArray[np.uint8]:
    image = np.asarray(array)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"frame {number} is an array {list(image.shape)} of {image.dtype}: expected"
            " [H, W, 3] uint8, red first"
        )
    return image


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _open_images(path: Path, fps: float | None) -> Footage:
    """A sequence folder, a folder or glob of images, or a single image."""
    name = path.stem or path.parent.name
    if (path / "seqinfo.ini").is_file():
        info = read_seqinfo(path)
        numbered = sorted(list_images(path / info.image_dir).items())
        files = {number: path / info.image_dir / file for number, file in numbered}
        if not files:
            raise ValueError(f"{path / info.image_dir}: {what_is_there(path / info.image_dir)}")
        if missing := max(files) - min(files) + 1 - len(files):
            log.warning("%s: %d frames have no image file and are left out", path, missing)
        name, fps = info.name, fps or info.frame_rate
    elif path.is_dir():
        files = images_among(path.iterdir())
        if not files:
            raise ValueError(
                f"{path}: a folder without images ({', '.join(IMAGES)}) and without seqinfo.ini;"
                " type source=FOLDER_OF_IMAGES, or a video file in it"
            )
        name = path.name
    elif path.is_file():
        files = {1: path}
    else:
        files = images_among(_glob(path))
        if not files:
            raise FileNotFoundError(
                f"{path}: no such file, folder or glob of images; type source=VIDEO, such as"
                f" video{VIDEOS[0]}, a folder of images, a glob in quotes, a camera's number, or an"
                " address with ://"
            )
        name = path.parent.name
    if len(files) == 1:
        fps = fps or 1.0  # a single image has one time, whatever the rate
    if fps is None:
        raise ValueError(f"{path}: {len(files)} images have no times, type fps=FRAMES_PER_SECOND")
    decoded = _decode_images(files, fps)
    first = next(decoded, None)
    if first is None:
        raise ValueError(f"{path}: none of its {len(files)} images can be decoded")
    frames = rejoin(first, decoded)
    height, width = first.image.shape[:2]
    return Footage(name, fps, height, width, len(files), False, frames)


def _decode_images(files: dict[int, Path], fps: float) -> Iterator[FootageFrame]:
    origin, shape = next(iter(files), 1), None
    for number, file in files.items():
        try:
            image = read_rgb(file)
        except FrameError as error:
            log.warning("frame %d is left out: %s", number, error)
            continue
        if shape is not None and image.shape != shape:
            raise ValueError(
                f"{file}: the image is {_size(image)} pixels and the first is"
                f" {shape[1]}x{shape[0]}: expected frames of one size"
            )
        shape = image.shape
        yield FootageFrame(image, number, (number - origin) / fps)


def read_rgb(file: Path | str) -> NDArray[np.uint8]:
    """``[H, W, 3]`` uint8 RGB of an image file.

    Raises:
        FrameError: it is missing, or cannot be decoded.
    """
    return read_image(Path(file)).permute(1, 2, 0).contiguous().numpy()


def natural(path: Path) -> list[tuple[int, str]]:
    """Order of names in which frame2 comes before frame10."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _glob(path: Path) -> Iterator[Path]:
    pattern = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    return pattern.glob(str(Path(*parts))) if parts else iter(())
