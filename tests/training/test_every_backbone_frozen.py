"""Whatever the backbone: frozen means bit for bit, and no memory; checkpointed means the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from scene_track.models.backbones.base import Backbone
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


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_frozen_holds_still_in_training(name: str, build: Build) -> None:
    """Weights, buffers, and what is drawn at random; stage by stage and as a whole."""
    backbone = build(name)
    for frozen in range(1, len(backbone.stages()) + 1):
        backbone.set_frozen_stages(frozen)
        backbone.train()
        before = tensors(backbone)
        backbone(pictures(backbone))
        parts = [part for stage in backbone.stages()[:frozen] for part in stage.modules]
        assert not any(module.training for part in parts for module in part.modules())
        own = {id(t) for part in parts for t in [*part.parameters(), *part.buffers()]}
        for key, value in [*backbone.named_parameters(), *backbone.named_buffers()]:
            assert id(value) not in own or torch.equal(value, before[key]), key
    first, second = (backbone(pictures(backbone)) for _ in range(2))
    assert not first.cls.requires_grad
    assert all(map(torch.equal, first.levels, second.levels))


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
