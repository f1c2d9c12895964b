"""One trial of a sweep: a training run in its own process, and the process that watches it.

Whatever happens to the run (an exception, ``os._exit``, the kernel's out-of-memory killer), the
watcher records it and the sweep goes on. The run gets the job's overrides on its command line, so
that DDP can start further processes of the same run, and so that the recorded command is the one
that ran. When the watcher is gone, the run ends too. Hydra's launchers run jobs in their own
process, where a crash ends the sweep and DDP would start the sweep's command line again.
"""

from __future__ import annotations

import contextlib
import json
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
from typing import IO, Any

from scene_track.io.atomic import write_atomic
from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

OUTPUT = "output.log"
STOPPED = "stopped_early.json"
_OUTCOME = "SCENE_TRACK_OUTCOME"  # path of the file for the objective, or for the error
_LIFELINE = "SCENE_TRACK_LIFELINE"  # a pipe's read end; the write end closes with the watcher
_PLACE = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "RANK",
          "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")  # fmt: skip
_GRACE_S = 30.0  # between passing a signal on and SIGKILL
# Hydra options that describe the sweep, not one of its jobs.
_NOT_OF_A_JOB = ("hydra.mode", "hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep",
                 "hydra.run", "hydra.output_subdir", "hydra.job.num", "hydra.job.id")  # fmt: skip


class TrialFailed(Exception):
    """A trial failed; the message is the reason in its record."""


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
        """The shell command that trains one trial alone, in a folder of its own."""
        single = () if "hydra.mode=RUN" in overrides else ("hydra.mode=RUN",)
        return shlex.join(["python", *self.words, *self.flags, *overrides, *single])


def quoted(value: str | os.PathLike[str]) -> str:
    """A path as the value of an override, whatever characters it has."""
    text = os.fspath(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def run_trial(
    program: Program, overrides: Sequence[str], hydra_overrides: Sequence[str], folder: Path
) -> float | None:
    """Train one trial in a process of its own and record it."""
    sweep, name = folder.parent, f"[{folder.name}] "
    job = [o for o in hydra_overrides if not o.lstrip("+~").startswith(_NOT_OF_A_JOB)]
    claimed = any(o.startswith("hydra.sweep.subdir=") for o in hydra_overrides)
    if not claimed and records.read(folder) is None:  # launched by a sweeper of another package
        records.write(folder, Trial(len(records.read_all(sweep)), "waiting", tuple(overrides)))
    trial = records.start(folder, program.reproduce([*job, *overrides]))
    if trial is None:
        raise TrialFailed(f"{folder} was given up, or another process has started it")
    command = [
        *(sys.executable, *program.words, *program.flags, *job, *overrides),
        *("hydra.mode=RUN", f"hydra.run.dir={quoted(folder)}", f"hydra.sweep.dir={quoted(sweep)}"),
    ]
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
        print(f"{name}failed: {trial.reason}", file=sys.stderr, flush=True)
        raise TrialFailed(trial.reason)
    reason = f", {trial.reason}" if trial.reason else ""
    print(f"{name}{trial.state}{reason}: {trial.objective:.4f}", flush=True)
    return trial.objective


# --- the watcher


def _watch(command: Sequence[str], cwd: str, folder: Path, name: str) -> int:
    """Run a command to its end and return its exit code."""
    ear, mouth = os.pipe()
    environment = {
        # The watcher's rank in a cluster's job is not the trial's, which starts its own ranks.
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
        try:
            with _sigterm_raises():
                while child.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(records.BEAT_S)
                    records.touch(folder)
        except BaseException as error:  # a second signal ends the wait
            child.send_signal(signal.SIGTERM if isinstance(error, SystemExit) else signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
            raise
        finally:
            # All processes that the trial has left running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            pump.join(timeout=10)
        return child.returncode
    finally:
        os.close(mouth)


def _pass_on(stream: IO[bytes], file: Path, name: str) -> None:
    """Copy a trial's output to its file and, with its name in front, to stdout."""
    with file.open("ab") as copy:
        for line in stream:
            copy.write(line)
            copy.flush()
            with contextlib.suppress(ValueError, OSError):  # stdout is closed
                print(f"{name}{line.decode(errors='replace').rstrip()}", flush=True)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Python does with SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _outcome(trial: Trial, folder: Path, code: int) -> Trial:
    """A trial's record from its exit code and the files that it left."""
    file = folder / ".outcome.json"
    try:
        left: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        left = {}
    file.unlink(missing_ok=True)
    if "error" in left:
        return trial.failed(left["error"], left["fault"])
    if code != 0:
        return trial.failed(_ended_by(folder, code), "error")
    objective = left.get("objective")
    if objective is None or not math.isfinite(objective):
        return trial.failed(f"its objective is {objective}, not a finite number", "error")
    trial = replace(trial, state="complete", objective=float(objective))
    with contextlib.suppress(FileNotFoundError):
        stopped = json.loads((folder / STOPPED).read_text(encoding="utf-8"))
        trial = replace(trial, state="stopped", reason=stopped["reason"])
    return trial


def _ended_by(folder: Path, code: int) -> str:
    """Describe an exit code, with the last line of the trial's output."""
    by = f"its process ended with code {code}"
    if code < 0:
        names = {member.value: member.name for member in signal.Signals}
        by = f"its process was ended by {names.get(-code, f'signal {-code}')}"
    if code == -signal.SIGKILL:
        by += " (the kernel does that when memory runs out)"
    text = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").strip()
    return f"{by}; the end of its output: {text.splitlines()[-1] if text else 'nothing'}"


# --- the run


def hold_lifeline() -> None:
    """Kill this process group when the watcher is gone; called once, at the start."""
    end = os.environ.pop(_LIFELINE, None)  # not inherited by processes of the run
    if end is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(int(end), 1)  # returns when the write end closes; nothing is written
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def leave_outcome(**outcome: Any) -> None:
    """Leave the objective or the error for the watcher; does nothing outside a sweep."""
    file = os.environ.get(_OUTCOME)
    if file is not None and is_first_process():
        write_atomic(file, json.dumps(outcome))


def is_first_process() -> bool:
    """Whether this process is the first of its run, as far as launchers tell by the environment."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def is_trial() -> bool:
    """Whether this process is a trial of a sweep."""
    return _OUTCOME in os.environ
