"""The pre-flight check on a small configuration whose classes are written for the purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scene_track.config.check import ConfigError, check

_SOURCE = """
    from __future__ import annotations
    from typing import Annotated, ClassVar, Literal
    from pydantic import DirectoryPath, Field
    import torch

    class Net:
        def __init__(self, *, width: Annotated[int, Field(ge=1)], freeze: bool = False,
                     size_multiple: Annotated[int, Field(ge=1)] = 16): ...

    class Model:
        def __init__(self, *, backbone: Net, dim: Annotated[int, Field(ge=4, multiple_of=4)]): ...

    class Data:
        def __init__(self, *, root: DirectoryPath, size: tuple[int, int],
                     splits: dict[str, str] | None = None,
                     order: Literal["random", "sorted"] = "random"): ...

    class Evaluator:
        LOGS: ClassVar[tuple[str, ...]] = ("val/hota", "val/idf1")
        def __init__(self, *, dim: Annotated[int, Field(ge=16)], frames: int = 1): ...

    class Silent:
        def __init__(self, *, dim: int): ...

    def optimizer(*, params, lr: Annotated[float, Field(gt=0, le=1)] = 1e-3,
                  betas: tuple[float, float] = (0.9, 0.999)): ...
"""


@pytest.fixture(autouse=True, scope="module")
def package(importable: Callable[..., Path]) -> None:
    importable({"paper_project.py": _SOURCE})


def _config() -> dict[str, Any]:
    return {
        "seed": 1,
        "experiment_name": "paper",
        "monitor": {"metric": "val/hota", "mode": "max"},
        "viz": {"max_frames": 8},
        "resume_from": None,
        "init_from": None,
        "dry_run": False,
        "init_parts": None,
        "init_partial": False,
        "run_dir": "out",
        "trusted_targets": ["paper_project"],
        "dataset": {"_target_": "paper_project.Data", "root": "/", "size": [128, 224]},
        "model": {
            "_target_": "paper_project.Model",
            "dim": 64,
            "backbone": {"_target_": "paper_project.Net", "width": 8},
        },
        "head": {"evaluator": {"_target_": "paper_project.Evaluator", "dim": "${model.dim}"}},
        "optimizer": {"_target_": "paper_project.optimizer", "_partial_": True, "lr": 1e-3},
    }


def _faults(change: Callable[[dict[str, Any]], Any]) -> list[str]:
    config = _config()
    change(config)
    try:
        check(OmegaConf.create(config))
    except ConfigError as error:
        return str(error).split("\n")
    return []


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[key] = value

    return change


def test_a_right_configuration_passes_unchanged() -> None:
    config = OmegaConf.create(_config())
    before = copy.deepcopy(config)
    check(config)
    assert config == before


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("optimizer.lr", "abc", "optimizer.lr=abc: must be a valid number"),
        ("optimizer.lr", True, "optimizer.lr=true: must be a valid number"),
        ("optimizer.betas", [0.9], "optimizer.betas[1]: is required"),
        ("model.dim", 6, "model.dim=6: must be a multiple of 4"),
        ("model.backbone.width", 8.0, "model.backbone.width=8.0: must be a valid integer"),
        ("model.backbone.freeze", 1, "model.backbone.freeze=1: must be a valid boolean"),
        ("dataset.order", "rand", "dataset.order=rand: must be 'random' or 'sorted'"),
        ("dataset.root", "/no/such", "dataset.root=/no/such: path does not point to a directory"),
        ("dataset.splits", {"train": 3}, "dataset.splits.train=3: must be a valid string"),
        ("seed", -1, "seed=-1: must be greater than or equal to 0"),
        ("viz", 3, "viz=3: must be an object"),
        ("trusted_targets", "x", "trusted_targets=x: must be a valid array"),
    ],
)
def test_one_line_names_key_value_and_what_is_allowed(path: str, value: Any, line: str) -> None:
    assert line in _faults(_set(path, value))


def test_fine_values() -> None:
    fine = {"dataset.splits": [{"train": "a"}, None], "model.backbone.freeze": [True]}
    for path, values in {**fine, "optimizer.lr": [1], "resume_from": ["/"]}.items():
        assert all(_faults(_set(path, value)) == [] for value in values), path


@settings(deadline=None, max_examples=40)
@given(st.floats(allow_nan=True) | st.integers())
def test_a_range_is_enforced_for_every_number(value: float) -> None:
    assert (_faults(_set("optimizer.lr", value)) == []) == (0 < value <= 1)


def test_unknown_keys_with_the_near_ones() -> None:
    (line,) = _faults(_set("model.backbone.freez", True))
    assert line == (
        "model.backbone.freez: unknown key; did you mean model.backbone.freeze?"
        " allowed: freeze, size_multiple, width"
    )
    (line,) = _faults(_set("seeds", 3))
    assert line.startswith("seeds: unknown key; did you mean seed?")
    (line,) = _faults(_set("monitor.metrik", "x"))
    assert line == "monitor.metrik: unknown key; did you mean monitor.metric? allowed: metric, mode"


def test_all_faults_are_told_at_once() -> None:
    def change(config: dict[str, Any]) -> None:
        config["optimizer"]["lr"] = "abc"
        config["seed"] = -1
        config["model"]["backbone"]["width"] = 0

    keys = [line.split("=")[0] for line in _faults(change)]
    assert sorted(keys) == ["model.backbone.width", "optimizer.lr", "seed"]


def test_missing_values_say_what_to_type() -> None:
    (line,) = _faults(_set("dataset.root", "???"))
    assert line == "dataset.root is required: type dataset.root=VALUE"
    (line,) = _faults(lambda config: config["model"]["backbone"].pop("width"))
    assert line == "model.backbone.width is required: type +model.backbone.width=VALUE"
    (line,) = _faults(_set("viz.max_frames", "???"))
    assert line.startswith("viz.max_frames is required")


def test_a_missing_value_is_told_once_though_others_refer_to_it() -> None:
    def change(config: dict[str, Any]) -> None:
        config["model"]["dim"] = "???"
        config["dataset"]["size"] = ["${model.dim}", 32]

    (line,) = _faults(change)
    assert line.startswith("model.dim is required")


def test_partial_nodes_need_not_be_complete() -> None:
    assert _faults(lambda config: config["optimizer"].pop("lr")) == []
    lines = _faults(lambda config: config["optimizer"].pop("_partial_"))
    assert lines == ["optimizer.params is required: type +optimizer.params=VALUE"]


def test_a_reference_is_spoken_of_by_the_key_that_a_person_types() -> None:
    # 8 is fine for the model and too small for the evaluator, which takes it from the model.
    (line,) = _faults(_set("model.dim", 8))
    assert line == "model.dim=8: must be greater than or equal to 16 (for head.evaluator.dim)"
    # Wrong for both: told once, by the owner.
    (line,) = _faults(_set("model.dim", "x"))
    assert line == "model.dim=x: must be a valid integer"


def test_relative_references_and_shared_nodes() -> None:
    def change(config: dict[str, Any]) -> None:
        config["head"]["frames"] = "x"
        config["head"]["evaluator"]["frames"] = "${..frames}"
        config["copy"] = {"evaluator": "${head.evaluator}"}

    assert _faults(change) == ["head.frames=x: must be a valid integer (for head.evaluator.frames)"]


def test_an_interpolation_that_leads_nowhere() -> None:
    (line,) = _faults(_set("optimizer.lr", "${rates.fast}"))
    assert line.startswith("optimizer.lr=${rates.fast}: cannot be resolved: Interpolation key")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("os.system", "must start with scene_track."),
        ("builtins.open", "must start with scene_track."),
        ("torch.load", "must start with scene_track."),
        ("torch.hub.load", "must start with scene_track."),
        ("paper_projectile.Net", "must start with scene_track."),
        (3, "must start with scene_track."),
        ("paper_project.torch.load", "leads to torch.serialization.load, which is not allowed"),
        ("torch.nn.modules.module.torch.load", "leads to torch.serialization.load"),
        ("paper_project.Nett", "cannot be imported: No module named 'paper_project.Nett'"),
    ],
)
def test_only_known_targets(target: Any, words: str) -> None:
    lines = _faults(_set("model.backbone._target_", target))
    assert any(line.startswith("model.backbone._target_=") and words in line for line in lines)


def test_positional_arguments() -> None:
    node = {"_target_": "torch.nn.Linear", "_args_": [3, 4]}
    assert _faults(_set("model.backbone", node)) == []
    node = {"_target_": "torch.nn.Linear", "_args_": [3]}
    (line,) = _faults(_set("more", {"nets": [1, node]}))
    assert line.startswith("more.nets[1].out_features is required")


def test_image_size_and_the_two_nearest() -> None:
    (line,) = _faults(_set("dataset.size", [100, 224]))
    assert line == (
        "dataset.size=[100,224]: height and width must be multiples of 16 for model.backbone;"
        " the nearest are [96,224] or [112,224]"
    )

    def change(config: dict[str, Any]) -> None:
        config["dataset"]["size"] = [8, 224]
        config["model"]["backbone"]["size_multiple"] = 32

    (line,) = _faults(change)
    assert line.endswith("multiples of 32 for model.backbone; the nearest are [32,224]")


@pytest.mark.parametrize("target", ["os.system", "paper_project.torch.load"])
def test_a_class_that_is_refused_is_not_looked_into(target: str) -> None:
    """Cross checks import what they compare, so they leave out what is not trusted."""
    lines = _faults(_set("head.evaluator._target_", target))
    assert [line.split("=")[0] for line in lines] == ["head.evaluator._target_"]


def test_monitor_must_be_logged_by_the_evaluator() -> None:
    (line,) = _faults(_set("monitor.metric", "val/hot"))
    assert line == (
        "monitor.metric=val/hot: Evaluator does not log it; did you mean val/hota?"
        " allowed: val/hota, val/idf1"
    )
    (line,) = _faults(_set("head.evaluator._target_", "paper_project.Silent"))
    assert line.startswith("monitor.metric=val/hota: Silent does not log it")


def test_the_working_folder_is_named() -> None:
    (line,) = _faults(_set("dataset.root", "no/such"))
    assert f"(looked in {Path.cwd()})" in line


def test_root_keys_described_by_a_function() -> None:
    right = {"params": 1, "lr": 0.1}
    check(OmegaConf.create(right), root="paper_project.optimizer")
    with pytest.raises(ConfigError, match=r"lr=2: must be less than or equal to 1"):
        check(OmegaConf.create(right | {"lr": 2}), root="paper_project.optimizer")
    with pytest.raises(ConfigError, match="lrr: unknown key; did you mean lr"):
        check(OmegaConf.create(right | {"lrr": 2}), root="paper_project.optimizer")


def test_a_trial_of_a_sweep_trains_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"devices": 2, "num_nodes": 2}
    assert _faults(lambda config: config.update(trainer=nodes)) == [], "a single run may on more"
    monkeypatch.setenv("SCENE_TRACK_OUTCOME", "somewhere")
    (line,) = _faults(lambda config: config.update(trainer=nodes))
    assert line.startswith("trainer.num_nodes=2: a trial of a sweep trains on one machine")
    assert _faults(lambda config: config.update(trainer={"devices": 2, "num_nodes": 1})) == []


def test_a_node_at_the_root_that_nothing_reads_is_refused(composed) -> None:
    cfg = composed("config", "+Trainer.max_epochs=3")
    with pytest.raises(ConfigError, match="Trainer: unknown key; did you mean trainer"):
        check(cfg)
    check(composed("config", "run_dir=x", "+paper.lr=1e-3", "optimizer.lr=${paper.lr}"))
