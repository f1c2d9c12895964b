"""Two real processes: their validation gives the figures of one, whoever has how many windows."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compose import MINIMAL
from tests.training import two_processes

TIMEOUT_S = 180  # a process that waits for another one waits for ever


@pytest.fixture(scope="module")
def data(tiny_dance: list[str]) -> list[str]:
    return [*tiny_dance, "dataset.source.val_sequences=3", "dataset.window.length=4"]


def start_two(command: list[str], folder: Path, place: str) -> list[subprocess.Popen[str]]:
    """A command twice, with 0 and 1 in the variable ``place``; a string ``RANK`` is replaced."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [rank if word == "RANK" else word for word in command],
            cwd=folder,
            env={**environment, place: rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Wait until all have ended well; none outlives the test."""
    try:
        printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text[-3000:]


@pytest.fixture(scope="module")
def ranks(
    data: list[str], repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """Folder with the weights, and what each of two processes found in every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.training.two_processes", str(folder), "RANK", *data]
    finish(start_two(command, repo_root, "LOCAL_RANK"))
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("scenario", two_processes.SCENARIOS)
def test_two_processes_find_what_one_finds(
    scenario: str, ranks: tuple[Path, list[dict[str, Any]]], data: list[str]
) -> None:
    folder, results = ranks
    first, second = (result[scenario] for result in results)
    one = two_processes.run(scenario, data, folder / f"{scenario}.pt", rank=0, processes=1)
    names = {"val/hota", "val/assa", "val/mota", "val/ap50", "val/ap75_dense", "val/loss", "val/l1"}
    assert names <= one["figures"].keys() == first["figures"].keys()
    assert 0.05 < one["figures"]["val/hota"] < 0.95 and 0.05 < one["figures"]["val/ap50_nms"] < 0.95
    for name, value in one["figures"].items():
        assert first["figures"][name] == second["figures"][name], name
        assert first["figures"][name] == pytest.approx(value, abs=1e-9), name
    assert first["logged"] == second["logged"] == pytest.approx(one["logged"], rel=1e-6)
    # Every window once, whole sequences in one process.
    seen = [[tuple(window) for window in rank["windows"]] for rank in (first, second)]
    assert sorted(seen[0] + seen[1]) == sorted(one["windows"])
    assert not {name for name, _ in seen[0]} & {name for name, _ in seen[1]}
    expected = {"three": [6, 3], "one": [3, 0], "positions": [1, 3]}
    assert [len(windows) for windows in seen] == expected[scenario]


def test_a_run_of_two_processes_is_one_run(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = ranks
    run = folder / "run"
    names = [path.name for path in run.iterdir()]
    assert {"config.yaml", "metrics.csv", "summary.json", "checkpoints"} <= set(names)
    assert len([name for name in names if name.startswith("events.out")]) == 1
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["step"] == content["global_step"] == 2
    assert (summary["processes"], summary["effective_batch"]) == (2, 4)
    assert summary["learning_rate"] == pytest.approx(1.5e-3)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["val/loss"]] == ["1"], "validated once, written once"
    assert results[0]["run"] == results[1]["run"] == summary["metrics"]["val/hota"]["best"]


def test_batches_without_anybody_and_parts_without_gradient_do_not_hang(
    ranks: tuple[Path, list[dict[str, Any]]],
) -> None:
    first, second = (result["uneven"] for result in ranks[1])
    assert first["sums"] == second["sums"], "the processes keep the same weights"
    assert all(math.isfinite(value) for value in first["sums"].values())
    assert first["steps"] == 2
    assert any("backbone" in name for name in first["moved"]), "it thawed in the second epoch"


def two_machines(words: list[str], run: Path) -> list[subprocess.Popen[str]]:
    """As docs/scaling.md tells it: the same command on each, the place in the environment."""
    command = [
        *(sys.executable, "-m", "scene_track.train", *MINIMAL, *words),
        *("trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp"),
        f"hydra.run.dir={run}",
    ]
    return start_two(command, run.parent, "NODE_RANK")


def test_one_machine_is_told_to_stop_and_both_save(data: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    long = ["trainer.max_epochs=1000", "trainer.check_val_every_n_epoch=1000"]
    both = two_machines([*data, *long, "callbacks.checkpoint.every_n_steps=100000"], run)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (run / "checkpoints" / "last.ckpt").is_file():  # of the first epoch
            assert time.monotonic() < deadline and both[0].poll() is None
            time.sleep(0.1)
        both[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [143, 143], printed
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"].startswith("stopped") and last["global_step"] == summary["step"] >= 2
    assert (summary["processes"], summary["effective_batch"]) == (2, 4), "one run"
