"""Pretraining without labels as a user runs it: it learns, and a labelled run starts from it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.compose import TINY, command
from tests.data.still_folders import draw, write_coco

pytestmark = pytest.mark.slow

PARTS = "[model.neck,model.projection,model.proposals,model.decoder]"


def test_pretraining_learns_regions_and_hands_its_weights_on(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number, left in enumerate((10.0, 40.0, 60.0)):
        draw(images / f"{number}.png", [[left, 20.0, 20.0, 30.0]])
    common = [
        *TINY,
        "model/backbone=efficientnet_lite0",
        "model.backbone.weights=null",
        "dataset.size=[64,96]",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.window.length=2",
        "scheduler.warmup_steps=10",
        "viz.max_frames=0",
    ]
    run, labelled = tmp_path / "run", tmp_path / "labelled"
    learned = command(
        "train",
        [
            "experiment=detreg",
            f"dataset.root={images}",
            *common,
            "dataset.augment.flip=0",
            "dataset.source.regions.count=4",
            "trainer.overfit_batches=1",
            "trainer.max_epochs=30",
            "trainer.check_val_every_n_epoch=30",
            f"hydra.run.dir={run}",
        ],
        tmp_path,
    )
    assert learned.returncode == 0, learned.stderr[-3000:]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert losses[-1] < 0.8 * losses[0]
    for name in ("val/loss", "val/embedding", "val/recall_regions"):
        assert any(row[name] for row in rows), name
    root = write_coco(tmp_path / "coco")
    second = command(
        "train",
        [
            "dataset=coco",
            f"dataset.root={root}",
            "dataset.val=train",
            "dataset.train=train",
            *common,
            "model.backbone.freeze=true",
            "model.neck.sample_stride=8",
            f"init_from={run}",
            f"init_parts={PARTS}",
            "debug=minimal",
            f"hydra.run.dir={labelled}",
        ],
        tmp_path,
    )
    assert second.returncode == 0, second.stderr[-3000:]
    said = (labelled / "train.log").read_text()
    assert "model.decoder" in said and "other shape:" not in said
