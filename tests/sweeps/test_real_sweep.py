"""Two real trainings of two processes each, in a sweep, as a person types it."""

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
        ["--multirun", *MINIMAL, *tiny_dance, *several, "optimizer.lr=1e-3,3e-4",
         f"hydra.sweep.dir={folder}/sweep"],
        folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder / "sweep"


def test_every_process_of_a_trial_has_the_trial_s_own_values(sweep: Path) -> None:
    assert [t.state for t in trials(sweep)] == ["complete", "complete"]
    for number, rate in enumerate(("0.001", "0.0003")):
        folder = sweep / str(number)
        said = "effective batch 4 clips (2 per process, 1 accumulated), highest learning rate "
        assert f"process 1 of 2: {said}{rate}\n" in (folder / "train.log").read_text()
        second = (folder / "train_ddp_process_1.log").read_text()
        assert f"process 2 of 2: {said}{rate}\n" in second
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["status"], summary["processes"]) == ("finished", 2)


def test_the_objective_is_the_best_value_of_the_monitor(sweep: Path) -> None:
    for trial in trials(sweep):
        summary = json.loads((sweep / str(trial.number) / "summary.json").read_text())
        assert trial.objective == pytest.approx(summary["metrics"]["val/hota"]["best"])


def test_the_best_trial_s_pictures_are_on_the_page(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert "data:image/png;base64," in text and '"val/idf1"' in text
