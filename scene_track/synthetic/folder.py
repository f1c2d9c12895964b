"""Draws a synthetic data set into a folder, once, by several processes.

Special here: a data set is a pure function of its parameters and of its version. Both are hashed
into the folder's name, so a changed parameter is another folder and never a mixture. The folder is
built beside its final place and renamed at the end, under a lock that dies with its holder: a kill
leaves no half data set, and processes that start together build it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import scene_track

log = logging.getLogger(__name__)

Job = tuple[str, int]
"""Split and number of one video."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DrawnFolder:
    """A data set that is drawn on first use.

    Attributes:
        root: folder that holds the data set's own folder.
        spec: dataclass of everything that the pictures depend on, ``version`` among it.
        videos: path of every video, relative to the data set's folder, by job.
        module: dotted name of a module that passes ``--worker`` on to :func:`work`.
        what: what is drawn, for the log.
        workers: processes that draw; None = one per core that this process may use.
    """

    root: Path
    spec: Any
    videos: dict[Job, str]
    module: str
    what: str
    workers: int | None = None

    @property
    def name(self) -> str:
        """Version and fingerprint of the parameters."""
        digest = hashlib.sha256(json.dumps(asdict(self.spec), sort_keys=True).encode()).hexdigest()
        return f"v{self.spec.version}-{digest[:10]}"

    @property
    def folder(self) -> Path:
        """The folder of exactly these parameters."""
        return self.root / self.name

    def prepare(self) -> Path:
        """Writes the data set unless it is there; safe to call from several processes at once.

        Returns:
            The data set's folder.

        Raises:
            RuntimeError: if drawing failed; what the drawing process printed is part of the
                message.
        """
        if self.folder.is_dir():
            return self.folder
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root / f".{self.name}.lock"):
            if self.folder.is_dir():  # another process was first
                return self.folder
            for leftover in self.root.glob(f".{self.name}.tmp-*"):  # of a killed process
                shutil.rmtree(leftover)
            temporary = self.root / f".{self.name}.tmp-{os.getpid()}"
            started = time.perf_counter()
            log.info("drawing %d %s into %s", len(self.videos), self.what, self.folder)
            try:
                self._draw(temporary)
                manifest = asdict(self.spec) | {"sequences": list(self.videos.values())}
                (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
                os.replace(temporary, self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            log.info("drawn in %.0f s", time.perf_counter() - started)
        return self.folder

    def _draw(self, folder: Path) -> None:
        for split in SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
        jobs = list(self.videos)
        workers = min(self.workers or _cores(), len(jobs))
        # Own interpreters rather than a pool: they inherit neither torch's threads nor a CUDA
        # context, and work whatever the main module is.
        paths = [str(Path(scene_track.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
            "OMP_NUM_THREADS": "1",
        }
        running = []
        try:
            for worker in range(workers):
                request = {
                    "spec": asdict(self.spec),
                    "folder": str(folder.absolute()),
                    "jobs": jobs[worker::workers],
                }
                process = subprocess.Popen(
                    [sys.executable, "-m", self.module, "--worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment,
                    text=True,
                )
                assert process.stdin is not None
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()  # stays open: its end tells the painter that we have died
                running.append(process)
            for process in running:
                assert process.stderr is not None
                errors = process.stderr.read()
                if process.wait() != 0:
                    raise RuntimeError(f"drawing the {self.what} failed:\n{errors}")
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                for pipe in (process.stdin, process.stderr):
                    if pipe is not None:
                        pipe.close()


def work(write: Callable[[dict[str, Any], Path, str, int], None]) -> None:
    """What a drawing process does: takes its request from stdin, draws its videos.

    Args:
        write: draws one video, given the spec as a dictionary, the folder, split and number.
    """
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    for split, number in request["jobs"]:
        write(request["spec"], Path(request["folder"]), split, number)


def by_hand(arguments: list[str], draw: Callable[[str], Path], root: str) -> None:
    """``python -m scene_track.synthetic.dance root=FOLDER``: draws the default set.

    Args:
        arguments: of the command line.
        draw: draws into a root, returns the data set's folder.
        root: where none is given.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "root" or not value:
            sys.exit(f"{argument}: expected root=FOLDER")
        root = value
    sys.stdout.write(f"{draw(root)}\n")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock that the kernel releases when the holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _exit_with_parent() -> None:
    """An orphan must not go on drawing into a folder that the next run removes."""
    sys.stdin.read()
    os._exit(1)
