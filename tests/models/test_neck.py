"""The neck: maps at the strides asked for, from whatever levels; a branch for fine maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scene_track.models.backbones.base import cover
from scene_track.models.neck import FeaturePyramid
from scene_track.models.scene import SceneModel
from scene_track.models.side_branch import SideBranch
from scene_track.train import build_module
from tests.compose import TINY, arguments, compose_run, make_batch


def levels_of(dims: tuple[int, ...], strides: tuple[int, ...], size: int = 64) -> list[Tensor]:
    return [torch.randn(2, d, size // s, size // s) for d, s in zip(dims, strides, strict=True)]


def pyramid(**options: Any) -> FeaturePyramid:
    return FeaturePyramid(**arguments("model.neck") | options)


@pytest.mark.parametrize(
    ("dims", "strides", "options", "out"),
    [
        ((6,), (16,), {}, (16,)),  # a ViT
        ((6,), (16,), {"stride": 8}, (8,)),
        ((6,), (16,), {"stride": 8, "sample_stride": 4}, (4, 8)),
        ((6,), (16,), {"side_channels": [4, 6]}, (4, 8)),
        ((6,), (16,), {"side_channels": [4, 6], "sample_stride": 8}, (8,)),
        ((6,), (16,), {"side_channels": [4], "stride": 8}, (4, 8)),
        ((6,), (8,), {}, (8,)),  # the hybrid
        ((4, 6), (4, 8), {}, (4, 8)),
        ((4, 6, 8, 10), (4, 8, 16, 32), {}, (4, 8)),  # a ConvNeXt
        ((4, 6, 8, 10), (4, 8, 16, 32), {"stride": 16, "sample_stride": 8}, (8, 16)),
        ((6,), (14,), {}, (14,)),
    ],
)
def test_maps_have_the_strides_asked_for(
    dims: tuple[int, ...], strides: tuple[int, ...], options: dict, out: tuple[int, ...]
) -> None:
    neck = pyramid(dims=dims, strides=strides, dim=16, **options)
    assert neck.out_strides == out and (neck.sample_stride, neck.stride) == (out[0], out[-1])
    maps = neck(levels_of(dims, strides), torch.randn(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, 64 // s, 64 // s) for width, s in zip(neck.out_dims, out, strict=True)
    ]
    if not neck.passes:
        torch.stack([m.square().mean() for m in maps]).sum().backward()
    assert all(p.grad is not None for p in neck.parameters()), "DDP would hang"


def test_levels_that_fit_go_through_untouched() -> None:
    neck = pyramid(dims=(4, 6), strides=(4, 8), dim=16)
    levels = levels_of((4, 6), (4, 8))
    assert all(a is b for a, b in zip(neck(levels), levels, strict=True))
    assert not list(neck.parameters())


def test_coarse_levels_reach_the_fine_map() -> None:
    neck = pyramid(dims=(4, 6, 8, 10), strides=(4, 8, 16, 32), dim=16).eval()
    levels = levels_of((4, 6, 8, 10), (4, 8, 16, 32))
    before = neck(levels)[0]
    levels[3] = torch.randn_like(levels[3])
    assert not torch.allclose(before, neck(levels)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 32}, "model.neck.stride=32: .*stride 16"),
        ({"stride": 6}, "divided by a power of two"),
        ({"stride": 8, "sample_stride": 16}, "coarser than the proposals' stride 8"),
        ({"side_channels": [4, 4, 4]}, "has stride 16 already"),
        ({"side_channels": [4], "sample_stride": 16, "stride": 16}, "nothing looks at"),
    ],
)
def test_strides_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pyramid(dims=(6,), strides=(16,), dim=16, **options)


def test_the_branch_trains_under_a_frozen_backbone() -> None:
    torch.manual_seed(0)
    cfg = compose_run(
        [
            *TINY,
            "model/backbone=dinov3_vits16",
            "model.backbone.weights=null",
            "model.backbone.unfreeze_after=1",
            "model.neck.side_channels=[4,6]",
        ]
    )
    module = build_module(cfg).train()
    assert isinstance(module.model, SceneModel)
    module.model.backbone.set_frozen(True)
    _, losses, _ = module.losses(make_batch(), denoise=True)
    losses["total"].backward()
    grads = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert not [name for name, grad in grads.items() if grad is None]
    side = [grad for name, grad in grads.items() if name.startswith("model.neck.side.")]
    assert side and all(grad is not None and grad.abs().sum() > 0 for grad in side)
    assert not any(name.startswith("model.backbone.") for name in grads)
    assert module.model.neck.side is not None and module.model.neck.side.training


@pytest.mark.parametrize("width", [64, 60, 57])
def test_a_padded_map_covers_the_picture_alone(width: int) -> None:
    """A ramp over the picture must read the same at the same place in 0-1."""
    stride, padded = 8, 64
    ramp = (torch.arange(padded // stride) + 0.5) * stride
    level = ramp.expand(1, 1, 4, -1)
    found = cover(level, stride, 32, width)[0, 0, 0]
    columns = -(-width // stride)
    places = (torch.arange(columns) + 0.5) / columns * width
    torch.testing.assert_close(found, places.clamp(float(ramp[0]), float(ramp[-1])))


def test_the_branch_takes_any_size() -> None:
    branch = SideBranch([4, 6]).eval()
    maps = branch(torch.randn(1, 3, 45, 61))
    assert [tuple(m.shape[-2:]) for m in maps] == [(12, 16), (6, 8)]


@pytest.mark.parametrize("size", [(36, 44), (45, 61)])
def test_a_padded_model_trains_and_its_cells_are_places_of_the_picture(
    size: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    module = build_module(compose_run([*TINY, "model.backbone.size_policy=pad"])).train()
    _, losses, _ = module.losses(make_batch(size=size), denoise=True)
    losses["total"].backward()
    assert not [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    # a bright spot moves the feature of its own cell, in 0-1 of the picture, the most
    backbone = module.model.backbone
    assert backbone is not None
    backbone.eval()
    frames = torch.full((2, 3, *size), 90, dtype=torch.uint8)
    row, column = size[0] - 6, size[1] - 6
    frames[1, :, row : row + 4, column : column + 4] = 255
    with torch.no_grad():
        level = backbone(frames).levels[0]
    changed = (level[1] - level[0]).abs().sum(0)
    y, x = divmod(int(changed.argmax()), changed.shape[1])
    assert abs((y + 0.5) / changed.shape[0] - (row + 2) / size[0]) <= 1 / changed.shape[0]
    assert abs((x + 0.5) / changed.shape[1] - (column + 2) / size[1]) <= 1 / changed.shape[1]
