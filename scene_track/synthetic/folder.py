"""Base of the drawn datasets: draws a dataset into a folder, once, by several processes.

A dataset is a pure function of its options and of its version. Both are hashed into the folder's
name, so other options give another folder. The folder is built under a hidden name beside its final
place and renamed at the end, under a lock that the kernel releases when its holder dies. A killed
process leaves no half dataset, and processes that start together build it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

import scene_track
from scene_track.data.video import OnError, Video

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_WORKER = "from scene_track.synthetic.folder import work; work()"


@dataclass(frozen=True, kw_only=True)
class DrawnDataset(ABC):
    """A dataset that is drawn on first use; subclasses add what the images depend on.

    Attributes:
        VERSION: increase it whenever the images or the ground truth of the same options change.
        class_names: names of the classes.
        root: folder that holds the dataset's own folder.
        workers: processes that draw; None = one per core that this process may use.
    """

    VERSION: ClassVar[int]
    class_names: ClassVar[tuple[str, ...]]

    root: str
    workers: Annotated[int, Field(ge=1, le=256)] | None

    @abstractmethod
    def videos(self) -> list[tuple[str, int]]:
        """Split and number of every video."""

    @abstractmethod
    def place(self, split: str, number: int) -> str:
        """Path of a video relative to the dataset's folder."""

    @abstractmethod
    def draw(self, folder: Path, split: str, number: int) -> None:
        """Draws one video into the dataset's folder."""

    @abstractmethod
    def reader(self) -> Any:
        """The reader of the drawn folder."""

    def options(self) -> dict[str, Any]:
        """Everything that the images depend on, the version included."""
        options = asdict(self)
        del options["root"], options["workers"]
        return {"version": self.VERSION} | options

    @property
    def folder(self) -> Path:
        """The dataset's folder: its name holds the version and a hash of the options."""
        digest = hashlib.sha256(json.dumps(self.options(), sort_keys=True).encode()).hexdigest()
        return Path(self.root) / f"v{self.VERSION}-{digest[:10]}"

    def prepare(self) -> Path:
        """Draws the dataset unless it is there; safe to call from several processes at once.

        Returns:
            The dataset's folder.

        Raises:
            RuntimeError: a drawing process failed; the message holds what it printed.
        """
        folder, name = self.folder, self.folder.name
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():  # another process was first
                return folder
            for leftover in folder.parent.glob(f".{name}.tmp-*"):  # of a killed process
                shutil.rmtree(leftover)
            temporary = folder.parent / f".{name}.tmp-{os.getpid()}"
            started = time.perf_counter()
            log.info("drawing %d videos into %s", len(self.videos()), folder)
            try:
                self._draw_all(temporary)
                paths = [self.place(*video) for video in self.videos()]
                manifest = json.dumps(self.options() | {"sequences": paths}, indent=1)
                (temporary / "manifest.json").write_text(f"{manifest}\n")
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            log.info("drawn in %.0f s", time.perf_counter() - started)
        return folder

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """The videos of a split; see the reader's ``sequences``.

        Raises:
            FileNotFoundError: :meth:`prepare` was not called, or the split is unknown.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: not drawn yet, call prepare() first")
        return self.reader().sequences(split, on_error=on_error, cache_dir=cache_dir, images=images)

    def _draw_all(self, folder: Path) -> None:
        for split in SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
        videos = self.videos()
        workers = min(self.workers or _cores(), len(videos))
        running: list[subprocess.Popen[str]] = []
        try:
            for worker in range(workers):
                running.append(self._start_worker(folder, videos[worker::workers]))
            for process in running:
                assert process.stderr is not None
                errors = process.stderr.read()
                if process.wait() != 0:
                    raise RuntimeError(f"drawing {self.folder} failed:\n{errors}")
        finally:
            for process in running:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stderr):
                    if pipe is not None:
                        pipe.close()

    def _start_worker(self, folder: Path, videos: list[tuple[str, int]]) -> subprocess.Popen[str]:
        """A new interpreter that draws some videos.

        Not a pool: a new interpreter inherits neither torch's threads nor a CUDA context, and works
        whatever the main module is.
        """
        paths = [str(Path(scene_track.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        python_path = os.pathsep.join(path for path in paths if path)
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
            text=True,
        )
        request = {
            "module": type(self).__module__,
            "class": type(self).__name__,
            "options": asdict(self),
            "folder": str(folder.absolute()),
            "videos": videos,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()  # stays open: its end tells the worker that this process has died
        return process


def work() -> None:
    """Main function of a drawing process: reads its request from stdin and draws its videos."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    module = importlib.import_module(request["module"])
    dataset = getattr(module, request["class"])(**request["options"])
    for split, number in request["videos"]:
        dataset.draw(Path(request["folder"]), split, number)


def draw_by_hand(dataset: str, arguments: Sequence[str]) -> None:
    """Draws the dataset of ``conf/dataset/<dataset>.yaml`` and prints its folder.

    Args:
        dataset: name of the YAML.
        arguments: of the command line: nothing, or ``root=FOLDER``.
    """
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from scene_track.config.paths import config_dir

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        node = compose("config", [f"dataset={dataset}"]).dataset
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "root" or not value:
            sys.exit(f"{argument}: expected root=FOLDER")
        node.root = value
    sys.stdout.write(f"{instantiate(node.source).prepare()}\n")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _exit_with_parent() -> None:
    """Ends the process when stdin closes: an orphan must not draw into a folder that is removed."""
    sys.stdin.read()
    os._exit(1)
