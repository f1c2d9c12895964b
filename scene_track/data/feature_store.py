"""Features of frames on disk, computed once and read by every later epoch, process and run.

A *record* is R half-precision numbers that a frozen network computed from a frame. Each video has a
slot file (:mod:`scene_track.io.slots`) with one slot per frame number, and a second one for the
mirrored frames. The image's name, size and time go into a slot's checksum, so that a changed image
counts as not stored.

The limit never evicts: epochs visit all frames in turn, so the oldest record is the one that is
needed next. A full store keeps what it has and logs a warning once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene_track.data.video import Video
from scene_track.io.atomic import is_full, write_atomic
from scene_track.io.slots import SlotFile

log = logging.getLogger(__name__)

SUFFIX = ".features"
ABOUT = "about.json"
_VALUE = 2  # bytes of a half-precision number
_MOST_OPEN = 64  # files; a process often has 1024 descriptors
_MOST_UNMEASURED = 64 * 1024**2  # bytes that a process writes before it measures the folder again


@dataclass(frozen=True)
class FrameKey:
    """Where the record of one frame lies.

    Attributes:
        file: name of the video's file in the store's folder.
        slot: number of the frame's slot in it, from 0.
        slots: number of slots of the file.
        image: 32-bit digest of the image file's name, size and time; 0 if it is missing.
    """

    file: str
    slot: int
    slots: int
    image: int


def frame_key(sequence: Video, position: int, *, mirrored: bool) -> FrameKey:
    """The key of a frame (``sequence.frames[position]``), however its video is cut into splits."""
    slots = sequence.info.length  # of the whole video
    place = hashlib.sha256(f"{sequence.folder} {slots}".encode()).hexdigest()[:8]
    side = "-mirrored" if mirrored else ""
    file = sequence.files[position]
    try:
        stat = file.stat()
        image = zlib.crc32(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode()) or 1
    except FileNotFoundError:
        image = 0
    return FrameKey(
        file=f"{sequence.folder.name}-{place}{side}{SUFFIX}",
        slot=int(sequence.frames[position]) - sequence.info.first_frame,
        slots=slots,
        image=image,
    )


class FeatureStore:
    """Records of one network at one image size."""

    def __init__(
        self,
        root: Path,
        name: str,
        *,
        values: int,
        limit_bytes: int,
        about: Mapping[str, Any] | None = None,
        writable: bool = True,
    ) -> None:
        """Opens nothing yet.

        Args:
            root: folder of the stores of all networks; the limit is on all of them together.
            name: of this store's folder in it; everything that defines the features is in it.
            values: R, numbers per record.
            limit_bytes: most bytes on disk below ``root``. Measured anew after every 64 MiB that
                this process has written, and more often near the limit, so several writers may
                together exceed it by as much each.
            about: what defines the features, plain values; kept beside them for a person to read.
            writable: False only reads.
        """
        self.root = root
        self.folder = root / name
        self.values = values
        self.limit_bytes = limit_bytes
        self.about = dict(about or {})
        self.writable = writable
        self.full = False
        self._left: int | None = None  # bytes that may be written before the next measurement
        self._open: OrderedDict[str, SlotFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the files again.
        return self.__dict__ | {"_open": OrderedDict()}

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.values * _VALUE

    def read(self, key: FrameKey) -> Tensor | None:
        """The record of a frame: ``[R]`` float16, or None if it is not stored.

        Raises:
            ValueError: the video's file has another size than expected.
        """
        file = self._file(key, create=False)
        if file is None or key.image == 0:
            return None
        data = file.read(key.slot, salt=key.image)
        return None if data is None else torch.from_numpy(data.view(np.float16))

    def write(self, key: FrameKey, record: Tensor) -> bool:
        """Stores the record of a frame.

        Args:
            key: of the frame.
            record: ``[R]`` float16 on the CPU.

        Returns:
            Whether it is stored; False when the store is full or read-only, or the image is
            missing.

        Raises:
            OSError: the file cannot be written, for another reason than a full disk.
        """
        if not self.writable or self.full or key.image == 0 or not self._has_room():
            return False
        try:
            file = self._file(key, create=True)
            assert file is not None
            data = record.contiguous().view(torch.uint8).numpy()
            file.write(key.slot, data, salt=key.image)
        except OSError as error:
            if not is_full(error):
                raise
            self._say_full(f"the disk of {self.root} is full")
            return False
        assert self._left is not None
        self._left -= self.record_bytes
        return True

    def used_bytes(self) -> int:
        """Bytes on disk of all stores below ``root``."""
        files = (entry.stat() for entry in self.root.glob(f"*/*{SUFFIX}"))
        return sum(stat.st_blocks * 512 for stat in files)  # a sparse file's size is not its use

    def close(self) -> None:
        """Closes all files."""
        while self._open:
            self._open.popitem()[1].close()

    def _has_room(self) -> bool:
        """Whether one more record stays below the limit."""
        if self._left is None or self._left < self.record_bytes:
            room = self.limit_bytes - self.used_bytes()
            if room < self.record_bytes:
                limit = f"model.backbone.cache_limit_gb={self.limit_bytes / 1024**3:g}"
                self._say_full(f"{self.root} has reached {limit}")
                return False
            # Others may be writing too, so only a part of the room before the next measurement.
            self._left = max(self.record_bytes, min(room // 16, _MOST_UNMEASURED))
        return True

    def _say_full(self, why: str) -> None:
        self.full = True
        stores = sorted(f"{path.parent}" for path in self.root.glob(f"*/{ABOUT}"))
        log.warning(
            "%s: no more features are stored, the missing ones are computed each time;"
            " raise the limit, or remove what is not needed of %s",
            why,
            ", ".join(stores) or "the disk",
        )

    def _file(self, key: FrameKey, *, create: bool) -> SlotFile | None:
        """The open file of a video; None if it does not exist and is not to be made."""
        if key.file in self._open:
            self._open.move_to_end(key.file)
            return self._open[key.file]
        path = self.folder / key.file
        if not path.exists():
            if not create:
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / ABOUT).exists():
                write_atomic(self.folder / ABOUT, json.dumps(self.about, indent=1) + "\n")
            SlotFile.create(path, slots=key.slots, record_bytes=self.record_bytes)
        file = SlotFile(
            path, slots=key.slots, record_bytes=self.record_bytes, writable=self.writable
        )
        self._open[key.file] = file
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        return file


class FeatureSource:
    """Gives a dataset the stored features of frames; without a store it has none.

    Attributes:
        store: set when the network is known.
        pictures: read the images too, also of frames with features.
        until: epoch from which on the network trains and features are not read; None = never.
        epoch: the epoch in which streamed (validation) frames are read.
    """

    def __init__(self) -> None:
        self.store: FeatureStore | None = None
        self.pictures = False
        self.until: int | None = None
        self.epoch = 0

    def serves(self, epoch: int | None = None) -> bool:
        """Whether features replace images in an epoch (None: ``self.epoch``)."""
        if self.store is None:
            return False
        return self.until is None or (self.epoch if epoch is None else epoch) < self.until

    def look_up(
        self, sequence: Video, position: int, *, mirrored: bool
    ) -> tuple[FrameKey, Tensor | None]:
        """The key of a frame, and its record ``[R]`` float16 if it is stored."""
        assert self.store is not None
        key = frame_key(sequence, position, mirrored=mirrored)
        return key, self.store.read(key)
