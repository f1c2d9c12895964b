"""Parameter groups: a partition, whatever is frozen, and no decay where it only biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from scene_track.models.backbones.base import Backbone, Stage
from scene_track.training.parameter_groups import (
    base_groups,
    build_parameter_groups,
    parameter_table,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model: Any = nn.Module()
        self.model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.model.decoder = nn.ModuleDict(
            {
                "attention": nn.MultiheadAttention(4, 2),
                "norm": nn.LayerNorm([2, 4]),
                "names": nn.Embedding(5, 4),
                "head": nn.Linear(4, 2),
            }
        )
        self.model.queries = nn.Parameter(torch.zeros(6, 4))
        self.model.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.tied = self.model.decoder["head"]


def by_name(module: nn.Module, groups: list) -> dict[str, dict]:
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


def groups_of(module: nn.Module, **options) -> list:
    plain = {"backbone_lr_scale": 1.0, "lr_scales": {}, "layer_decay": 1.0}
    return build_parameter_groups(module, **{"lr": 1.0, "weight_decay": 0.5, **plain, **options})


def test_only_matrices_decay() -> None:
    module = Net()
    decayed = {n for n, g in by_name(module, groups_of(module)).items() if g["weight_decay"] == 0.5}
    assert decayed == {
        "model.backbone.0.weight",
        "model.decoder.attention.in_proj_weight",
        "model.decoder.attention.out_proj.weight",
        "model.decoder.head.weight",
    }


def test_the_longest_prefix_gives_the_rate() -> None:
    module = Net()
    groups = groups_of(
        module,
        backbone_lr_scale=0.1,
        lr_scales={"model.decoder": 2.0, "model.decoder.head": 3.0, "model.backbone.1": 0.0},
    )
    rates = {name: group["lr"] for name, group in by_name(module, groups).items()}
    assert rates["model.backbone.0.bias"] == 0.1
    assert rates["model.backbone.1.weight"] == 0.0
    assert rates["model.decoder.names.weight"] == 2.0
    assert rates["model.decoder.head.bias"] == 3.0
    assert rates["model.queries"] == 1.0
    assert len({group["name"] for group in groups}) == len(groups)


@pytest.mark.parametrize("prefix", ["model.dec", "decoder", "model.decoder.head.weight.x"])
def test_a_prefix_without_parameters_is_named(prefix: str) -> None:
    with pytest.raises(ValueError, match=rf"no parameter below {prefix}.*model\.decoder"):
        groups_of(Net(), lr_scales={prefix: 1.0})


@pytest.mark.parametrize("option", ["backbone_lr_scale=0.1", "layer_decay=0.5"])
def test_rates_of_a_backbone_need_one(option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(ValueError, match=option):
        groups_of(nn.Linear(2, 2), **{name: float(value)})
    assert len(groups_of(nn.Linear(2, 2))) == 2


def test_every_parameter_is_in_one_group_once() -> None:
    module = Net()
    listed = [id(parameter) for group in groups_of(module) for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters())


class Staged(Backbone):
    """Three stages, one of them with a bare token."""

    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__(size_multiple=1, mean=half, std=half)
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.embedding, self.block = nn.Linear(3, 4), nn.Linear(4, 4)
        self.last, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def stages(self) -> list[Stage]:
        return [
            Stage("embedding", (self.embedding,), (self.token,)),
            Stage("block 0", (self.block,)),
            Stage("block 1", (self.last, self.norm)),
        ]


def staged() -> Any:
    module: Any = nn.Module()
    module.model = nn.Module()
    module.model.backbone, module.model.head = Staged(), nn.Linear(4, 2)
    return module


def test_layer_decay_goes_back_from_the_last_stage() -> None:
    module = staged()
    groups = groups_of(module, backbone_lr_scale=0.1, layer_decay=0.5)
    rates = {name: group["lr"] for name, group in by_name(module, groups).items()}
    assert rates["model.head.weight"] == 1.0
    expected = {"last.weight": 0.1, "norm.bias": 0.1, "block.bias": 0.05, "embedding.weight": 0.025}
    for name, rate in expected.items():
        assert rates[f"model.backbone.{name}"] == pytest.approx(rate), name
    assert rates["model.backbone.token"] == pytest.approx(0.025)
    decayed = {n for n, g in by_name(module, groups).items() if g["weight_decay"]}
    assert {n.removeprefix("model.backbone.") for n in decayed} == {
        "embedding.weight", "block.weight", "last.weight", "model.head.weight",
    }  # fmt: skip
    assert "model.backbone[block 0]/decay" in parameter_table(groups)
    inside = groups_of(module, lr_scales={"model.backbone.block": 3.0}, layer_decay=0.5)
    rates = {name: group["lr"] for name, group in by_name(module, inside).items()}
    assert rates["model.backbone.block.weight"] == 1.5


def test_the_rate_of_a_run_is_not_that_of_a_part_with_its_own() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    named = [
        {"params": weights[:1], "lr": 1e-3, "name": "base/decay"},
        {"params": weights[1:], "lr": 1e-2, "name": "model.identity.prior/no_decay"},
    ]
    assert [group["lr"] for group in base_groups([torch.optim.AdamW(named)])] == [1e-3]
    foreign = torch.optim.AdamW(weights, lr=0.5)  # without names
    assert [group["lr"] for group in base_groups([foreign])] == [0.5]
