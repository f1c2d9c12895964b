"""What a sweep knows of its trials: one ``trial.json`` in each trial's folder, nothing else.

Special here: the files are all there is. A sweep that was killed, one on another machine and the
report read the same records, so nothing depends on a process that still lives. Whoever runs a
trial, or has it waiting, touches its record as long as he lives; who has gone is known by his
process where it can be seen from here, else by the age of the record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from scene_track.io.atomic import write_atomic

RECORD = "trial.json"
_LOCK = ".lock"
_STARTED = ".started"
BEAT_S = 10.0  # seconds between two signs of life of a trial that is running or waiting
SILENT_S = 120.0  # seconds without one after which a trial on another machine counts as dead

State = Literal["waiting", "running", "complete", "stopped", "failed"]
DONE = ("complete", "stopped")
UNFINISHED = ("waiting", "running")
GONE = "its process is gone (killed, out of memory, or the machine went down)"


@dataclass(frozen=True)
class Process:
    """A process, so described that another one with its number is not taken for it.

    Attributes:
        host: name of the machine.
        pid: number of the process there.
        started: start in the kernel's count; None where there is no ``/proc``.
    """

    host: str
    pid: int
    started: int | None = None

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()))

    def alive(self) -> bool | None:
        """Whether it still runs; None if it is on another machine."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started == _start_of(self.pid)


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None if it cannot be known.

    A process that has ended and that nobody has waited for counts as gone.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = text.rpartition(")")[2].split()  # a name may hold spaces and brackets
    return -1 if after_name[0] in "ZX" else int(after_name[19])


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        number: of the trial in its sweep's folder.
        state: ``waiting`` to be started, ``running``, ``complete``, ``stopped`` (early, by the
            median rule; it has an objective), ``failed``.
        overrides: the job's overrides, as they are typed.
        params: those of them that the sweep varies, by key.
        objective: best value of the monitor; None without one.
        reason: why it failed or was stopped.
        fault: what a failure was: a ``mistake`` of a person, an ``error`` of the trial, or that it
            ``died`` with its process; None otherwise.
        process: who runs it, or has it waiting.
        started: seconds since 1970; None before the start.
        wall_s: seconds that it took.
        command: what trains this trial alone, to be typed into a shell.
        study: number of the trial in the study; None in a grid.
    """

    number: int
    state: State
    overrides: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    objective: float | None = None
    reason: str | None = None
    fault: Literal["mistake", "error", "died"] | None = None
    process: Process | None = None
    started: float | None = None
    wall_s: float | None = None
    command: str | None = None
    study: int | None = None

    def failed(self, reason: str, fault: Literal["mistake", "error", "died"]) -> Trial:
        """The trial as a failed one."""
        return replace(self, state="failed", objective=None, reason=reason, fault=fault)


def write(folder: Path, trial: Trial) -> None:
    """Record a trial in its folder."""
    content = json.dumps(asdict(trial), indent=1, allow_nan=False)
    write_atomic(folder / RECORD, content + "\n")


def read(folder: Path) -> Trial | None:
    """The trial that a folder holds; None if it holds none.

    Raises:
        ValueError: the record cannot be read.
    """
    file = folder / RECORD
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {item.name for item in fields(Trial)}
        values = {name: value for name, value in content.items() if name in known}
        values["overrides"] = tuple(values["overrides"])
        if values.get("process") is not None:
            values["process"] = Process(**values["process"])
        return Trial(**values)
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no record of a trial ({error}): remove the folder") from error


def read_all(sweep: Path) -> dict[Path, Trial]:
    """All trials of a sweep by folder, in the order of their numbers."""
    found = {file.parent: read(file.parent) for file in sweep.glob(f"*/{RECORD}")}
    trials = {folder: trial for folder, trial in found.items() if trial is not None}
    return dict(sorted(trials.items(), key=lambda pair: pair[1].number))


def touch(folder: Path) -> None:
    """A sign of life of a trial."""
    os.utime(folder / RECORD)


@contextlib.contextmanager
def kept_waiting(folders: Sequence[Path]) -> Iterator[None]:
    """Give signs of life of trials that wait to be started, such as in a cluster's queue."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            for folder in folders:
                with contextlib.suppress(OSError):  # withdrawn, or a file server that hesitates
                    if not (folder / _STARTED).exists():  # from then on it speaks for itself
                        touch(folder)

    thread = threading.Thread(target=beat, name="waiting trials", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_dead(folder: Path, trial: Trial) -> bool:
    """Whether a trial that is recorded as waiting or running has nobody any more who runs it."""
    if trial.state not in UNFINISHED:
        return False
    if trial.state == "waiting" and _silent(folder / _STARTED):
        return True  # killed between its start and its first record: that names who had it waiting
    alive = None if trial.process is None else trial.process.alive()
    if alive is not None:
        return not alive
    return _silent(folder / RECORD)


def _silent(file: Path) -> bool:
    """Whether a file is so old that its writer counts as dead; no if there is none."""
    try:
        return time.time() - file.stat().st_mtime > SILENT_S
    except FileNotFoundError:
        return False


def unsure(sweep: Path) -> dict[Path, float]:
    """Trials of machines that cannot be asked, not silent for long enough to count as dead.

    Returns:
        By folder, when each gave its last sign of life, in seconds since 1970.
    """
    found: dict[Path, float] = {}
    for folder, trial in read_all(sweep).items():
        if trial.state in UNFINISHED and (trial.process is None or trial.process.alive() is None):
            with contextlib.suppress(FileNotFoundError):
                if not is_dead(folder, trial):
                    found[folder] = (folder / RECORD).stat().st_mtime
    return found


def bury(sweep: Path) -> dict[Path, Trial]:
    """Record as failed what died; what was never started loses its folder.

    A study's trial keeps it: the study must hear what became of the trial.

    Returns:
        All trials, as they are recorded now.
    """
    trials = read_all(sweep)
    for folder, trial in list(trials.items()):
        if not is_dead(folder, trial):
            continue
        if trial.state == "waiting" and trial.study is None and withdraw(folder):
            del trials[folder]
        elif (dead := _buried(folder, trial)) is not None:
            write(folder, dead)
            trials[folder] = dead
    return trials


def _buried(folder: Path, trial: Trial) -> Trial | None:
    """The record of a dead trial, which cannot start any more; None if it did at this moment."""
    if trial.state == "waiting" and not start(folder) and not _silent(folder / _STARTED):
        return None
    beat = (folder / RECORD).stat().st_mtime
    started = trial.started or beat
    return replace(trial.failed(GONE, "died"), wall_s=round(beat - started, 1))


@contextlib.contextmanager
def locked(sweep: Path) -> Iterator[None]:
    """Only one process at a time decides what a sweep does next."""
    sweep.mkdir(parents=True, exist_ok=True)
    with (sweep / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(
    sweep: Path, overrides: Sequence[str], params: Mapping[str, str], study: int | None = None
) -> Path:
    """Make a folder for a trial that is about to be launched; it is this process's.

    Args:
        sweep: the sweep's folder.
        overrides: the job's overrides.
        params: those that the sweep varies.
        study: number of the trial in the study.

    Returns:
        The folder, named by the trial's number.
    """
    numbers = [int(entry.name) for entry in sweep.iterdir() if entry.name.isdigit()]
    number = max(numbers, default=-1) + 1
    while True:
        folder = sweep / str(number)
        try:
            folder.mkdir()
            break
        except FileExistsError:  # another process was faster
            number += 1
    waiting = Trial(
        number=number,
        state="waiting",
        overrides=tuple(overrides),
        params=dict(params),
        process=Process.this(),
        study=study,
    )
    write(folder, waiting)
    return folder


def start(folder: Path) -> bool:
    """Whether a trial may start now: true once, whoever asks."""
    try:
        os.close(os.open(folder / _STARTED, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def withdraw(folder: Path) -> bool:
    """Give a waiting trial up; False if it has been started meanwhile.

    A cluster may start it yet: without its record it refuses.
    """
    if not start(folder):
        return False
    for name in (_STARTED, RECORD):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a log file may lie there
        folder.rmdir()
    return True
