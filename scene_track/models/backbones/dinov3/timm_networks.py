"""DINOv3 by timm.

The vision transformers are timm's variants with query and value biases (``_qkvb``): those without
drop the biases of the official file silently. timm leaves out what it does not need (mask token,
rotary periods, masked key biases) and has no rotary rescaling, so its features are the same in
every mode.
"""

from __future__ import annotations

import re
from typing import Any, cast

import timm
from timm.models import eva
from torch import Tensor, nn

from scene_track.models.backbones.base import Stage
from scene_track.models.backbones.dinov3.loader import as_map, block_stages, pyramid_blocks
from scene_track.models.backbones.dinov3.variants import PATCH, ConvNeXtVariant, VitVariant

_PLAIN, _GATED = "vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3_qkvb"


class TimmVit:
    """``timm.models.eva.Eva``."""

    def build(self, variant: VitVariant) -> nn.Module:
        """The network of a size: timm's entries of the family differ in these numbers only."""
        sizes: dict[str, Any] = {
            "embed_dim": variant.dim,
            "depth": variant.depth,
            "num_heads": variant.heads,
            "mlp_ratio": variant.hidden / variant.dim,
        }
        net = timm.create_model(
            _GATED if variant.gated else _PLAIN,
            pretrained=False,
            num_classes=0,
            global_pool="token",
            **sizes,
        )
        for name, parameter in net.named_parameters():
            if name.endswith(("gamma_1", "gamma_2")):
                nn.init.ones_(parameter)
        return net

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Official names to timm's, by timm's own rule."""
        return eva.checkpoint_filter_fn(state, net)

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Patch tokens and class token after the last norm."""
        vit = cast(eva.Eva, net)
        tokens = vit.forward_features(images)
        return (as_map(tokens[:, vit.num_prefix_tokens :], images, PATCH),), tokens[:, 0]

    def stages(self, net: nn.Module) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks."""
        vit = cast(eva.Eva, net)
        return block_stages(
            list(vit.blocks),
            first=(vit.patch_embed,),
            last=(vit.norm,),
            tokens=tuple(vit.parameters(recurse=False)),
        )


class TimmConvNeXt:
    """``timm.models.convnext.ConvNeXt``."""

    def build(self, variant: ConvNeXtVariant) -> nn.Module:
        """The network of a size."""
        sizes: dict[str, Any] = {"dims": variant.dims, "depths": variant.depths}
        return timm.create_model(
            "convnext_tiny", pretrained=False, num_classes=0, ls_init_value=1.0, **sizes
        )

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Official names to timm's."""
        result: dict[str, Tensor] = {}
        for key, value in state.items():
            if key.startswith("norms."):
                continue  # the same layer as norm
            key = re.sub(r"^downsample_layers\.0\.", "stem.", key)
            key = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", key)
            key = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", key)
            key = re.sub(r"^norm\.", "head.norm.", key)
            key = key.replace(".dwconv.", ".conv_dw.").replace(".pwconv", ".mlp.fc")
            result[key] = value
        return result

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Outputs of the four resolutions, the last one normed, and the normed mean of the last."""
        network = cast(Any, net)
        x = network.stem(images)
        levels: list[Tensor] = []
        for stage in network.stages:
            x = stage(x)
            levels.append(x)
        norm = network.head.norm
        return (*levels[:-1], norm(x)), norm(x.mean((2, 3), keepdim=True)).flatten(1)

    def stages(self, net: nn.Module) -> list[Stage]:
        """Stem, then the blocks of all resolutions."""
        network = cast(Any, net)
        blocks, before = pyramid_blocks(
            [list(stage.blocks) for stage in network.stages],
            [(stage.downsample,) for stage in network.stages[1:]],
        )
        return block_stages(blocks, first=(network.stem,), last=(network.head,), before=before)
