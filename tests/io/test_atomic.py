"""Atomic writes: the old file or the complete new one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from scene_track.io.atomic import atomic_path, held, write_atomic


def test_the_file_is_complete_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch):
    events: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(f"flush {os.fstat(fd).st_size}"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path, "a rename across file systems would be a copy"
        temporary.write_text("hello")
    assert events == ["flush 5", "rename"]
    assert (tmp_path / "a.txt").read_text() == "hello"


def test_files_are_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_text_is_written_as_it_is_into_a_folder_that_exists(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomic(tmp_path / "missing" / "a", "")


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    again = pytest.raises(ValueError, match="output=FOLDER")
    with held(folder, "output"), again, held(folder, "output"):
        pass
    assert not folder.exists(), "an empty folder that was made for it is left behind"
    with held(folder, "output"):
        assert not any(folder.iterdir()), "a file is left behind"
        (folder / "result").touch()
    assert (folder / "result").is_file()


def test_a_folder_that_its_holder_removed_meanwhile_is_not_held(tmp_path: Path, monkeypatch):
    def lock(descriptor: int, _: int) -> None:
        (tmp_path / "run").rmdir()  # between opening and locking

    monkeypatch.setattr(fcntl, "flock", lock)
    with pytest.raises(ValueError, match="held"), held(tmp_path / "run", "output"):
        pass
