"""The export command: what it writes runs like the checkpoint, and says what it is."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

import scene_track
from scene_track.evaluate import evaluate
from scene_track.export import export
from scene_track.models.streaming_step import OnnxModel, halve
from scene_track.training import exported
from scene_track.training.trained_run import load_model

# A model of a few steps is sure of nobody.
EVERYBODY = ("tracker.birth=0.0", "tracker.exist_conf=0.0")


@pytest.fixture
def onnx_folder(run_folder: Path, session_folder: Path, composed: Callable) -> Path:
    """The run as ONNX, written once for all tests, which only read it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = session_folder / "onnx"
    with (session_folder / "onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "README.md").is_file():
            words = [f"checkpoint={run_folder}", f"output={folder}", "overwrite=true"]
            export(composed("export", *words))
    return folder


@pytest.fixture
def weights_folder(run_folder: Path, tmp_path: Path, composed: Callable) -> Path:
    words = [f"checkpoint={run_folder}", "format=safetensors", "license=apache-2.0"]
    return export(composed("export", *words, f"output={tmp_path / 'st'}")).parent


def _scores(where: Path, output: Path, composed: Callable, *words: str) -> dict:
    cfg = composed("evaluate", f"checkpoint={where}", f"output={output}", *EVERYBODY, *words)
    evaluate(cfg)
    return json.loads((output / "metrics.json").read_text())["combined"]


def _without_speed(scores: dict) -> dict:
    return {name: value for name, value in scores.items() if name != "frames_per_second"}


@pytest.mark.slow
def test_a_whole_video_scores_the_same_in_onnxruntime(
    run_folder: Path, onnx_folder: Path, tiny_dance: list[str], tmp_path: Path, composed: Callable
) -> None:
    data = [word for word in tiny_dance if word.startswith("dataset.root")]
    ours = _scores(run_folder, tmp_path / "torch", composed)
    theirs = _scores(onnx_folder, tmp_path / "onnx", composed, *data)
    assert theirs["HOTA"] == pytest.approx(ours["HOTA"], abs=2e-2)  # bf16 against fp32, 10 frames


@pytest.mark.slow
def test_the_step_equals_the_model_over_windows_and_padding(
    run_folder: Path, onnx_folder: Path
) -> None:
    model, cfg = load_model(run_folder / "checkpoints" / "best.ckpt")
    exported, _ = load_model(onnx_folder / "model.onnx")
    assert isinstance(exported, OnnxModel) and exported.identity is not None
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 6, 3, 4, 6, generator=generator) * 255
    frames = torch.nn.functional.interpolate(small.flatten(0, 1), list(cfg.dataset.size))
    frames = frames.to(torch.uint8).unsqueeze(0)
    seconds = torch.arange(6).unsqueeze(0) / 20
    padding = torch.tensor([[False, False, False, False, False, True]])
    states = [None, None]
    for part in (slice(0, 2), slice(2, 6)):
        given = (frames[:, part], seconds[:, part], padding[:, part])
        real = ~padding[:, part]
        with torch.inference_mode():
            (wanted, states[0]), (found, states[1]) = (
                each(*given, None, state)
                for each, state in zip((model, exported), states, strict=True)
            )
        for name in ("boxes", "exist_conf", "cls_logits", "tokens"):
            torch.testing.assert_close(
                getattr(found, name)[real], getattr(wanted, name)[real], atol=1e-4, rtol=1e-4
            )
    with pytest.raises(ValueError, match=r"dataset\.size=\["):
        exported(frames[..., :32, :32], seconds, padding)


@pytest.mark.slow
def test_a_video_is_tracked_alike_by_both(run_folder: Path, onnx_folder: Path) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (9, 8, 12, 3), dtype=np.uint8)
    frames = [np.kron(frame, np.ones((8, 8, 1), dtype=np.uint8)) for frame in coarse]
    found = []
    for where in (run_folder, onnx_folder / "model.onnx"):
        run = replace(scene_track.load(where, device="cpu"), autocast=torch.float32)
        everybody = OmegaConf.merge(run.tracker, {"birth": 0.0, "exist_conf": 0.0})
        assert isinstance(everybody, DictConfig)
        found.append(list(run.track(frames, fps=20, tracker=everybody)))
    assert sum(len(frame) for frame in found[0]) > 9
    for ours, theirs in zip(*found, strict=True):
        assert ours.ids.tolist() == theirs.ids.tolist()
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.05)


@pytest.mark.slow
def test_nothing_is_left_for_a_runtime_to_fuse_wrongly(onnx_folder: Path) -> None:
    import onnx

    graph = onnx.load(str(onnx_folder / "model.onnx")).graph
    assert not {"GridSample", "NonMaxSuppression", "If"} & {node.op_type for node in graph.node}
    inputs = [value.name for value in graph.input]
    outputs = [value.name for value in graph.output]
    assert inputs[:2] == ["frame", "seconds"]
    assert outputs[:4] == ["boxes", "scores", "class_logits", "tokens"]
    assert [f"next_{name}" for name in inputs[2:]] == outputs[4:]


@pytest.mark.slow
def test_half_weights_are_smaller_and_answer_nearly_the_same(
    onnx_folder: Path, tmp_path: Path
) -> None:
    import onnx

    full = onnx_folder / "model.onnx"
    proto = onnx.load(str(full))
    halve(proto)
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "half.onnx"
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size < 0.75 * full.stat().st_size
    answers = []
    for file in (full, path):
        model = OnnxModel(file, None)
        frame = torch.full((1, 1, 3, *model.size), 90, dtype=torch.uint8)
        answers.append(model(frame, torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))[0])
    apart = (answers[0].exist_conf - answers[1].exist_conf).abs().max()
    assert 0 < apart < 0.05


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_safetensors_rebuild_the_model(
    weights: str, run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    words = [f"checkpoint={run_folder}", "format=safetensors", f"weights={weights}"]
    path = export(composed("export", *words, f"output={tmp_path / 'new'}"))
    wanted, _ = load_model(run_folder / "checkpoints" / "best.ckpt")
    found, _ = load_model(path)
    exact = weights == "fp32"
    for (name, value), other in zip(
        wanted.state_dict().items(), found.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(
            other, value, atol=0 if exact else 1e-3, rtol=0 if exact else 1e-3, msg=name
        )
    stored = load_file(path)
    assert stored.keys() == wanted.state_dict().keys()


def test_an_exported_folder_is_evaluated_like_its_run(
    run_folder: Path,
    weights_folder: Path,
    tiny_dance: list[str],
    tmp_path: Path,
    composed: Callable,
) -> None:
    data = [word for word in tiny_dance if word.startswith("dataset.root")]
    ours = _scores(run_folder, tmp_path / "run", composed)
    theirs = _scores(weights_folder, tmp_path / "export", composed, *data)
    assert _without_speed(theirs) == _without_speed(ours)


def test_the_card_is_read_by_the_hub_and_names_no_path(
    weights_folder: Path, run_folder: Path
) -> None:
    from huggingface_hub import ModelCard

    head = ModelCard.load(weights_folder / "README.md").data.to_dict()
    assert head["license"] == "apache-2.0" and head["library_name"] == "scene_track"
    (result,) = head["model-index"][0]["results"]
    metrics = {row["type"]: row["value"] for row in result["metrics"]}
    recorded = json.loads((run_folder / "summary.json").read_text())["metrics"]
    assert metrics["hota"] == pytest.approx(recorded["val/hota"]["best"], abs=1e-4)
    for name in ("README.md", "config.yaml"):
        assert str(run_folder.parent) not in (weights_folder / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["config.yaml", "identity.safetensors"])
def test_half_a_folder_says_what_is_missing(damage: str, onnx_folder: Path, tmp_path: Path) -> None:
    for file in onnx_folder.iterdir():
        if file.name != damage:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match=damage):
        load_model(tmp_path / "model.onnx")


def test_other_files_are_refused(tmp_path: Path, weights_folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match=r"model\.onnx"):
        OnnxModel(tmp_path / "model.onnx", None)
    torn = weights_folder / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        load_model(torn)


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, half: bool) -> None:
    (tmp_path / exported.CONFIG).write_text("seed: 1\n")
    file = tmp_path / exported.WEIGHTS
    exported.write_weights(file, {"a": torch.ones(2), "b": torch.tensor((1, torch.inf))}, half=half)
    with pytest.raises(ValueError, match=r"model\.safetensors holds NaN .* in 1 of 2 .* b:"):
        exported.read_exported(file)


def test_what_exists_stays_unless_told(weights_folder: Path, run_folder: Path, composed) -> None:
    words = [f"checkpoint={run_folder}", "format=safetensors", f"output={weights_folder}"]
    with pytest.raises(ValueError, match="overwrite=true"):
        export(composed("export", *words))
    with pytest.raises(ValueError, match="an export already"):
        export(composed("export", f"checkpoint={weights_folder}", "output=elsewhere"))
