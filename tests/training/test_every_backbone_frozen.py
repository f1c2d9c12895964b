"""Whatever the backbone: frozen means bit for bit, and no memory; checkpointed means the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import Tensor

from scene_track.models.backbones.base import Backbone
from scene_track.training.checkpointing import FOLDER, LAST
from tests.compose import compose_run
from tests.test_contracts import options
from tests.training.conftest import tensors

pytestmark = pytest.mark.slow  # trains every backbone several times

BACKBONES = options("model/backbone")


Build = Callable[..., Backbone]


@pytest.fixture
def build(tiny_backbone: Callable[[str], list[str]]) -> Build:
    """An entry of the group, small, with changes such as ``freeze=true``."""

    def built(name: str, *changes: str) -> Backbone:
        torch.manual_seed(0)
        overrides = tiny_backbone(name) + [f"model.backbone.{change}" for change in changes]
        return instantiate(compose_run(overrides).model.backbone)

    return built


def pictures(backbone: Backbone, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (backbone.size_multiple, 2 * backbone.size_multiple)
    return torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)


class Still(pl.Callback):
    """The frozen part must not move, and the features of a wholly frozen backbone neither."""

    def __init__(self) -> None:
        self.looks = 0
        self.first: dict[str, Tensor] = {}
        self.seen: Tensor | None = None

    def look(self, backbone: Backbone) -> None:
        self.looks += 1
        now = tensors(backbone)
        self.first = self.first or now
        thawed = backbone.stages()[backbone.frozen_stages :]
        parts = [part for stage in thawed for part in stage.modules]
        weights = [t for s in thawed for t in s.parameters()]
        moving_ids = {id(t) for t in [*weights, *(b for part in parts for b in part.buffers())]}
        named = [*backbone.named_parameters(), *backbone.named_buffers()]
        moving = {name for name, tensor in named if id(tensor) in moving_ids}
        for name, value in now.items():
            assert name in moving or torch.equal(value, self.first[name]), name
        if backbone.frozen:
            features = backbone(pictures(backbone))
            assert not features.cls.requires_grad
            levels = torch.cat([level.flatten() for level in features.levels])
            if self.seen is not None:
                assert torch.equal(levels, self.seen), "also what is drawn at random holds still"
            self.seen = levels

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.look(module.model.backbone)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.look(module.model.backbone)

    def on_train_end(self, trainer, module) -> None:
        self.look(module.model.backbone)


@pytest.mark.parametrize("schedule", ["freeze=true", "unfreeze_after=2"])
@pytest.mark.parametrize("name", BACKBONES)
def test_train_validate_save_resume_train(
    name: str, schedule: str, tiny: Any, tmp_path: Path, build: Build
) -> None:
    """With the second schedule the resumed run thaws the last stage, in its last epoch."""
    changes = [schedule]
    if schedule.startswith("unfreeze"):
        changes.append("unfreeze_blocks_per_epoch=1")

    def go(still: Still, epochs: int, resume: Path | None = None) -> Backbone:
        backbone = build(name, *changes)
        size = (backbone.size_multiple, 2 * backbone.size_multiple)
        module = tiny.TinyModule(backbone=backbone)
        train, val = tiny.loaders(length=4, size=size)
        trainer = tiny.trainer(tmp_path, extra=[still], max_epochs=epochs)
        trainer.fit(module, train, val, ckpt_path=None if resume is None else str(resume))
        return backbone

    still = Still()
    go(still, 1)
    backbone = go(still, 3, tmp_path / FOLDER / LAST)
    assert still.looks >= 3 * (2 + 2)
    if schedule.startswith("unfreeze"):
        stages = backbone.stages()
        assert backbone.frozen_stages == len(stages) - 1
        moved = {n for n, v in tensors(backbone).items() if not torch.equal(v, still.first[n])}
        assert moved, "the last stage has learnt"


def saved_bytes(backbone: Backbone) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights left out."""
    own = {value.data_ptr() for value in [*backbone.parameters(), *backbone.buffers()]}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if value.data_ptr() not in own:
            kept[value.data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        features = backbone(pictures(backbone))
        del features
    return sum(kept.values())


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_frozen_keeps_no_activations(name: str, build: Build) -> None:
    backbone = build(name).train()
    stages = len(backbone.stages())
    kept = []
    for frozen in range(stages + 1):
        backbone.set_frozen_stages(frozen)
        kept.append(saved_bytes(backbone))
    assert kept[0] > 0 and kept[-1] == 0
    assert kept == sorted(kept, reverse=True), "the graph begins at the first stage that trains"
    assert stages == 1 or kept[stages - 1] < kept[0]


@pytest.mark.parametrize("name", BACKBONES)
def test_checkpointing_gives_the_same(name: str, build: Build) -> None:
    """Loss, gradients and running statistics; with less kept."""
    plain, thrifty = build(name).train(), build(name, "checkpointing=true").train()
    thrifty.load_state_dict(plain.state_dict())
    for backbone in (plain, thrifty):
        torch.manual_seed(3)
        features = backbone(pictures(backbone))
        loss = features.cls.square().sum() + sum(x.square().sum() for x in features.levels)
        loss.backward()
    for (key, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        if not one.requires_grad:
            continue  # what no feature depends on
        assert one.grad is not None and other.grad is not None, key
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5, msg=key)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, thrifty.state_dict()[key]), f"{key} moved twice"
    assert list(thrifty.state_dict()) == list(plain.state_dict())
    assert saved_bytes(thrifty) < 0.7 * saved_bytes(plain)
    thrifty.set_frozen(True)
    assert saved_bytes(thrifty) == 0
