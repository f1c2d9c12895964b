"""A real training of two processes, in a sweep, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compose import MINIMAL, command
from tests.sweeps.conftest import trials


@pytest.fixture(scope="module")
def sweep(tiny_dance: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    several = ("trainer.devices=2", "trainer.strategy=ddp", "dataset.window.length=4")
    done = command(
        "train",
        ["--multirun", *MINIMAL, *tiny_dance, *several, "optimizer.lr=choice(3e-4)",
         f"hydra.sweep.dir={folder}/sweep"],
        folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder / "sweep"


def test_every_process_of_a_trial_has_the_trial_s_own_values(sweep: Path) -> None:
    (trial,) = trials(sweep)
    assert trial.state == "complete" and trial.params == {"optimizer.lr": "0.0003"}
    folder = sweep / "0"
    said = "effective batch 4 clips (2 per process, 1 accumulated), learning rate 0.0003\n"
    assert f"process 1 of 2: {said}" in (folder / "train.log").read_text()
    assert f"process 2 of 2: {said}" in (folder / "train_ddp_process_1.log").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["processes"]) == ("finished", 2)
    assert trial.objective == pytest.approx(summary["metrics"]["val/hota"]["best"])


def test_the_best_trial_s_pictures_are_on_the_page(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert "data:image/png;base64," in text and '"val/idf1"' in text
