"""Atomic file writes: a reader sees the old file or the complete new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 50  # characters of a name in its temporary name, which may have 255 bytes


def is_full(error: OSError) -> bool:
    """Whether a disk is full: no space, no quota, or no room for a file of this size."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Adds the file's name to an ``OSError`` without one: a failed write does not say which file.

    Raises:
        OSError: the same error, with ``filename``.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextlib.contextmanager
def held(folder: Path | str, key: str) -> Iterator[None]:
    """Keeps a folder for one run: the lock goes with the process, however that ends.

    File systems without locks keep nobody out. A missing folder is created; if it is empty at the
    end it is removed.

    Args:
        folder: where the run writes.
        key: of the command line, that names another folder.

    Raises:
        ValueError: another run holds it.
    """
    folder, new = Path(folder), not os.path.exists(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not os.path.samestat(os.fstat(descriptor), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            taken = True
        except OSError:
            taken = False
        if taken:  # or removed meanwhile by the run that held it
            raise ValueError(
                f"{folder} is held by another run: wait until it has ended, or type {key}=FOLDER"
            )
        try:
            yield
        finally:
            if new:
                with contextlib.suppress(OSError):  # it holds something
                    folder.rmdir()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that replaces it on success.

    The temporary file lies in the same folder (a rename across file systems is a copy) and is
    flushed to the disk before the rename, so that a crash of the machine does not leave an empty
    file. It is removed on errors. A missing folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:_LONGEST]}."
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        with contextlib.suppress(PermissionError):  # file systems without modes refuse
            temporary.chmod(0o666 & ~mask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str, *, keep: bool = False) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that replaces it on success, and is removed on errors.

    Of a folder that was there nothing is left; it is there until the new one is complete. With
    ``keep`` a folder that somebody else completed meanwhile stays, and the new one is removed.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as content:
                os.fsync(content.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if keep and path.exists():
            return
        if path.exists():
            # A folder cannot be replaced in one step: the old one steps aside for a moment.
            old = temporary.with_suffix(".old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically, with newlines as they are.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f"{file.parent}: no such folder, create it before writing {file.name}"
        )
    with atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
