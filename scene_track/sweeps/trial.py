"""One trial of a sweep: a training run in a process of its own, which somebody watches.

Special here: whatever becomes of the process (an error, ``os._exit``, the kernel's killer of what
uses too much memory), the sweep and its other trials go on, and the record says what happened. The
process is given the job's overrides on its command line, as if a person had typed them, so that it
can start further processes of the same run (DDP), and so that the recorded command is the one that
ran. If its watcher is gone, it ends too: nobody trains on unseen.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

from scene_track.io.atomic import write_atomic
from scene_track.sweeps import records
from scene_track.sweeps.records import Process, Trial

log = logging.getLogger(__name__)

OUTPUT = "output.log"
STOPPED = "stopped_early.json"
_OUTCOME = "SCENE_TRACK_OUTCOME"  # file for the objective, or for what went wrong
_LIFELINE = "SCENE_TRACK_LIFELINE"  # a pipe's end that is closed when the watcher is gone
_PLACE = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "RANK",
          "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")  # fmt: skip
_GRACE_S = 30.0  # between asking a trial to stop and making it
# Of Hydra's own options, those that say how the jobs of a sweep are run say nothing of one of them.
_NOT_OF_A_JOB = ("hydra.mode", "hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep",
                 "hydra.run", "hydra.output_subdir", "hydra.job.num", "hydra.job.id")  # fmt: skip


class TrialFailed(Exception):
    """A trial came to nothing; its record says why."""

    def __init__(self, reason: str, fault: Literal["mistake", "error", "died"]) -> None:
        """Store what the record says.

        Args:
            reason: in one line.
            fault: whose.
        """
        super().__init__(reason)
        self.reason, self.fault = reason, fault

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.fault)


@dataclass(frozen=True)
class Program:
    """How an entry point is started again.

    Attributes:
        words: after the interpreter, such as ``-m scene_track.train``.
        flags: of Hydra, such as ``--config-name``, with their values.
        cwd: folder that it was started in.
    """

    words: tuple[str, ...]
    flags: tuple[str, ...]
    cwd: str

    def reproduce(self, overrides: Sequence[str]) -> str:
        """The line that trains one trial alone, in a folder of its own, for a shell."""
        single = () if "hydra.mode=RUN" in overrides else ("hydra.mode=RUN",)
        return shlex.join(["python", *self.words, *self.flags, *overrides, *single])


def of_a_job(hydra_overrides: Sequence[str]) -> list[str]:
    """Those of the typed options of Hydra that are about a job, not about the sweep."""
    return [o for o in hydra_overrides if not o.lstrip("+~").startswith(_NOT_OF_A_JOB)]


def quoted(value: str | os.PathLike[str]) -> str:
    """A path as the value of an override, whatever characters are in it."""
    text = os.fspath(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def run_trial(
    program: Program, overrides: Sequence[str], hydra_overrides: Sequence[str], folder: Path
) -> float | None:
    """Train one trial in a process of its own and record it.

    Args:
        program: the entry point.
        overrides: of the job.
        hydra_overrides: options of Hydra, those about the sweep among them.
        folder: of the trial, inside the sweep's folder; holds its record, or nothing.

    Returns:
        The objective.

    Raises:
        TrialFailed: there is none; says why.
    """
    sweep = folder.parent
    trial = _begin(program, overrides, hydra_overrides, folder)
    command = [
        *(sys.executable, *program.words, *program.flags, *of_a_job(hydra_overrides), *overrides),
        *("hydra.mode=RUN", f"hydra.run.dir={quoted(folder)}", f"hydra.sweep.dir={quoted(sweep)}"),
    ]
    name = f"[{folder.name}] "
    print(f"{name}{trial.command}", flush=True)
    before = time.monotonic()
    try:
        trial = _outcome(trial, folder, _watch(command, program.cwd, folder, name))
    except BaseException as error:
        stops = {KeyboardInterrupt: "stopped by Ctrl-C", SystemExit: "stopped by SIGTERM"}
        trial = trial.failed(stops.get(type(error), f"{type(error).__name__}: {error}"), "died")
        raise
    finally:
        trial = replace(trial, wall_s=round(time.monotonic() - before, 3))
        records.write(folder, trial)
    if trial.state == "failed":
        assert trial.reason is not None and trial.fault is not None
        print(f"{name}failed: {trial.reason}", file=sys.stderr, flush=True)
        raise TrialFailed(trial.reason, trial.fault)
    told = f"{name}{trial.state}" + (f", {trial.reason}" if trial.reason else "")
    print(told + (f": {trial.objective:.4f}" if trial.objective is not None else ""), flush=True)
    return trial.objective


def _begin(
    program: Program, overrides: Sequence[str], hydra_overrides: Sequence[str], folder: Path
) -> Trial:
    """Record that a trial runs.

    Raises:
        TrialFailed: it has been given up, or somebody else runs it.
    """
    trial = records.read(folder)
    if trial is None and any(o.startswith("hydra.sweep.subdir=") for o in hydra_overrides):
        raise TrialFailed(f"{folder} was given up before it started", "died")
    if trial is None:  # a sweeper that knows nothing of trials launched it
        trial = Trial(len(records.read_all(folder.parent)), "waiting", tuple(overrides))
    if not records.start(folder):
        raise TrialFailed(f"{folder} is another process's", "died")
    trial = replace(
        trial,
        state="running",
        process=Process.this(),
        started=round(time.time(), 3),
        command=program.reproduce([*of_a_job(hydra_overrides), *overrides]),
    )
    records.write(folder, trial)
    return trial


# --- the watcher ---------------------------------------------------------------------------------


def _watch(command: Sequence[str], cwd: str, folder: Path, name: str) -> int:
    """Run a command to its end, whatever that is, and give its exit code."""
    ear, mouth = os.pipe()
    environment = {
        # The watcher's place in a cluster's job is not the trial's: it starts its own processes.
        **{name: value for name, value in os.environ.items() if name not in _PLACE},
        _OUTCOME: str(folder / ".outcome.json"),
        _LIFELINE: str(ear),
        "PYTHONUNBUFFERED": "1",
    }
    try:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(ear,),
            start_new_session=True,  # so that all its processes can be ended together
        )
        os.close(ear)
        assert child.stdout is not None
        pump = threading.Thread(
            target=_pass_on, args=(child.stdout, folder / OUTPUT, name), daemon=True
        )
        pump.start()
        with _signals_to(child):
            while True:
                try:
                    child.wait(records.BEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(FileNotFoundError):
                        records.touch(folder)
        _end_group(child.pid)
        pump.join(timeout=10)
        return child.returncode
    finally:
        os.close(mouth)


def _pass_on(stream: IO[bytes], file: Path, name: str) -> None:
    """Copy what a trial prints to its file and, with its name in front, to ours."""
    with file.open("ab") as copy:
        for line in stream:
            copy.write(line)
            copy.flush()
            with contextlib.suppress(ValueError, OSError):  # nobody reads us any more
                print(f"{name}{line.decode(errors='replace').rstrip()}", flush=True)


@contextlib.contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM on to a child, wait for its end, then answer them ourselves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    patience = threading.Timer(_GRACE_S, _end_group, (child.pid,))
    patience.daemon = True

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            _end_group(child.pid)
        else:
            patience.start()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    before = {n: signal.signal(n, hand_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        patience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        if received[0] == signal.SIGTERM:
            raise SystemExit(143)
        raise KeyboardInterrupt


def _end_group(leader: int) -> None:
    """End whatever a trial has left running."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _outcome(trial: Trial, folder: Path, code: int) -> Trial:
    """What became of a trial, from its exit code and what it left."""
    file = folder / ".outcome.json"
    try:
        left: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        left = {}
    file.unlink(missing_ok=True)
    if "error" in left:
        return trial.failed(left["error"], left["fault"])
    if code != 0:
        return trial.failed(f"{_ended_by(code)}; the end of its output: {_tail(folder)}", "error")
    objective = left.get("objective")
    if objective is None or not math.isfinite(objective):
        return trial.failed(f"its objective is {objective}, not a finite number", "error")
    trial = replace(trial, state="complete", objective=float(objective))
    with contextlib.suppress(FileNotFoundError):
        stopped = json.loads((folder / STOPPED).read_text(encoding="utf-8"))
        trial = replace(trial, state="stopped", reason=stopped["reason"])
    return trial


def _ended_by(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"its process ended with code {code}"
    hint = " (the kernel does that when memory runs out)" if -code == signal.SIGKILL else ""
    with contextlib.suppress(ValueError):
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    return f"its process was ended by signal {-code}"


def _tail(folder: Path) -> str:
    """The last line that a trial printed."""
    try:
        lines = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return "nothing"
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")


# --- the trial's side ----------------------------------------------------------------------------


def hold_lifeline() -> None:
    """End this process and those that it started when its watcher is gone; once, at the start."""
    end = os.environ.pop(_LIFELINE, None)  # processes that it starts do not hold it
    if end is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(int(end), 1)  # returns when the other end is closed, which is never written to
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def leave_outcome(**outcome: Any) -> None:
    """Tell the watcher the objective, or what went wrong; nothing where nobody watches.

    Args:
        **outcome: ``objective``, or ``error`` and ``fault``.
    """
    file = os.environ.get(_OUTCOME)
    first = all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))
    if file is not None and first:  # of several processes of a run one speaks
        write_atomic(file, json.dumps(outcome))


def is_trial() -> bool:
    """Whether this process is a trial of a sweep."""
    return _OUTCOME in os.environ
