"""A program whose runs take no time and do what a sweep must survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial

_APP = '''
"""Trains nothing."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Literal

import scene_track.config.cli as cli
from hydra.core.hydra_config import HydraConfig

cli.config_dir = lambda: {conf!r}


class Options:
    def __init__(self, *, x: float, kind: str, sleep: float, epochs: int, monitor: dict,
                 bad: Literal["no", "number", "raise", "exit", "kill", "mistake",
                              "memory"], odd: str): ...


def job(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    if cfg.x == 3 and cfg.bad == "number":
        return float("nan")
    if cfg.x == 3 and cfg.bad == "raise":
        {{}}["five"]
    if cfg.x == 3 and cfg.bad == "mistake":
        raise ValueError("x=3 is no good")
    if cfg.x == 3 and cfg.bad == "exit":
        print("about to leave")
        os._exit(7)
    if cfg.x == 3 and cfg.bad == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.x == 3 and cfg.bad == "memory":
        used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
        bytearray(2**28)
    best = 1 - (cfg.x - 2) ** 2 / 10 + (0.1 if cfg.kind == "b" else 0)
    with (folder / "metrics.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "epoch", "val/hota", "train/loss"])
        for epoch in range(cfg.epochs):
            rows.writerow([epoch, epoch, best * (epoch + 1) / cfg.epochs, 1 / (epoch + 1)])
            file.flush()
            time.sleep(cfg.sleep)
    metrics = {{"val/hota": {{"best": best, "last": best}}}}
    (folder / "summary.json").write_text(json.dumps({{"metrics": metrics, "wall_s": 1.0}}))
    (folder / "calls").open("a").write("x")
    return best


if __name__ == "__main__":
    cli.run_main("config", job, root="tiny_app.Options", trials=True)
'''
_CONF = """
    # Of a test.
    defaults: [_self_]
    x: 1.0
    kind: a
    sleep: 0.0
    epochs: 2
    bad: "no"
    odd: ""
    monitor: {metric: val/hota, mode: max}
    hydra:
      run: {dir: out}
      sweep: {dir: sweep, subdir: "${hydra.job.num}"}
"""


def trials(sweep: Path) -> list[Trial]:
    """The records of a sweep."""
    return list(records.read_all(sweep).values())


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class App:
    """The program in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = folder / "sweep"
        conf = folder / "settings"
        conf.mkdir()
        (conf / "config.yaml").write_text(textwrap.dedent(_CONF))
        (folder / "tiny_app.py").write_text(_APP.format(conf=str(conf)))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tiny_app", *arguments],
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@pytest.fixture(scope="session")
def new_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], App]:
    return lambda: App(tmp_path_factory.mktemp("app"))
