"""The record of each trial of a sweep: ``trial.json`` in the trial's folder.

The files are the only state of a grid, and all that the report reads. They are not kept in an
Optuna study, because SQLite does not lock reliably on network file systems, and a process on a
cluster's node may not reach the database. Whoever runs a trial, or has it waiting for its launcher,
touches the record every ``BEAT_S`` seconds. On this machine a dead process is known by its ID;
on another one by a record that nobody has touched for ``SILENT_S`` seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from scene_track.io.atomic import write_atomic

log = logging.getLogger(__name__)

RECORD = "trial.json"
BEAT_S = 10.0
SILENT_S = 120.0

State = Literal["waiting", "running", "complete", "stopped", "failed"]
Fault = Literal["mistake", "error", "died"]
DONE = ("complete", "stopped")
UNFINISHED = ("waiting", "running")
GONE = "its process is gone (killed, out of memory, or the machine went down)"


@dataclass(frozen=True)
class Process:
    """A process; ``started`` tells it from a later one with the same ID."""

    host: str
    pid: int
    started: int | None = None

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
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
    """Start of a process in clock ticks; -1 for a zombie; None without ``/proc``."""
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
        state: ``stopped`` is a trial that the median rule ended early; it has an objective.
        overrides: of the job, as they are typed.
        params: those of them that the sweep varies, by key.
        objective: best value of the monitor; None without one.
        reason: why it failed or was stopped.
        fault: of a failed trial: a user's ``mistake``, an ``error``, or ``died`` (process gone).
        process: the one that runs the trial, or has it waiting.
        started: seconds since 1970; None before the start.
        wall_s: duration in seconds.
        command: the shell command that trains this trial alone.
        study: number of the trial in the Optuna study; None in a grid.
    """

    number: int
    state: State
    overrides: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    objective: float | None = None
    reason: str | None = None
    fault: Fault | None = None
    process: Process | None = None
    started: float | None = None
    wall_s: float | None = None
    command: str | None = None
    study: int | None = None

    def failed(self, reason: str, fault: Fault) -> Trial:
        """The trial as a failed one."""
        return replace(self, state="failed", objective=None, reason=reason, fault=fault)


def write(folder: Path, trial: Trial) -> None:
    """Write a trial's record."""
    content = json.dumps(asdict(trial), indent=1, allow_nan=False)
    write_atomic(folder / RECORD, content + "\n")


def read(folder: Path) -> Trial | None:
    """The record in a folder; None if there is none.

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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; only one process at a time claims, starts or gives up trials."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(
    sweep: Path, overrides: Sequence[str], params: Mapping[str, str], study: int | None = None
) -> Path:
    """Make the folder of a trial that this process is about to launch; needs the sweep's lock."""
    numbers = [int(entry.name) for entry in sweep.iterdir() if entry.name.isdigit()]
    number = max(numbers, default=-1) + 1
    folder = sweep / str(number)
    folder.mkdir()
    mine = Process.this()
    write(folder, Trial(number, "waiting", tuple(overrides), params, process=mine, study=study))
    return folder


def start(folder: Path, command: str) -> Trial | None:
    """Record that this process runs a trial; None if it was given up or started before."""
    with locked(folder.parent):
        trial = read(folder)
        if trial is None or trial.state != "waiting":
            return None
        mine, now = Process.this(), round(time.time(), 3)
        trial = replace(trial, state="running", process=mine, started=now, command=command)
        write(folder, trial)
        return trial


def touch(folder: Path) -> None:
    """Give a sign of life of a trial."""
    with contextlib.suppress(OSError):  # removed, or a file server that does not answer
        os.utime(folder / RECORD)


@contextlib.contextmanager
def kept_waiting(folders: Sequence[Path], also: Callable[[], object]) -> Iterator[None]:
    """Touch the records of trials while they wait, such as in a queue; call ``also`` each time."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            for folder in folders:
                trial = read(folder)
                if trial is not None and trial.state == "waiting":  # then its runner touches it
                    touch(folder)
            also()

    thread = threading.Thread(target=beat, name="waiting trials", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_dead(folder: Path, trial: Trial) -> bool:
    """Whether the process of an unfinished trial is gone."""
    if trial.state not in UNFINISHED:
        return False
    alive = None if trial.process is None else trial.process.alive()
    return time.time() - _touched(folder) > SILENT_S if alive is None else not alive


def _touched(folder: Path) -> float:
    """When a record was touched last, in seconds since 1970; now if it has been removed."""
    try:
        return (folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return time.time()


def unsure(sweep: Path) -> dict[Path, float]:
    """Unfinished trials of other machines, with the time of their last sign of life."""
    trials = {f: t for f, t in read_all(sweep).items() if t.state in UNFINISHED}
    far = [f for f, t in trials.items() if t.process is None or t.process.alive() is None]
    return {folder: _touched(folder) for folder in far if not is_dead(folder, trials[folder])}


def bury(sweep: Path) -> list[Trial]:
    """Record dead trials as failed, and return them."""
    dead = {folder: t for folder, t in read_all(sweep).items() if is_dead(folder, t)}
    for folder, trial in dead.items():
        give_up(folder, trial, GONE)
        log.info("trial %d: %s", trial.number, GONE)
    return list(dead.values())


def give_up(folder: Path, seen: Trial, reason: str) -> None:
    """Record a trial as died, unless its record has changed since it was ``seen``."""
    with locked(folder.parent):
        if read(folder) == seen:
            end = _touched(folder)
            wall_s = round(end - (seen.started or end), 1)
            write(folder, replace(seen.failed(reason, "died"), wall_s=wall_s))
