"""Frames of a sequence as uint8 tensors of one size, decoded, or kept in a memory-mapped file.

Special here: the cache file is filled frame by frame by whoever needs a frame first, without locks.
A frame counts as present when the checksum stored for it fits its bytes, and the checksum is
written last: two workers that store the same frame write the same bytes, and a kill in the middle
leaves a checksum that does not fit, that is, a frame that is decoded again. Files are named after
the sizes and times of the images they were made from, so a changed image is another file. A cached
frame equals a decoded one bit for bit.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from scene_track.data.video import Video

log = logging.getLogger(__name__)

_FORMAT = 1


class FrameError(ValueError):
    """A frame that cannot be used: missing, corrupt, or not of the stated size."""


def read_frame(sequence: Video, position: int, size: tuple[int, int]) -> Tensor:
    """Decodes and resizes one frame.

    Args:
        sequence: the video.
        position: index into ``sequence.frames``.
        size: (height, width) of the result in pixels; the aspect ratio is not kept.

    Returns:
        ``[3, h, w]`` uint8 RGB.

    Raises:
        FrameError: naming the file.
    """
    file = sequence.files[position]
    if not file.is_file():
        raise FrameError(f"{file}: the frame has gone")
    try:
        image = read_image(str(file), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else "unknown reason"
        raise FrameError(f"{file}: the frame cannot be decoded: {reason}") from None
    expected = (sequence.info.height, sequence.info.width)
    if tuple(image.shape[-2:]) != expected:
        raise FrameError(
            f"{file}: the frame is {image.shape[-1]}x{image.shape[-2]} pixels, "
            f"the sequence's are {expected[1]}x{expected[0]}"
        )
    return F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


class FrameStore:
    """Gives resized frames of one sequence, through a cache file where one is wanted."""

    def __init__(self, sequence: Video, size: tuple[int, int], cache_dir: Path | None) -> None:
        """Opens nothing yet.

        Args:
            sequence: the video.
            size: (height, width) of the frames in pixels.
            cache_dir: folder of cache files; None = decode every time.
        """
        self.sequence = sequence
        self.size = size
        self.cache_dir = cache_dir
        self._file: int | None = None
        self._map: np.memmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        # An open file does not travel to another process; it opens its own.
        return self.__dict__ | {"_file": None, "_map": None}

    @property
    def path(self) -> Path:
        """The cache file of exactly these frames.

        Raises:
            ValueError: without ``cache_dir``.
        """
        if self.cache_dir is None:
            raise ValueError("no cache_dir was given")
        digest = hashlib.sha256(f"format {_FORMAT}".encode())
        for number, file in zip(self.sequence.frames, self.sequence.files, strict=True):
            try:
                stat = file.stat()
                digest.update(f"{number} {file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
            except FileNotFoundError:
                digest.update(f"{number} gone\n".encode())
        return self.cache_dir / f"{self._stem}-{digest.hexdigest()[:16]}.frames"

    @property
    def _stem(self) -> str:
        place = hashlib.sha256(str(self.sequence.folder).encode()).hexdigest()[:8]
        height, width = self.size
        return f"{self.sequence.name}-{place}-{height}x{width}"

    def read(self, position: int) -> Tensor:
        """``[3, h, w]`` uint8 RGB of ``sequence.frames[position]``.

        Raises:
            FrameError: naming the file.
            OSError: if the cache file cannot be written (no space left, for example).
        """
        if self.cache_dir is None:
            return read_frame(self.sequence, position, self.size)
        if self._map is None:
            self._open()
        assert self._map is not None and self._file is not None
        frame_bytes = 3 * self.size[0] * self.size[1]
        count = len(self.sequence)
        stored = int.from_bytes(self._map[4 * position : 4 * position + 4].tobytes(), "little")
        start = 4 * count + position * frame_bytes
        if stored:
            # A copy: tensors made from it must survive the map, and may be written to.
            data = np.array(self._map[start : start + frame_bytes])
            if _checksum(data) == stored:
                return torch.from_numpy(data).view(3, *self.size)
        frame = read_frame(self.sequence, position, self.size)
        data = frame.contiguous().view(-1).numpy()
        _write_at(self._file, data, start)
        _write_at(
            self._file, np.frombuffer(_checksum(data).to_bytes(4, "little"), np.uint8), 4 * position
        )
        return frame

    def _open(self) -> None:
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        length = len(self.sequence) * (4 + 3 * self.size[0] * self.size[1])
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as file:
                    file.truncate(length)  # sparse: takes no space before frames are stored
                os.link(temporary, path)
            except FileExistsError:
                pass  # another worker was first
            finally:
                temporary.unlink(missing_ok=True)
            for stale in path.parent.glob(f"{glob.escape(self._stem)}-*.frames"):
                if stale != path:
                    log.info("%s: its images have changed, removed", stale)
                    stale.unlink(missing_ok=True)
        self._file = os.open(path, os.O_RDWR)
        self._map = np.memmap(path, dtype=np.uint8, mode="r", shape=(length,))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def _checksum(data: np.ndarray) -> int:
    return zlib.crc32(data.data) or 1  # 0 means "not stored"


def _write_at(file: int, data: np.ndarray, start: int) -> None:
    view = data.data
    while len(view):
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
