"""Kills commands at random moments and compares what they leave with an undisturbed run.

A command runs in a fork of this process, which has imported everything: a start takes a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import torch
import yaml

from scene_track.data.frame_store import FrameStore, read_frame
from scene_track.data.video import Video
from scene_track.sweeps.records import read_all
from scene_track.training.checkpointing import load_checkpoint
from tests.compose import MINIMAL

_STOPPED = -signal.SIGKILL


@dataclass
class Tally:
    """What a part of the campaign found; None = it does not look at that."""

    kills: int = 0
    torn: int | None = None
    lost: int | None = None
    different: int | None = None

    def __str__(self) -> str:
        found = {
            "torn files": self.torn,
            "lost": self.lost,
            "different results": self.different,
        }
        parts = [f"{count} {what}" for what, count in found.items() if count is not None]
        return f"{self.kills} kills: {', '.join(parts)}"


def start(work: Callable[[], object], log: Path) -> int:
    """Runs something in a fork that leads a process group of its own; its process id."""
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        # A test runner may have put its own streams in their place.
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int, after: float) -> int:
    """Kills a process group after some seconds unless it has ended; its exit code."""
    limit = time.monotonic() + after
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(module: str, words: Sequence[str], folder: Path) -> Callable[[], None]:
    """An entry point as it is typed, to be run in a fork."""

    def work() -> None:
        os.chdir(folder)
        sys.argv = [module, *words]
        importlib.import_module(f"scene_track.{module}").main()

    return work


def dataset(folder: Path) -> list[str]:
    """Words of a dataset of three short videos."""
    source = "dataset.source."
    return [
        *(f"dataset.root={folder}", f"{source}train_sequences=2", f"{source}val_sequences=1"),
        *(f"{source}test_sequences=1", f"{source}frames=10", f"{source}width=96"),
        *(f"{source}height=64", f"{source}max_dancers=4", f"{source}workers=1"),
        "dataset.size=[64,96]",
    ]


def torn_files(folder: Path) -> list[str]:
    """Files under a folder that cannot be read to their end."""
    torn = []
    for file in sorted(folder.rglob("*")):
        if file.name.startswith(".") or not file.is_file():  # a temporary file of a killed process
            continue
        try:
            match file.suffix:
                case ".ckpt":
                    load_checkpoint(file)
                case ".json":
                    json.loads(file.read_text())
                case ".yaml" if ".hydra" not in file.parts:
                    yaml.safe_load(file.read_text())
                case ".safetensors":
                    from safetensors.torch import load_file

                    load_file(file)
                case ".csv":
                    assert file.read_text().endswith("\n")
                case ".txt" if file.name == "tracks.txt":
                    text = file.read_text()
                    assert not text or text.endswith("\n")
                case ".mp4":
                    with av.open(str(file)) as video:
                        shown = sum(1 for _ in video.decode(video=0))
                    tracks = json.loads(file.with_name("tracks.json").read_text())
                    assert shown == len(tracks["frames"])
        except Exception as error:
            torn.append(f"{file}: {error}")
    return torn


def digest(checkpoint: Path) -> str:
    """Of weights, optimiser and position, to the bit."""
    content = load_checkpoint(checkpoint)
    total = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            total.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                total.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            total.update(repr(value).encode())

    add([content["state_dict"], content["optimizer_states"], content["global_step"]])
    return total.hexdigest()


def training(folder: Path, kills: int, workers: int, seed: int, epochs: int = 3) -> Tally:
    """Kills trainings and resumes them; the weights at the end are those of an undisturbed run."""
    log, tally, chance = folder / "log", Tally(torn=0, different=0), random.Random(seed)
    words = [
        *(*MINIMAL, *dataset(folder / "data"), "trainer.limit_train_batches=1.0"),
        *(f"trainer.max_epochs={epochs}", "viz.max_frames=0"),
        f"dataset.loader.num_workers={workers}",
    ]

    def run(name: str, after: float, resumed: bool) -> int:
        more = [f"resume_from={folder / name}"] if resumed else words
        job = command("train", [*more, f"hydra.run.dir={folder / name}"], folder)
        return end(start(job, log), after)

    def last(name: str) -> Path:
        return folder / name / "checkpoints" / "last.ckpt"

    assert run("whole", 600, False) == 0, log.read_text()[-3000:]
    began = time.monotonic()
    assert run("again", 600, False) == 0
    length = time.monotonic() - began
    expected = digest(last("whole"))
    assert digest(last("again")) == expected, "the run itself is not repeatable"
    number = 0
    while tally.kills < kills:
        number += 1
        name, code = f"run{number}", _STOPPED
        while code == _STOPPED and tally.kills < kills:
            code = run(name, chance.uniform(0.1, length), last(name).is_file())
            tally.kills += code == _STOPPED
            tally.torn = (tally.torn or 0) + len(torn_files(folder / name))
        if code == _STOPPED:
            code = run(name, 600, last(name).is_file())
        assert code == 0, log.read_text()[-3000:]
        tally.different = (tally.different or 0) + (digest(last(name)) != expected)
    return tally


def cache(folder: Path, videos: Sequence[Video], kills: int, seed: int) -> Tally:
    """Kills processes that fill one frame cache; every frame is that of the file."""
    tally, chance, size = Tally(different=0), random.Random(seed), (48, 72)

    def fill() -> None:
        torch.set_num_threads(1)
        for _ in range(1000):
            for video in videos:
                for old in (folder / "cache").glob("*"):
                    if chance.random() < 0.02:
                        old.unlink(missing_ok=True)
                store = FrameStore(video, size, folder / "cache")
                for position in range(len(video)):
                    store.read(position)

    for _ in range(kills):
        children = [start(fill, folder / "log") for _ in range(2)]
        pause = chance.uniform(0.001, 0.1)
        tally.kills += [end(child, pause) for child in children].count(_STOPPED)
        for video in videos:
            store = FrameStore(video, size, folder / "cache")
            for position in range(len(video)):
                same = torch.equal(store.read(position), read_frame(video, position, size))
                tally.different = (tally.different or 0) + (not same)
    return tally


def command_with_files(
    folder: Path, module: str, words: Sequence[str], output: Path, kills: int, seed: int
) -> Tally:
    """Kills a command that replaces a folder; whole files alone have their names."""
    tally, chance, log = Tally(torn=0, lost=0), random.Random(seed), folder / "log"
    again = [*words, f"output={output}", "overwrite=true", f"hydra.run.dir={folder / 'logs'}"]
    began = time.monotonic()
    assert end(start(command(module, again, folder), log), 600) == 0, log.read_text()[-3000:]
    length = time.monotonic() - began
    while tally.kills < kills:
        child = start(command(module, again, folder), log)
        tally.kills += end(child, chance.uniform(0.3 * length, length)) == _STOPPED
        tally.torn = (tally.torn or 0) + len(torn_files(output))
        tally.lost = (tally.lost or 0) + (not output.is_dir() or not any(output.iterdir()))
    return tally


def sweep(folder: Path, kills: int, seed: int) -> Tally:
    """Kills a sweep of three trials until it is through; each is there once."""
    tally, chance, place = Tally(torn=0), random.Random(seed), folder / "sweep"
    words = [
        *(sys.executable, "-m", "scene_track.train", "--multirun", *MINIMAL),
        *(*dataset(folder / "data"), "optimizer.lr=1e-4,2e-4,3e-4", "viz.max_frames=0"),
        f"hydra.sweep.dir={place}",
    ]
    while True:
        child = subprocess.Popen(
            words,
            cwd=folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            child.wait(chance.uniform(2, 25) if tally.kills < kills else 900)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            tally.kills += 1
            if place.exists():
                tally.torn = (tally.torn or 0) + len(torn_files(place))
            continue
        trials = read_all(place)
        tally.lost = 3 - sum(trial.state == "complete" for trial in trials.values())
        return tally
