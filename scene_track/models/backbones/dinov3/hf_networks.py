"""DINOv3 by Hugging Face transformers.

Its defaults are not the published networks: register tokens are 0, and in training mode rotary
coordinates are rescaled at random, which is switched off here, so that the features are the same in
every mode and of every loader. The mask token, which no gradient would ever reach, is left out.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from scene_track.models.backbones.base import Stage
from scene_track.models.backbones.dinov3 import huggingface
from scene_track.models.backbones.dinov3.loader import as_map, block_stages, pyramid_blocks
from scene_track.models.backbones.dinov3.variants import (
    PATCH,
    REGISTERS,
    ConvNeXtVariant,
    VitVariant,
)


class HfVit:
    """``transformers.DINOv3ViTModel``."""

    def build(self, variant: VitVariant) -> nn.Module:
        """The network of a size."""
        from transformers import DINOv3ViTConfig, DINOv3ViTModel

        config = DINOv3ViTConfig(
            **huggingface.settings(variant), pos_embed_rescale=None, layerscale_value=1.0
        )
        net = DINOv3ViTModel(config)
        net.embeddings.register_parameter("mask_token", None)
        return net

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Official names to those of the module."""
        return huggingface.from_official(state)

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Patch tokens and class token after the last norm."""
        tokens = net(pixel_values=images).last_hidden_state
        return (as_map(tokens[:, 1 + REGISTERS :], images, PATCH),), tokens[:, 0]

    def stages(self, net: nn.Module) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks."""
        vit = cast(Any, net)
        return block_stages(list(vit.model.layer), first=(vit.embeddings,), last=(vit.norm,))


class HfConvNeXt:
    """``transformers.DINOv3ConvNextModel``."""

    def build(self, variant: ConvNeXtVariant) -> nn.Module:
        """The network of a size."""
        from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

        return DINOv3ConvNextModel(
            DINOv3ConvNextConfig(**huggingface.settings(variant), layer_scale_init_value=1.0)
        )

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Official names to those of the module."""
        return huggingface.from_official(state)

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Outputs of the four resolutions, the last one normed, and the normed mean of the last."""
        x = images
        levels: list[Tensor] = []
        for stage in cast(Any, net).model.stages:
            x = stage(x)
            levels.append(x)
        norm = cast(Any, net).layer_norm
        last = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (*levels[:-1], last), norm(x.mean((2, 3)))

    def stages(self, net: nn.Module) -> list[Stage]:
        """Stem, then the blocks of all resolutions."""
        network = cast(Any, net)
        first, *others = network.model.stages
        blocks, before = pyramid_blocks(
            [list(stage.layers) for stage in network.model.stages],
            [(stage.downsample_layers,) for stage in others],
        )
        return block_stages(
            blocks, first=(first.downsample_layers,), last=(network.layer_norm,), before=before
        )
