"""AdamW: the configured numbers, plain AdamW's arithmetic, and clipping under mixed precision."""

from __future__ import annotations

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from scene_track.config.check import ConfigError, check_objects
from scene_track.training.optimizers import adamw
from tests.compose import compose_run

SETTINGS = {
    "lr": 0.1,
    "betas": [0.9, 0.98],
    "weight_decay": 0.3,
    "eps": 1e-6,
    "backbone_lr_scale": 1.0,
    "lr_scales": {},
    "layer_decay": 1.0,
}


def step(module: nn.Module, optimizer: torch.optim.Optimizer, times: int = 3) -> None:
    for index in range(times):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(2, 3, 6, 6, generator=generator)
        module(x).square().mean().backward()
        optimizer.step()


def test_a_rate_of_zero_is_no_way_to_freeze() -> None:
    """Running statistics of batch norms would move."""
    cfg = compose_run(["optimizer.backbone_lr_scale=0"])
    with pytest.raises(ConfigError, match="backbone_lr_scale=0: .*type model.backbone.freeze=true"):
        check_objects(OmegaConf.create({"optimizer": cfg.optimizer}), ())


def test_equals_the_plain_implementation() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    reference = copy.deepcopy(ours)
    step(ours, adamw(ours, **SETTINGS))
    matrices = [reference[0].weight, reference[2].weight]
    others = [p for p in reference.parameters() if all(p is not m for m in matrices)]
    plain = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}],
        lr=0.1,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=False,
    )
    step(reference, plain)
    for left, right in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("saved_as", [torch.contiguous_format, torch.channels_last])
def test_a_state_of_another_memory_layout_is_not_mixed_up(saved_as: torch.memory_format) -> None:
    """The fused kernel ignores strides: the loaded state must lie as its parameter does."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3)
    optimizer = adamw(first, **SETTINGS)
    assert optimizer.defaults["fused"]
    assert not optimizer._step_supports_amp_scaling, "Lightning may clip its gradients"
    step(first, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    for moments in state["state"].values():
        for key, value in moments.items():
            if value.ndim == 4:
                moments[key] = value.contiguous(memory_format=saved_as)
    second = copy.deepcopy(first).to(memory_format=torch.channels_last)
    resumed = adamw(second, **SETTINGS)
    resumed.load_state_dict(state)
    step(first, optimizer, times=1)
    step(second, resumed, times=1)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-4, atol=1e-5)
