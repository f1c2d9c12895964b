"""Frames of a video as uint8 tensors of one size: decoded, or kept in a slot file.

Cache files are named after the sizes and times of the images they were made from, so a changed
image leads to another file. A cached frame equals a decoded one bit for bit.
"""

from __future__ import annotations

import glob
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from scene_track.data.images import read_image
from scene_track.data.video import Video
from scene_track.io.atomic import is_full
from scene_track.io.slots import SlotFile

log = logging.getLogger(__name__)

_FORMAT = 3


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
    stated = sequence.info.size
    image = read_image(sequence.files[position], stated, "the sequence's are")
    return resize_frame(image, size)


def resize_frame(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``[3, H, W]`` uint8 at (height, width) ``size``, as every model sees it.

    The aspect ratio is not kept: a box in 0-1 of the canvas is the same in 0-1 of the image.
    """
    return F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


class FrameStore:
    """Gives resized frames of one video, through a cache file if there is a cache folder."""

    def __init__(self, sequence: Video, size: tuple[int, int], cache_dir: Path | None) -> None:
        """Opens nothing yet; ``cache_dir`` holds the cache files, None = decode every time."""
        self.sequence = sequence
        self.size = size
        self.cache_dir = cache_dir
        self._file: SlotFile | None = None
        self._full = False  # nothing more can be kept

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the file again.
        return self.__dict__ | {"_file": None}

    @property
    def path(self) -> Path:
        """The cache file of exactly these frames."""
        assert self.cache_dir is not None
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
            OSError: if the cache file cannot be written, for another reason than a full disk.
        """
        if self.cache_dir is None:
            return read_frame(self.sequence, position, self.size)
        try:
            if self._file is None and not self._full:
                self._file = self._open()
            data = None if self._file is None else self._file.read(position)
            if data is not None:
                return torch.from_numpy(data).view(3, *self.size)
            frame = read_frame(self.sequence, position, self.size)
            if self._file is not None and not self._full:
                self._file.write(position, frame.contiguous().view(-1).numpy())
            return frame
        except OSError as error:
            if self._full or not is_full(error):
                raise
            log.warning("%s: no more frames are kept, the others are decoded each time", error)
            self._full = True
            return self.read(position)

    def _open(self) -> SlotFile:
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        slots, record_bytes = len(self.sequence), 3 * self.size[0] * self.size[1]
        if not path.exists() and SlotFile.create(path, slots=slots, record_bytes=record_bytes):
            for stale in path.parent.glob(f"{glob.escape(self._stem)}-*.frames"):
                if stale != path:
                    log.info("%s: its images have changed, removed", stale)
                    stale.unlink(missing_ok=True)
        return SlotFile(path, slots=slots, record_bytes=record_bytes)
