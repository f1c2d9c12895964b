"""Evaluation of a checkpoint: figures, files, clips, and what is said when something is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import scene_track.tracking.truth
from scene_track.evaluate import evaluate
from scene_track.training.trained_run import load_model
from tests.compose import command


def test_the_best_checkpoint_evaluates_to_what_training_said(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scores"
    arguments = [f"checkpoint={run_folder}", f"output={folder}", "clips=3", "clip_width=64"]
    done = command("evaluate", arguments, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads((folder / "metrics.json").read_text())
    said = json.loads((run_folder / "summary.json").read_text())["metrics"]["val/hota"]["best"]
    assert scores["combined"]["HOTA"] == pytest.approx(said, abs=1e-9)
    assert (folder / "hota.png").is_file() and scores["precision"] in ("32-true", "bf16-mixed")

    (name,) = scores["sequences"]
    assert [path.name for path in (folder / "tracks").iterdir()] == [f"{name}.txt"]
    assert scores["combined"]["frames_per_second"] > 0
    assert scores["sequences"][name].keys() == scores["combined"].keys()
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("[")]
    assert lines[-2][:2] == ["benchmark:", "dancetrack"] and scores["benchmark"] == "dancetrack"
    head, rows = lines[0], {line[0]: line[1:] for line in lines[1:-2] if len(line) > 1}
    columns = ["HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA", "IDSW", "FP", "FN", "frames/s"]
    assert head == ["sequence", *columns]
    assert rows.keys() == {name, "COMBINED"}
    assert rows[name][0] == f"{100 * scores['sequences'][name]['HOTA']:.2f}"
    (clip,) = (folder / "clips").iterdir()  # there are no more sequences
    with Image.open(clip) as gif:
        assert clip.name == f"{name}.gif" and gif.size[0] == 64
        assert getattr(gif, "n_frames", 1) == 10

    again = command("evaluate", arguments, tmp_path)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    assert "is not empty, it holds clips: type overwrite=true" in again.stderr


def test_a_split_without_ground_truth_says_that_there_is_nothing_to_score(
    run_folder: Path, tmp_path: Path, composed: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    typed = ("evaluate", f"checkpoint={run_folder}", "split=test", f"output={tmp_path}/o")
    with caplog.at_level("INFO", "scene_track"):
        assert evaluate(composed(*typed)) is None
    assert "the test split has no ground truth: result files only" in caplog.text
    assert list((tmp_path / "o" / "tracks").iterdir())
    assert not (tmp_path / "o" / "metrics.json").exists()
    for word, message in (
        ("tracker=oracle", "1 of 1 sequences .* have none"),
        ("faults=1", "none"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*split=val"):
            evaluate(composed(*typed, word, "overwrite=true"))


def test_the_worst_faults_are_shown_beside_a_baseline(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    typed = ["evaluate", f"checkpoint={run_folder}", f"output={tmp_path}/o", "faults=3"]
    # Whatever the model is sure of, so that even one of two epochs finds somebody now and then.
    evaluate(composed(*typed, "tracker.birth=0", "tracker.exist_conf=0"))
    folder = tmp_path / "o" / "faults"
    data = json.loads((folder / "faults.json").read_text())
    scores = json.loads((tmp_path / "o" / "metrics.json").read_text())["combined"]
    assert data["summary"]["count"]["switch"] == scores["IDSW"]
    strips = sorted(path.name for path in folder.glob("*.png"))
    assert strips == [fault["image"] for fault in data["faults"]] and len(strips) <= 3
    for fault in data["faults"]:
        assert fault["others"].keys() == {"oracle", "ByteTrack"}
    assert (folder / "page.html").is_file()


def test_a_stopped_evaluation_is_not_taken_for_a_complete_one(
    run_folder: Path, tmp_path: Path, composed: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ("evaluate", f"checkpoint={run_folder}", "split=train", f"output={tmp_path}/o")
    folder = tmp_path / "o"
    (folder / "tracks").mkdir(parents=True)
    (folder / "metrics.json").write_text("of an older evaluation")
    (folder / "tracks" / "gone.txt").touch()

    def stop(sequence: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scene_track.tracking.truth, "count_tracking", stop)
        evaluate(composed(*typed, "overwrite=true"))
    # The first of two sequences was done.
    assert [path.name for path in folder.rglob("*.*")] == ["dance0001.txt"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("output={file}", "is a file, expected a folder: type output=FOLDER"),
        ("output={folder}", "it holds mine.txt: type overwrite=true"),
    ],
)
def test_what_is_typed_is_checked_before_anything_runs(
    typed: str,
    message: str,
    run_folder: Path,
    tmp_path: Path,
    composed: Callable,
) -> None:
    (tmp_path / "mine.txt").touch()
    word = typed.format(file=tmp_path / "mine.txt", folder=tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate(composed("evaluate", f"checkpoint={run_folder}", "clips=1", word))
    assert not (tmp_path / "o").exists()


# --- checkpoints that cannot be used --------------------------------------------------------------


def _change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets an entry of the checkpoint's configuration."""
    *parents, last = key.split(".")

    def change(content: dict[str, Any]) -> None:
        node = content["hyper_parameters"]
        for parent in parents:
            node = node[parent]
        node[last] = value

    return change


def _weights(change: Callable[[str, Any], tuple[str, Any]]) -> Callable[[dict[str, Any]], None]:
    def changed(content: dict[str, Any]) -> None:
        content["state_dict"] = dict(change(k, v) for k, v in content["state_dict"].items())

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.clear, "holds no configuration .* type checkpoint=outputs/runs/NAME"),
        (
            lambda content: content.update(hyper_parameters={"seed": 1}),
            "has no configuration of model, .*: take another checkpoint",
        ),
        (_change("model.identity.width", 64), r"another model .*: \d+ of \d+ .* instead of \("),
        (
            _weights(lambda key, value: (key.replace("decoder", "transformer"), value)),
            "is of another model or an older layout: .* is missing; take another",
        ),
        (
            _weights(lambda key, value: (key, value.bfloat16())),
            "do not fit, the first: .* is bfloat16 instead of float32",
        ),
        (
            _change("model.backbone.freez", True),
            "freez: unknown key; did you mean model.backbone.f",
        ),
        (_change("model.backbone._target_", "os.system"), "os.system: must start with scene_track"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], None], message: str, run_folder: Path, tmp_path: Path
) -> None:
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    content = copy.deepcopy(content)
    change(content)
    file = tmp_path / "odd.ckpt"
    torch.save(content, file)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize(
    "word", ["recipe=mot", "head=scene3d", "model/backbone=timm", "denoiser=none"]
)
def test_what_would_be_ignored_beside_a_checkpoint_is_refused(
    run_folder: Path, tmp_path: Path, composed: Callable, word: str
) -> None:
    more = ["dataset.root=."] if "mot" in word else []
    cfg = composed("evaluate", f"checkpoint={run_folder}", f"output={tmp_path}/o", word, *more)
    with pytest.raises(ValueError, match=f"{word}: beside checkpoint= only dataset="):
        evaluate(cfg)
