"""A whole run on a COCO folder: it learns, can be stopped and resumed, and is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compose import MINIMAL, command
from tests.data.still_folders import write_coco

pytestmark = pytest.mark.slow


def test_train_resume_and_evaluate_on_stills(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    data = [
        "dataset=coco",
        f"dataset.root={root}",
        "dataset.train=train",
        "dataset.val=train",
        "dataset.size=[64,96]",
        "dataset.cache_dir=cache",
    ]
    learn = [
        *(word for word in MINIMAL if word != "debug=minimal"),
        "trainer.overfit_batches=2",
        "dataset.augment.flip=0",
        "dataset.window.length=2",
        "scheduler.warmup_steps=10",
        "viz.max_frames=0",
    ]
    run = tmp_path / "run"
    words = [*data, *learn, "trainer.max_epochs=30", f"hydra.run.dir={run}"]
    words += ["trainer.check_val_every_n_epoch=10", "trainer.max_steps=20"]
    first = command("train", words, tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    again = command("train", [f"resume_from={run}", "trainer.max_steps=null"], tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    summary = json.loads((run / "summary.json").read_text())
    print(summary)
    done = command("evaluate", [f"checkpoint={run}", "split=val"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
