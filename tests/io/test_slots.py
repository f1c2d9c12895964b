"""Slot files: what is read was written whole, whoever writes or is killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from scene_track.io import slots
from scene_track.io.slots import SlotFile

SHAPE = {"slots": 6, "record_bytes": 6000}


def record(value: int) -> np.ndarray:
    """A record that shows by itself whether it is torn."""
    return np.full(SHAPE["record_bytes"], value, dtype=np.uint8)


def opened(path: Path, **options: bool) -> SlotFile:
    SlotFile.create(path, **SHAPE)
    return SlotFile(path, **SHAPE, **options)


def test_a_record_is_read_as_a_copy_and_by_its_salt(tmp_path: Path) -> None:
    file = opened(tmp_path / "file")
    assert not SlotFile.create(tmp_path / "file", **SHAPE), "made once"
    assert [file.read(slot) for slot in range(6)] == [None] * 6
    file.write(5, record(7), salt=3)
    for other in (file, opened(tmp_path / "file", writable=False)):
        found = other.read(5, salt=3)
        assert found is not None and (found == 7).all()
        found[:] = 0
        assert (other.read(5, salt=3) == record(7)).all()
        assert other.read(5, salt=4) is None and other.read(4, salt=3) is None
    file.close()
    file.close()


@pytest.mark.parametrize("torn", ["data without checksum", "checksum without data", "half"])
def test_a_torn_record_is_not_read(
    tmp_path: Path, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order in which a crash of the machine may have let the parts reach the disk."""
    write, calls = slots._write_at, iter(range(2))

    def partly(file: int, data: np.ndarray, start: int) -> None:
        number = next(calls)
        if torn == "half" and number == 0:
            write(file, data[: len(data) // 2], start)
        elif number == {"data without checksum": 0, "checksum without data": 1, "half": 1}[torn]:
            write(file, data, start)

    file = opened(tmp_path / "file")
    monkeypatch.setattr(slots, "_write_at", partly)
    file.write(2, record(5))
    monkeypatch.setattr(slots, "_write_at", write)
    assert file.read(2) is None
    file.write(2, record(6))
    assert (opened(tmp_path / "file").read(2) == record(6)).all()


def _write_for_ever(path: Path, value: int) -> None:
    while True:
        if value % 3 == 0:
            path.unlink(missing_ok=True)
        file = opened(path)
        for _ in range(20):
            for slot in range(SHAPE["slots"]):
                file.write(slot, record(value))


def test_several_writers_and_kills_tear_nothing(tmp_path: Path) -> None:
    """Processes write different records to the same slots and are killed at any moment."""
    context = multiprocessing.get_context("fork")
    path, found = tmp_path / "file", 0
    for attempt in range(4):
        reader = opened(path)
        writers = [
            context.Process(target=_write_for_ever, args=(path, 10 * attempt + n + 1))
            for n in range(2)
        ]
        for writer in writers:
            writer.start()
        end = time.monotonic() + 0.1 + 0.017 * attempt
        while time.monotonic() < end:
            for slot in range(SHAPE["slots"]):
                seen = reader.read(slot)
                assert seen is None or len(np.unique(seen)) == 1
                found += seen is not None
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join(30)
        file = opened(path)
        for slot in range(SHAPE["slots"]):
            seen = file.read(slot)
            assert seen is None or len(np.unique(seen)) == 1
    assert found > 0
    file = opened(path)
    for slot in range(SHAPE["slots"]):  # a slot that a kill left torn can be filled again
        file.write(slot, record(99))
        assert (opened(path).read(slot) == record(99)).all()


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    opened(path)
    os.truncate(path, 100)
    with pytest.raises(ValueError, match=rf"{path} has 100 bytes, expected .* remove it"):
        opened(path)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert SlotFile.create(tmp_path / "a", slots=2, record_bytes=4)
    file = SlotFile(tmp_path / "a", slots=2, record_bytes=4)
    file.write(1, np.arange(4, dtype=np.uint8))
    assert not SlotFile.create(tmp_path / "a", slots=2, record_bytes=4), "a file that is there"
    assert file.read(1) is not None
    assert os.listdir(tmp_path) == ["a"]
