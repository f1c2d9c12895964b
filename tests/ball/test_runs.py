"""A ball from the command line, as a user types it: train, evaluate, score, dry run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from scene_track.evaluate import evaluate
from tests.compose import TINY_BALL, command

MINIMAL_BALL = (
    "dataset=synthetic_tennis",
    *(word for word in TINY_BALL if not word.startswith("dataset=")),
    "model.backbone.depth=1",
    "dataset.size=[64,96]",
    "dataset.loader.num_workers=0",
    "dataset.loader.persistent_workers=false",
    "trainer.limit_train_batches=2",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="module")
def tiny_tennis(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make ``dataset=synthetic_tennis`` a set of three short, small clips."""
    root = tmp_path_factory.mktemp("tennis")
    return [
        f"dataset.root={root}",
        "dataset.source.train_games=1",
        "dataset.source.val_games=1",
        "dataset.source.test_games=0",
        "dataset.source.clips_per_game=1",
        "dataset.source.frames=10",
        "dataset.source.width=192",
        "dataset.source.height=128",
        "dataset.source.workers=1",
        "dataset.test=null",
        "dataset.batch_size=2",
    ]


@pytest.fixture(scope="module")
def ball_run(tiny_tennis: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs."""
    run = tmp_path_factory.mktemp("ball") / "run"
    words = [*MINIMAL_BALL, *tiny_tennis, f"hydra.run.dir={run}", "trainer.max_epochs=2"]
    done = command("train", words, run.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def test_a_run_of_a_ball_leaves_what_every_run_leaves(ball_run: Path) -> None:
    summary = json.loads((ball_run / "summary.json").read_text())
    assert summary["monitor"] == "val/pck_5" and (ball_run / summary["checkpoint"]).is_file()
    assert summary["metrics"]["val/pck_5"]["best"] is not None
    assert summary["metrics"]["val/loss"]["last"] > 0
    with (ball_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/heatmap"] for row in rows) and any(row["val/f1_wasb"] for row in rows)
    pictures = sorted(path.name for path in (ball_run / "viz").iterdir())
    assert [name.partition("_step_")[0] for name in pictures] == ["epoch_001", "epoch_002"]
    with Image.open(ball_run / "viz" / pictures[0]) as picture:
        assert picture.width > 400


def test_evaluate_and_score_agree(ball_run: Path, tiny_tennis: list[str], tmp_path: Path) -> None:
    output = tmp_path / "e"
    words = [f"checkpoint={ball_run}", f"output={output}", "tracker=ball", "clips=1"]
    words += ["tracker.threshold=0.0001", "tracker.candidate=0.0001"]
    done = command("evaluate", words, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "pck_5" in done.stdout and "COMBINED" in done.stdout
    (result,) = (output / "tracks").iterdir()
    assert result.suffix == ".csv" and len(result.read_text().splitlines()) == 11
    assert list((output / "overlays").glob("*.png")) and list((output / "clips").glob("*.gif"))
    metrics = json.loads((output / "metrics.json").read_text())
    root = Path(tiny_tennis[0].partition("=")[2])
    (truth,) = root.glob("*/val")
    scored = tmp_path / "scores.json"
    done = command(
        "score",
        [f"ground_truth={truth}", f"predictions={output}/tracks", f"output={scored}"],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    mine, theirs = metrics["combined"], json.loads(scored.read_text())["combined"]
    assert {name: mine[name] for name in theirs} == theirs


def test_a_tracker_of_people_is_refused_beside_a_ball(
    ball_run: Path, tmp_path: Path, composed: Callable
) -> None:
    typed = ("evaluate", f"checkpoint={ball_run}", f"output={tmp_path}/o", "tracker=identity")
    with pytest.raises(ValueError, match="IdentityTracker reads boxes.*tracker=peak"):
        evaluate(composed(*typed))


def test_a_dry_run_shows_shapes_and_memory_and_writes_nothing(
    tiny_tennis: list[str], tmp_path: Path
) -> None:
    done = command("train", [*MINIMAL_BALL, *tiny_tennis, "debug=dry_run"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    text = done.stdout
    assert re.search(r"predictions.heatmap_logits +\[2, 5, 1, 32, 48\] float32", text)
    assert "GiB" in text and "backbone" in text and "num_targets" in text
    assert not list(tmp_path.iterdir())


def test_the_scene_server_takes_no_ball(ball_run: Path, tmp_path: Path) -> None:
    for module in ("submit", "compare"):
        done = command(module, [f"checkpoint={ball_run}", "split=val"], tmp_path)
        assert done.returncode == 2, done.stderr[-500:]
        assert f"{module} reads boxes" in done.stderr
        assert f"scene_track.evaluate checkpoint={ball_run}" in done.stderr
