"""Fixed-slot files: equal records at numbered places, filled by several processes without locks.

A slot is filled when the checksum in the table at the start of the file fits the slot's bytes. The
checksum is written last. Processes that fill the same slot write the same bytes. After a kill or a
crash in the middle the checksum does not fit, and the slot counts as empty.

The files are sparse: an empty slot takes no space.
"""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scene_track.io.atomic import naming

_ENTRY = 4  # bytes of a checksum in the table
_PAGE = 4096  # bytes to which the table is padded
# What link() answers where there are no hard links: FAT, some network and FUSE mounts.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class SlotFile:
    """An open slot file. The layout: table of checksums, padded to a page, then the records."""

    def __init__(self, path: Path, *, slots: int, record_bytes: int, writable: bool = True) -> None:
        """Opens an existing file; see :meth:`create`.

        Args:
            path: the file.
            slots: number of slots.
            record_bytes: size of every record.
            writable: False only reads.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file has another size.
        """
        self.path = path
        self.record_bytes = record_bytes
        self._records = _table_bytes(slots)
        self._file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        found, expected = os.fstat(self._file).st_size, self._records + slots * record_bytes
        if found != expected:
            self.close()
            raise ValueError(
                f"{path} has {found:,} bytes, expected {expected:,}: it was cut or replaced; "
                "remove it"
            )

    @staticmethod
    def create(path: Path, *, slots: int, record_bytes: int) -> bool:
        """Makes an empty file unless there is one; the folder must exist.

        Returns:
            Whether this call made it.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with naming(path), temporary.open("wb") as new:
                new.truncate(_table_bytes(slots) + slots * record_bytes)
            return _rename_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, slot: int, *, salt: int = 0) -> NDArray[np.uint8] | None:
        """A copy of a record, or None if the slot is empty.

        Args:
            slot: from 0.
            salt: as given to :meth:`write`; a record that was written with another is not read.
        """
        data = np.empty(self.record_bytes, np.uint8)
        with naming(self.path):
            stored = int.from_bytes(os.pread(self._file, _ENTRY, slot * _ENTRY), "little")
            if not stored:
                return None
            found = os.preadv(self._file, [data.data], self._records + slot * self.record_bytes)
        return data if found == data.size and _checksum(data, salt) == stored else None

    def write(self, slot: int, data: NDArray[np.uint8], *, salt: int = 0) -> None:
        """Fills a slot.

        Args:
            slot: from 0.
            data: ``[record_bytes]``, contiguous.
            salt: 32-bit number that goes into the checksum.

        Raises:
            OSError: the file cannot be written, for example on a full disk.
        """
        checksum = _checksum(data, salt).to_bytes(_ENTRY, "little")
        with naming(self.path):
            _write_at(self._file, data, self._records + slot * self.record_bytes)
            _write_at(self._file, np.frombuffer(checksum, np.uint8), slot * _ENTRY)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()


def _rename_new(temporary: Path, path: Path) -> bool:
    """Gives a file its name unless another process was first; whether it did.

    A link refuses to replace a file, a rename does not. Without links two processes may both
    succeed: what the slower one's predecessor has filled by then is lost, and filled again.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def _table_bytes(slots: int) -> int:
    return -(-slots * _ENTRY // _PAGE) * _PAGE


def _checksum(data: NDArray[np.uint8], salt: int) -> int:
    return zlib.crc32(data.data, salt) or 1  # 0 means an empty slot


def _write_at(file: int, data: NDArray[np.uint8], start: int) -> None:
    view = data.data
    while len(view):
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
