"""Fixed-slot files: equal records at numbered places, filled by several processes without locks.

A slot is filled when the checksum in the table at the start of the file fits the slot's bytes. The
checksum is written last. Processes that fill the same slot write the same bytes. After a kill or a
crash in the middle the checksum does not fit, and the slot counts as empty.

The files are sparse: an empty slot takes no space.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ENTRY = 4  # bytes of a checksum in the table


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
        self.record_bytes = record_bytes
        self._records = _table_bytes(slots)
        self._file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        found, expected = os.fstat(self._file).st_size, self._records + slots * record_bytes
        if found != expected:
            os.close(self._file)
            raise ValueError(
                f"{path} has {found:,} bytes, expected {expected:,}: it was cut or replaced; "
                "remove it"
            )
        self._view = mmap.mmap(self._file, expected, access=mmap.ACCESS_READ)

    @staticmethod
    def create(path: Path, *, slots: int, record_bytes: int) -> bool:
        """Makes an empty file unless there is one; the folder must exist.

        Returns:
            Whether this call made it.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as new:
                new.truncate(_table_bytes(slots) + slots * record_bytes)
            os.link(temporary, path)
        except FileExistsError:  # another process was first
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def read(self, slot: int, *, salt: int = 0) -> NDArray[np.uint8] | None:
        """A copy of a record, or None if the slot is empty.

        Args:
            slot: from 0.
            salt: as given to :meth:`write`; a record that was written with another is not read.
        """
        entry = self._view[slot * _ENTRY : (slot + 1) * _ENTRY]
        stored = int.from_bytes(entry, "little")
        if not stored:
            return None
        start = self._records + slot * self.record_bytes
        # Copied before the check: another process may write at the same time.
        data = np.array(np.frombuffer(self._view, np.uint8, self.record_bytes, start))
        return data if _checksum(data, salt) == stored else None

    def write(self, slot: int, data: NDArray[np.uint8], *, salt: int = 0) -> None:
        """Fills a slot.

        Args:
            slot: from 0.
            data: ``[record_bytes]``, contiguous.
            salt: 32-bit number that goes into the checksum.

        Raises:
            OSError: the file cannot be written, for example on a full disk.
        """
        _write_at(self._file, data, self._records + slot * self.record_bytes)
        checksum = _checksum(data, salt).to_bytes(_ENTRY, "little")
        _write_at(self._file, np.frombuffer(checksum, np.uint8), slot * _ENTRY)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if not self._view.closed:
            self._view.close()
            os.close(self._file)

    def __del__(self) -> None:
        if hasattr(self, "_view"):
            self.close()


def _table_bytes(slots: int) -> int:
    return -(-slots * _ENTRY // mmap.PAGESIZE) * mmap.PAGESIZE


def _checksum(data: NDArray[np.uint8], salt: int) -> int:
    return zlib.crc32(data.data, salt) or 1  # 0 means an empty slot


def _write_at(file: int, data: NDArray[np.uint8], start: int) -> None:
    view = data.data
    while len(view):
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
