"""What a run leaves: JSON with best and last, a CSV that tells one history, events."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scene_track.training import summary as summary_module
from scene_track.training.checkpointing import FOLDER, LAST
from scene_track.training.summary import LearningRates, RunCSVLogger, RunSummary, git_sha
from tests.compose import shipped


def read(run: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads((run / "summary.json").read_text(), parse_constant=refuse)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_run(tiny: Any, tmp_path: Path) -> None:
    tiny.fit(tmp_path, module=tiny.TinyModule(scores=[0.2, 0.5, 0.4]))
    content = read(tmp_path)
    assert content["monitor"] == "val/hota"
    assert content["metrics"]["val/hota"] == {
        "best": pytest.approx(0.5),
        "last": pytest.approx(0.4),
    }
    losses = [float(row["val/loss"]) for row in rows(tmp_path) if row["val/loss"]]
    wanted = {"best": pytest.approx(min(losses)), "last": pytest.approx(losses[-1])}
    assert content["metrics"]["val/loss"] == wanted
    assert (tmp_path / content["checkpoint"]).is_file()
    assert content["checkpoint"].endswith("best.ckpt")
    assert content["status"] == "finished"
    assert (content["step"], content["seed"]) == (21, 1) and content["wall_s"] > 0
    assert {"torch", "numpy", "pytorch-lightning"} <= content["packages"].keys()


def test_a_stopped_run_says_so_and_a_resumed_one_carries_on(tiny: Any, tmp_path: Path) -> None:
    scores = [0.9, 0.5, 0.4]
    stop = tiny.Stop("on_train_batch_start", 1, 3, ValueError("the disk is full\nsecond line"))
    with pytest.raises(ValueError, match="disk"):
        tiny.fit(tmp_path, module=tiny.TinyModule(scores=scores), extra=[stop])
    first = read(tmp_path)
    assert first["status"] == "stopped: ValueError: the disk is full"
    tiny.fit(
        tmp_path / "new",
        module=tiny.TinyModule(scores=scores),
        resume=tmp_path / FOLDER / LAST,
    )
    second = read(tmp_path / "new")
    assert second["metrics"]["val/hota"] == {
        "best": pytest.approx(0.9),
        "last": pytest.approx(0.4),
    }
    assert second["wall_s"] > first["wall_s"] * 0.9
    assert (tmp_path / "new" / second["checkpoint"]).is_file(), "the best came along"


def summary(tmp_path: Path, mode: Any = "max") -> RunSummary:
    return RunSummary(
        run_dir=str(tmp_path),
        monitor="val/ap_error",
        mode=mode,
        higher_is_better=["id", "ap"],
        seed=1,
    )


@pytest.mark.parametrize("mode", ["max", "min"])
def test_directions(tmp_path: Path, mode: str) -> None:
    keeper = summary(tmp_path, mode)
    for value in (0.5, 0.1, 0.3):
        keeper.update({"val/ap_error": value, "val/l1": value, "val/idf1": value})
    best = {name: pair["best"] for name, pair in keeper.metrics.items()}
    assert best["val/l1"] == 0.1
    assert best["val/idf1"] == 0.5
    assert best["val/ap_error"] == (0.5 if mode == "max" else 0.1), "the monitor's own mode wins"


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    keeper = summary(tmp_path)
    keeper.update({"a": math.nan, "b": math.inf, "c": 1.0})
    keeper.update({"a": math.nan, "b": 2.0, "c": math.nan, "x_step": 1.0, "lr/base": 0.1})
    assert keeper.metrics == {
        "a": {"best": None, "last": None},
        "b": {"best": 2.0, "last": 2.0},
        "c": {"best": 1.0, "last": None},
    }


def test_git_sha_is_of_this_file_only(monkeypatch, tmp_path: Path) -> None:
    """An installed package must not report the commit of a repository around it."""
    package = tmp_path / "venv" / "summary.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(summary_module, "__file__", str(package))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert git_sha() is None, "not tracked there"
    subprocess.run([*git, "add", "-f", str(package)], check=True)
    assert git_sha() is not None


def test_csv_of_a_resumed_run_tells_one_history(tmp_path: Path) -> None:
    logger = RunCSVLogger(run_dir=str(tmp_path))
    for step in (9, 19, 29):
        logger.log_metrics({"loss": float(step)}, step=step)
    logger.log_metrics({"val/hota": 0.1}, step=29)
    assert rows(tmp_path)[-1]["val/hota"] == "0.1", "on the disk after every call"
    logger.log_metrics({"loss": 39.0}, step=39)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")  # torn by a kill
    # the validation at step 29 is repeated: its row is replaced, the training row stays
    resumed = RunCSVLogger(run_dir=str(tmp_path))
    resumed.log_metrics({"val/hota": 0.2}, step=29)
    resumed.log_metrics({"loss": 40.0, "new": 1.0}, step=39)
    told = [(row["step"], row["loss"], row["val/hota"], row["new"]) for row in rows(tmp_path)]
    assert told == [
        ("9", "9.0", "", ""),
        ("19", "19.0", "", ""),
        ("29", "29.0", "", ""),
        ("29", "", "0.2", ""),
        ("39", "40.0", "", "1.0"),
    ]


def test_events_and_rates_lie_in_the_run_folder(tiny: Any, tmp_path: Path) -> None:
    loggers = [
        RunCSVLogger(run_dir=str(tmp_path)),
        shipped("logger.tensorboard", save_dir=str(tmp_path)),
    ]
    tiny.fit(tmp_path, loggers=loggers, extra=[LearningRates()], max_epochs=1)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert not list(tmp_path.glob("version_*")) + list(tmp_path.glob("lightning_logs"))
    steps = [row for row in rows(tmp_path) if row["lr/base"]]
    rates = [(row["lr/model.backbone"], row["lr/base"]) for row in steps]
    assert len(rates) == 7
    assert float(rates[2][1]) == pytest.approx(1e-2)
    assert float(rates[2][0]) == pytest.approx(0.5e-2)
    assert not any(name.startswith("lr/") for name in read(tmp_path)["metrics"])
