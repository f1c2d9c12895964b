"""Runs from the command line, as a user types them, on a data set of three tiny sequences."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from scene_track.io.atomic import held
from scene_track.train import train
from tests.compose import MINIMAL, TINY, command


def test_a_run_leaves_everything_that_it_should(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "train.log", "metrics.csv", "summary.json", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["monitor"] in ("val/hota", {"metric": "val/hota", "mode": "max"})
    assert summary["seed"] == 1 and summary["wall_s"] > 0 and "torch" in summary["packages"]
    for name in [
        "hota",
        "deta",
        "assa",
        "idf1",
        "mota",
        "ap50",
        "ap75",
        "ap50_nms",
        "ap50_dense",
        "loss",
    ]:
        values = summary["metrics"][f"val/{name}"]
        assert values["best"] is not None and values["last"] is not None, name
    assert (run_folder / summary["checkpoint"]).is_file()
    assert len(list((run_folder / "viz").glob("epoch_00[12]_step_*.png"))) == 2
    with (run_folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows) and any(row["val/loss"] for row in rows)
    assert any(row["train/identity"] for row in rows) and any(row["train/dn_l1"] for row in rows)


def test_lambda_dn_of_zero_is_exactly_the_plain_model(
    tiny_dance: list[str], tmp_path: Path
) -> None:
    weights = []
    for name, choice in (("zero", "denoiser.lambda_dn=0"), ("none", "denoiser=none")):
        run = tmp_path / name
        done = command(
            "train",
            [*MINIMAL, *tiny_dance, choice, "trainer.precision=32-true", f"hydra.run.dir={run}"],
            tmp_path,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append({k: v for k, v in content["state_dict"].items() if k.startswith("model.")})
    assert weights[0].keys() == weights[1].keys()
    different = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
    assert not different


def test_a_folder_that_another_training_holds_keeps_its_words_and_its_log(tmp_path: Path) -> None:
    words = tmp_path / "run" / ".hydra" / "overrides.yaml"
    words.parent.mkdir(parents=True)
    words.write_text("- seed=1\n")
    with held(tmp_path / "run", "hydra.run.dir"):
        done = command("train", ["seed=2", f"hydra.run.dir={tmp_path / 'run'}"], tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert words.read_text() == "- seed=1\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".hydra"]


def test_a_run_folder_that_is_not_hydras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    node = OmegaConf.create({"runtime": {"output_dir": "/outputs"}})
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: node)
    with pytest.raises(ValueError, match=r"hydra\.run\.dir=elsewhere"):
        train(OmegaConf.create({"run_dir": "elsewhere"}))


def test_fast_dev_run_writes_no_run(tiny_dance: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command(
        "train",
        ["debug=fast_dev_run", *TINY, *tiny_dance, f"hydra.run.dir={run}"],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(run.rglob("*.ckpt")) and not (run / "metrics.csv").exists()
