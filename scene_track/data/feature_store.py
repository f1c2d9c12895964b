"""Features of frames on disk, computed once and read by every epoch, process and run after that.

What a frozen network makes of a frame is a *record*: R half-precision numbers, of which this file
knows nothing but their count. Two things are special:

* **No locks, no index.** Each sequence has a sparse file with a slot for every frame number and a
  second one for the mirrored frames. A slot counts as filled when the checksum in the table at the
  file's start fits its bytes *and* the image that they were made from, and it is written last.
  Workers, ranks and trials that fill the same slot store the same record. A kill or a crash of the
  machine in the middle leaves a checksum that does not fit, that is, a frame that is computed
  again; so does an image that was changed since.
* **A limit that never evicts.** Epochs visit all frames in turn, so throwing out the oldest record
  would throw out exactly the one that is needed next. A full store keeps what it has, says so once,
  and the other frames are computed every time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import mmap
import os
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
from scene_track.io.atomic import write_atomic

log = logging.getLogger(__name__)

SUFFIX = ".features"
ABOUT = "about.json"
_ENTRY = 4  # bytes of a checksum in a file's table
_VALUE = 2  # bytes of a half-precision number
_MOST_OPEN = 64  # files; each takes two descriptors, of which a process often has 1024
_MOST_UNMEASURED = 64 * 1024**2  # bytes that a process writes before it measures the folder again


@dataclass(frozen=True)
class FrameKey:
    """Where the record of one frame lies.

    Attributes:
        file: name of the sequence's file in the store's folder.
        slot: number of the frame's slot in it, from 0.
        slots: how many it has.
        image: 32-bit digest of the image file's name, size and time, 0 if it has gone.
    """

    file: str
    slot: int
    slots: int
    image: int


def frame_key(sequence: Video, position: int, *, mirrored: bool) -> FrameKey:
    """The key of a frame, the same however its sequence is cut into splits.

    Args:
        sequence: the video.
        position: index into ``sequence.frames``.
        mirrored: left and right were exchanged.
    """
    slots = sequence.info.length  # of the whole footage
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
    """Records of one network at one picture size."""

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
        self._open: OrderedDict[str, tuple[int, mmap.mmap]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to another process; it opens its own.
        return self.__dict__ | {"_open": OrderedDict()}

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.values * _VALUE

    def read(self, key: FrameKey) -> Tensor | None:
        """The record of a frame.

        Returns:
            ``[R]`` float16, or None if it is not there.
        """
        opened = self._file(key, create=False)
        if opened is None or key.image == 0:
            return None
        _, view = opened
        at = key.slot * _ENTRY
        stored = int.from_bytes(view[at : at + _ENTRY], "little")
        if not stored:
            return None
        start = self._start(key)
        # A copy: what is checked must be what is handed out, whoever writes in the meantime.
        data = np.array(np.frombuffer(view, np.uint8, self.record_bytes, start))
        if _checksum(data, key) != stored:
            return None
        return torch.from_numpy(data.view(np.float16))

    def write(self, key: FrameKey, record: Tensor) -> bool:
        """Keep the record of a frame.

        Args:
            key: of the frame.
            record: ``[R]`` float16 on the CPU.

        Returns:
            Whether it is kept; False when the store is full, read-only, or the image has gone.

        Raises:
            OSError: the file cannot be written, for another reason than a full disk.
        """
        if not self.writable or self.full or key.image == 0 or not self._has_room():
            return False
        data = record.contiguous().view(torch.uint8).numpy()
        checksum = _checksum(data, key).to_bytes(_ENTRY, "little")
        try:
            opened = self._file(key, create=True)
            assert opened is not None
            file, _ = opened
            _write_at(file, data, self._start(key))
            _write_at(file, np.frombuffer(checksum, np.uint8), key.slot * _ENTRY)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
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
        """Close all files."""
        while self._open:
            _, (file, view) = self._open.popitem()
            view.close()
            os.close(file)

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.close()

    def _has_room(self) -> bool:
        """Whether one more record stays below the limit."""
        if self._left is None or self._left < self.record_bytes:
            room = self.limit_bytes - self.used_bytes()
            if room < self.record_bytes:
                self._say_full(
                    f"{self.root} has reached model.backbone.cache_limit_gb="
                    f"{self.limit_bytes / 1024**3:g}"
                )
                return False
            # Others may be writing too, so only a part of the room before the next look.
            self._left = max(self.record_bytes, min(room // 16, _MOST_UNMEASURED))
        return True

    def _say_full(self, why: str) -> None:
        self.full = True
        log.warning(
            "%s: no more features are kept, frames without any are computed each time;"
            " raise the limit, or remove what is not needed of %s",
            why,
            ", ".join(sorted(f"{path.parent}" for path in self.root.glob(f"*/{ABOUT}")))
            or "the disk",
        )

    def _start(self, key: FrameKey) -> int:
        table = -(-key.slots * _ENTRY // mmap.PAGESIZE) * mmap.PAGESIZE
        return table + key.slot * self.record_bytes

    def _file(self, key: FrameKey, *, create: bool) -> tuple[int, mmap.mmap] | None:
        """Descriptor and map of a sequence's file; None if it is not there."""
        if key.file in self._open:
            self._open.move_to_end(key.file)
            return self._open[key.file]
        path = self.folder / key.file
        length = self._start(key) + (key.slots - key.slot) * self.record_bytes
        if not path.exists():
            if not create:
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / ABOUT).exists():
                write_atomic(self.folder / ABOUT, json.dumps(self.about, indent=1) + "\n")
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as new:
                    new.truncate(length)  # sparse: takes no space before records are stored
                os.link(temporary, path)
            except FileExistsError:
                pass  # another process was first
            finally:
                temporary.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR if self.writable else os.O_RDONLY)
        size = os.fstat(file).st_size
        if size != length:
            os.close(file)
            raise ValueError(
                f"{path} has {size:,} bytes, expected {length:,}: it was cut or replaced; remove it"
            )
        view = mmap.mmap(file, length, access=mmap.ACCESS_READ)
        self._open[key.file] = (file, view)
        while len(self._open) > _MOST_OPEN:
            _, (old, old_view) = self._open.popitem(last=False)
            old_view.close()
            os.close(old)
        return file, view


class FeatureSource:
    """What a dataset asks for features in place of pictures; without a store it has none.

    Attributes:
        store: set when the network is known.
        pictures: frames are decoded although there are features: something else looks at them.
        until: first epoch from which on the network trains, so that nothing is read; None = never.
        epoch: the epoch that streamed (validation) frames are read in.
    """

    def __init__(self) -> None:
        self.store: FeatureStore | None = None
        self.pictures = False
        self.until: int | None = None
        self.epoch = 0

    def serves(self, epoch: int | None = None) -> bool:
        """Whether features stand for pictures in an epoch (None: the present one)."""
        if self.store is None:
            return False
        return self.until is None or (self.epoch if epoch is None else epoch) < self.until

    def look_up(
        self, sequence: Video, position: int, *, mirrored: bool
    ) -> tuple[FrameKey, Tensor | None]:
        """The key of a frame, and its record ``[R]`` float16 if it is there."""
        assert self.store is not None
        key = frame_key(sequence, position, mirrored=mirrored)
        return key, self.store.read(key)


def _checksum(data: np.ndarray, key: FrameKey) -> int:
    return zlib.crc32(data.data, key.image) or 1  # 0 means "not stored"


def _write_at(file: int, data: np.ndarray, start: int) -> None:
    view = data.data
    while len(view):
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
