"""DINOv3 by Meta's own code, from the submodule ``third_party/dinov3``.

In effect ``torch.hub.load("third_party/dinov3", "dinov3_vits16", source="local", weights=...)``,
without its traps: that call imports every head of the repository and with it packages that no
backbone needs; it copies the file into a cache by its base name and takes whatever lies there under
that name, stale or truncated; it checks no hash; and in training mode its networks rescale rotary
coordinates at random. Here the repository's factory builds the network without weights, and ours
are loaded strictly.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch._dynamo.config
from torch import Tensor, nn

from scene_track.models.backbones.base import Stage
from scene_track.models.backbones.dinov3.loader import as_map, block_stages, pyramid_blocks
from scene_track.models.backbones.dinov3.variants import PATCH, ConvNeXtVariant, Variant, VitVariant

_COMPILER_OPTIONS = ("automatic_dynamic_shapes", "accumulated_cache_size_limit")


def official_factories(repository: str | Path) -> Any:
    """The module ``dinov3.hub.backbones`` of a checkout of the official repository.

    Args:
        repository: folder that holds ``hubconf.py`` and the package ``dinov3``.

    Raises:
        FileNotFoundError: it is not there; says what brings it.
        ValueError: another copy of the package is loaded already.
    """
    folder = Path(repository).expanduser().resolve()
    wanted = folder / "dinov3" / "hub" / "backbones.py"
    if not wanted.is_file():
        raise FileNotFoundError(
            f"model.backbone.loader=hub needs the official DINOv3 code at {repository}: type"
            " make third-party, or say where a checkout is with"
            " model.backbone.repository=PATH; loader=timm gives the same features without it"
        )
    sys.path.insert(0, str(folder))
    # The package sets options of torch.compile for the whole process when it is imported.
    compiler = torch._dynamo.config
    before = {name: getattr(compiler, name) for name in _COMPILER_OPTIONS}
    try:
        module = importlib.import_module("dinov3.hub.backbones")
    finally:
        sys.path.remove(str(folder))
        for name, value in before.items():
            setattr(compiler, name, value)
    if module.__file__ is None or Path(module.__file__).resolve() != wanted:
        raise ValueError(
            f"model.backbone.repository={repository}: the package dinov3 is loaded from"
            f" {module.__file__} already; one process can use one copy"
        )
    return module


class _Hub:
    def __init__(self, repository: str | Path) -> None:
        self._repository = repository

    def _network(self, variant: Variant) -> Any:
        factories = official_factories(self._repository)
        return getattr(factories, f"dinov3_{variant.name}")(pretrained=False)

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """The names are the network's own."""
        return state


class HubVit(_Hub):
    """``dinov3.models.vision_transformer.DinoVisionTransformer``."""

    def build(self, variant: VitVariant) -> nn.Module:
        """The network of a size."""
        net = self._network(variant)
        net.rope_embed.rescale_coords = None
        for block in net.blocks:
            nn.init.ones_(block.ls1.gamma)
            nn.init.ones_(block.ls2.gamma)
        return net

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``x_norm_patchtokens`` and ``x_norm_clstoken``."""
        found = cast(Any, net).forward_features(images)
        patches = as_map(found["x_norm_patchtokens"], images, PATCH)
        return (patches,), found["x_norm_clstoken"]

    def stages(self, net: nn.Module) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks."""
        vit = cast(Any, net)
        return block_stages(
            list(vit.blocks),
            first=(vit.patch_embed,),
            last=(vit.norm,),
            tokens=tuple(vit.parameters(recurse=False)),
        )


class HubConvNeXt(_Hub):
    """``dinov3.models.convnext.ConvNeXt``."""

    def build(self, variant: ConvNeXtVariant) -> nn.Module:
        """The network of a size."""
        net = self._network(variant)
        for stage in net.stages:
            for block in stage:
                nn.init.ones_(block.gamma)
        return net

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``get_intermediate_layers`` of all four resolutions and ``x_norm_clstoken``."""
        found = cast(Any, net).get_intermediate_layers(
            images, n=4, reshape=True, return_class_token=True, norm=False
        )
        levels = [level for level, _ in found]
        norm = cast(Any, net).norm
        last = norm(levels[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (*levels[:-1], last), norm(found[-1][1])

    def stages(self, net: nn.Module) -> list[Stage]:
        """Stem, then the blocks of all resolutions."""
        network = cast(Any, net)
        stem, *downsamples = network.downsample_layers
        blocks, before = pyramid_blocks(
            [list(stage) for stage in network.stages], [(layer,) for layer in downsamples]
        )
        return block_stages(blocks, first=(stem,), last=(network.norm,), before=before)
