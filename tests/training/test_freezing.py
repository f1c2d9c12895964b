"""Frozen: no gradient, no graph, eval mode, buffers untouched; also around a resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from scene_track.training.checkpointing import FOLDER, LAST
from scene_track.training.freezing import BackboneFreezing


class Watch(pl.Callback):
    """Looks at the backbone in every step, and at validations in between."""

    def __init__(self) -> None:
        self.frozen: dict[tuple[int, int], bool] = {}
        self.before: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        backbone = module.model.backbone
        self.before = {k: v.clone() for k, v in backbone.state_dict().items()}
        if backbone.frozen:
            assert not any(part.training for part in backbone.modules())
            assert not any(p.requires_grad for p in backbone.parameters())
            assert not module.model.backbone(batch["frames"]).levels[0].requires_grad, "no graph"
        else:
            assert all(part.training for part in backbone.modules())
            assert all(p.requires_grad for p in backbone.parameters())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        backbone = module.model.backbone
        same = {k: torch.equal(v, self.before[k]) for k, v in backbone.state_dict().items()}
        if backbone.frozen:
            assert all(same.values()), "weights and running statistics hold still"
            assert all(p.grad is None for p in backbone.parameters())
        else:
            assert not same["conv.weight"]
            assert not same["norm.running_mean"]
        self.frozen[trainer.current_epoch, batch_idx] = backbone.frozen


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
        ({}, [False, False, False]),
        ({"freeze": True}, [True, True, True]),
        ({"unfreeze_after": 1}, [True, False, False]),
        ({"freeze": True, "unfreeze_after": 2}, [True, True, False]),
        ({"freeze": True, "unfreeze_after": 0}, [False, False, False]),
    ],
)
def test_schedule(tiny: Any, tmp_path: Path, schedule: dict, frozen: list[bool]) -> None:
    watch, _ = watched(tiny, tmp_path, schedule)
    assert watch.frozen == {(e, b): frozen[e] for e in range(3) for b in range(7)}


@pytest.mark.parametrize("stop", [(0, 4), (1, 3), (2, 2)])
def test_resume_before_and_after_the_thaw(tiny: Any, tmp_path: Path, stop: tuple) -> None:
    whole, whole_module = watched(tiny, tmp_path / "whole", {"unfreeze_after": 1})
    strike = tiny.Stop("on_train_batch_start", *stop, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        watched(tiny, tmp_path / "cut", {"unfreeze_after": 1}, extra=[strike])
    checkpoint = tmp_path / "cut" / FOLDER / LAST
    rest, module = watched(tiny, tmp_path / "cut", {"unfreeze_after": 1}, resume=checkpoint)
    expected = {place: frozen for place, frozen in whole.frozen.items() if place >= stop}
    assert rest.frozen == expected
    for key, value in whole_module.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key


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
