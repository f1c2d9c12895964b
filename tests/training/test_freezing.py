"""Frozen: no gradient, no graph, eval mode, buffers untouched; also around a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from scene_track.train import build_module, train
from scene_track.training.checkpointing import FOLDER, LAST
from scene_track.training.freezing import BackboneFreezing
from scene_track.training.parameter_groups import build_parameter_groups
from scene_track.training.trained_run import load_model
from tests.compose import TINY, compose_run
from tests.training.conftest import tensors

pytestmark = pytest.mark.slow


class Watch(pl.Callback):
    """Looks at the backbone in every step, and at validations in between."""

    def __init__(self) -> None:
        self.frozen: dict[tuple[int, int], int] = {}
        self.before: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        backbone = module.model.backbone
        self.before = tensors(backbone)
        for index, stage in enumerate(backbone.stages()):
            thawed = index >= backbone.frozen_stages
            assert all(p.requires_grad == thawed for p in stage.parameters())
            assert all(m.training == thawed for part in stage.modules for m in part.modules())
        if backbone.frozen:
            assert not any(part.training for part in backbone.modules())
            assert not module.model.backbone(batch["frames"]).levels[0].requires_grad, "no graph"

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        backbone = module.model.backbone
        now = tensors(backbone)
        for index, stage in enumerate(backbone.stages()):
            names = [n for n in now if any(n.startswith(part) for part in parts(backbone, stage))]
            assert names
            same = [torch.equal(now[name], self.before[name]) for name in names]
            if index < backbone.frozen_stages:
                assert all(same), "weights and running statistics hold still"
                assert all(p.grad is None for p in stage.parameters())
            else:
                assert not any(same)
        self.frozen[trainer.current_epoch, batch_idx] = backbone.frozen_stages


def parts(backbone: torch.nn.Module, stage: Any) -> list[str]:
    """Prefixes of the names of a stage's tensors."""
    return [f"{name}." for name, part in backbone.named_modules() if part in stage.modules]


def watched(tiny: Any, run: Path, schedule: dict, **options: Any) -> tuple[Watch, Any]:
    watch = Watch()
    tiny.seed_everything(1)  # the same first weights in every run
    module = tiny.TinyModule(**schedule)
    options["extra"] = [watch, *options.get("extra", [])]
    tiny.fit(run, module=module, **options)
    return watch, module


@pytest.mark.parametrize(
    ("schedule", "frozen"),
    [
        ({}, [0, 0, 0]),
        ({"freeze": True}, [2, 2, 2]),
        ({"unfreeze_after": 1}, [2, 0, 0]),
        ({"freeze": True, "unfreeze_after": 2}, [2, 2, 0]),
        ({"freeze": True, "unfreeze_after": 0}, [0, 0, 0]),
        ({"unfreeze_after": 1, "unfreeze_blocks_per_epoch": 1}, [2, 1, 0]),
        ({"unfreeze_after": 0, "unfreeze_blocks_per_epoch": 1}, [1, 0, 0]),
        ({"unfreeze_after": 1, "unfreeze_blocks_per_epoch": 7}, [2, 0, 0]),
    ],
)
def test_schedule(tiny: Any, tmp_path: Path, schedule: dict, frozen: list[int]) -> None:
    watch, module = watched(tiny, tmp_path, schedule)
    assert watch.frozen == {(e, b): frozen[e] for e in range(3) for b in range(7)}
    assert [module.model.backbone.frozen_at(e) for e in range(3)] == [n == 2 for n in frozen]


@pytest.mark.parametrize(("stop", "gradual"), [((0, 4), None), ((1, 3), 1), ((2, 2), 1)])
def test_resume_before_and_after_the_thaw(
    tiny: Any, tmp_path: Path, stop: tuple, gradual: int | None
) -> None:
    schedule = {"unfreeze_after": 1, "unfreeze_blocks_per_epoch": gradual}
    whole, whole_module = watched(tiny, tmp_path / "whole", schedule)
    strike = tiny.Stop("on_train_batch_start", *stop, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        watched(tiny, tmp_path / "cut", schedule, extra=[strike])
    checkpoint = tmp_path / "cut" / FOLDER / LAST
    rest, module = watched(tiny, tmp_path / "cut", schedule, resume=checkpoint)
    expected = {place: frozen for place, frozen in whole.frozen.items() if place >= stop}
    assert rest.frozen == expected
    for key, value in whole_module.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key


def test_the_optimisers_layout_knows_nothing_of_freezing(tiny: Any) -> None:
    def layout(**schedule: Any) -> list[tuple[str, float, list[torch.Size]]]:
        module = tiny.TinyModule(**schedule)
        backbone = module.model.backbone
        backbone.set_frozen_stages(backbone.frozen_stages_at(0))
        rates = {"lr": 1.0, "backbone_lr_scale": 1.0, "lr_scales": {}, "layer_decay": 0.5}
        groups = build_parameter_groups(module, weight_decay=0.1, **rates)
        return [(g["name"], g["lr"], [p.shape for p in g["params"]]) for g in groups]

    assert layout() == layout(freeze=True) == layout(unfreeze_after=2)
    assert layout() == layout(unfreeze_after=0, unfreeze_blocks_per_epoch=1)


def test_contradictions_are_refused(tiny: Any) -> None:
    with pytest.raises(ValueError, match="model.backbone.unfreeze_after=N"):
        tiny.TinyModule(freeze=True, unfreeze_blocks_per_epoch=1)
    for schedule in ({}, {"unfreeze_after": 0}, {"freeze": True, "unfreeze_after": 0}):
        with pytest.raises(ValueError, match="type model.backbone.freeze=true"):
            tiny.TinyModule(cache=True, **schedule)


def test_thaw_under_plain_ddp_is_refused(tiny: Any) -> None:
    """DDP would wait for the gradients of a backbone that was frozen after it had been wrapped."""
    trainer: Any = SimpleNamespace(strategy=DDPStrategy())
    callback = BackboneFreezing()
    with pytest.raises(ValueError, match="ddp_find_unused_parameters_true"):
        callback.setup(trainer, tiny.TinyModule(unfreeze_after=1), "fit")
    callback.setup(trainer, frozen := tiny.TinyModule(freeze=True), "fit")
    assert frozen.model.backbone.frozen, "frozen for good, before DDP looks"
    trainer.strategy = DDPStrategy(find_unused_parameters=True)
    callback.setup(trainer, thawing := tiny.TinyModule(unfreeze_after=1), "fit")
    assert not thawing.model.backbone.frozen, "DDP must see these parameters"


def test_random_weights_that_never_learn_are_called_out_once_and_in_training_alone(
    tiny_backbone: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("scene_track.training.dry_run.dry_run", lambda *_, **__: None)
    frozen = "model.backbone.freeze=true"
    shared = [*TINY, *tiny_backbone("timm"), f"dataset.root={tmp_path}", "debug=dry_run"]

    def said(*overrides: str) -> int:
        """How often, in a run with these overrides."""
        caplog.clear()
        train(compose_run([*shared, *overrides]))
        return caplog.text.count("a random network that never learns")

    assert said(frozen) == 1
    assert said() == said(frozen, "model.backbone.unfreeze_after=2") == 0
    module = build_module(compose_run([*shared, frozen]))
    saved = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}
    torch.save(saved, tmp_path / "trained.ckpt")
    brought = f"init_from={tmp_path / 'trained.ckpt'}"
    assert said(frozen, brought) == 0
    assert said(frozen, brought, "init_parts=[model.head]") == 1
    caplog.clear()
    load_model(tmp_path / "trained.ckpt")  # as evaluate, compare and submit do
    assert "never learns" not in caplog.text
