"""A whole run on a COCO folder: it learns, can be stopped and resumed, and is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scene_track.evaluate import evaluate
from tests.compose import MINIMAL, command
from tests.data.still_folders import write_coco

pytestmark = pytest.mark.slow


def test_train_resume_and_evaluate_on_stills(tmp_path: Path, composed: Callable) -> None:
    root = write_coco(tmp_path / "coco")
    words = [
        "dataset=coco",
        f"dataset.root={root}",
        "dataset.train=train",
        "dataset.val=train",
        "dataset.size=[64,96]",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.augment.flip=0",
        "dataset.window.length=2",
        *(word for word in MINIMAL if word != "debug=minimal"),
        "scheduler.warmup_steps=10",
        "viz.max_frames=0",
        "trainer.overfit_batches=2",
        "trainer.max_epochs=60",
        "trainer.check_val_every_n_epoch=10",
    ]
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    first = command("train", [*words, "trainer.max_steps=20", f"hydra.run.dir={run}"], tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    more = [f"resume_from={run}", "trainer.max_steps=null", f"hydra.run.dir={resumed}"]
    second = command("train", more, tmp_path)
    assert second.returncode == 0, second.stderr[-3000:]
    before, after = (json.loads((r / "summary.json").read_text()) for r in (run, resumed))
    assert (before["step"], after["step"]) == (20, 120)
    losses = [summary["metrics"]["train/loss"]["last"] for summary in (before, after)]
    assert losses[1] < 0.8 * losses[0]
    assert after["metrics"]["val/ap50"]["last"] > 0.9, "the white blocks are found"
    loose = ["tracker.birth=0.2", "tracker.exist_conf=0.2"]
    typed = [f"checkpoint={resumed}/checkpoints/last.ckpt", f"output={tmp_path / 'out'}", *loose]
    evaluate(composed("evaluate", *typed))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(metrics["sequences"]) == 4
    assert metrics["combined"]["DetA"] > 0.3
