"""DINOv3 vision transformers (arXiv:2508.10104) at stride 16, from the weights that Meta publishes.

The network is timm's, in the variant with query and value biases (``_qkvb``): the one without drops
the biases of the official file silently. Positions are rotary on normalised coordinates, so any
picture whose sides are multiples of 16 goes in without interpolation. The official code also
rescales those coordinates at random in training mode; timm's does not, so frozen features are the
same in every mode.

The weights are under the DINOv3 licence: nobody may pass them on here, the user fetches them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal, Unpack, cast

import timm
import torch
from pydantic import Field, FilePath
from timm.models import eva
from torch import Tensor, nn

from scene_track.models.backbones.base import Backbone, BackboneFeatures, Stage, TrainingOptions
from scene_track.models.weights import load_state_dict_file, load_strictly

_PATCH = 16
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_ROPE_BASE = 100.0
_TIMM_NAMES = {
    "vits16": "vit_small_patch16_dinov3_qkvb",
    "vits16plus": "vit_small_plus_patch16_dinov3_qkvb",
    "vitb16": "vit_base_patch16_dinov3_qkvb",
    "vitl16": "vit_large_patch16_dinov3_qkvb",
}
_HOW_TO_OBTAIN = (
    "accept the licence at https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/,"
    " download the file and put it there, or name it by model.backbone.weights=PATH;"
    " model.backbone.weights=null starts from random weights"
)


def convert_official_state(
    state: dict[str, Tensor], module: nn.Module, source: str | Path
) -> dict[str, Tensor]:
    """Rename the tensors of an official DINOv3 file to timm's names.

    timm leaves out what it does not need: the mask token, the rotary periods and the third of each
    query-key-value bias that the official code multiplies by 0. Before they go, they are compared
    with what timm assumes of them.

    Args:
        state: tensors by official key (188 of them for ViT-S/16).
        module: the timm model that will be filled.
        source: where the tensors come from, for the errors.

    Returns:
        Tensors by timm's key.

    Raises:
        ValueError: not an official DINOv3 ViT, or with other rotary periods or bias masks.
    """
    if "storage_tokens" not in state or "rope_embed.periods" not in state:
        some = ", ".join(list(state)[:3])
        raise ValueError(
            f"{source} is not an official DINOv3 ViT: no storage_tokens and rope_embed.periods"
            f" among its {len(state)} keys ({some}, ...)"
        )
    periods = state["rope_embed.periods"].float()
    expected = _ROPE_BASE ** (torch.arange(len(periods)) / len(periods))
    # files may store the buffer in bfloat16 (3 digits)
    if not torch.allclose(periods, expected, rtol=1e-2):
        raise ValueError(
            f"{source} has rotary periods from {periods.min():.4g} to {periods.max():.4g}, expected"
            f" 1 to {expected[-1]:.4g}: not a model this class can run"
        )
    for key in state:
        if key.endswith("qkv.bias"):
            mask = state.get(f"{key}_mask", torch.ones(3))
            query, middle, value = mask.chunk(3)
            if bool((query != 1).any() or (middle != 0).any() or (value != 1).any()):
                raise ValueError(
                    f"{source}: {key}_mask must be 1 for queries and values and 0 for keys; this"
                    " file is damaged or of a model that this class cannot run"
                )
    return eva.checkpoint_filter_fn(state, module)


def load_official_weights(module: nn.Module, path: str | Path) -> None:
    """Fill timm's DINOv3 ViT from an official ``.pth`` file; on an error it stays as it is.

    Args:
        module: the timm model.
        path: the file.

    Raises:
        FileNotFoundError: there is no such file; says how to obtain it.
        ValueError: the file is damaged or of another model.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no DINOv3 weights at {path}: {_HOW_TO_OBTAIN}")
    state = load_state_dict_file(path)
    load_strictly(module, convert_official_state(state, module, path), path)


class DinoV3(Backbone):
    """DINOv3 ViT: patch features at stride 16 and the class token, after the last norm.

    They are the official ``x_norm_patchtokens`` and ``x_norm_clstoken``.
    """

    def __init__(
        self,
        *,
        weights: Annotated[
            FilePath | None,
            Field(
                description="accept the licence at"
                " https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/, download"
                " the file and put it there; or null for random weights"
            ),
        ],
        variant: Literal["vits16", "vits16plus", "vitb16", "vitl16"] = "vits16",
        size_multiple: Annotated[int, Field(ge=16, multiple_of=16)] = 16,
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the network and load its weights.

        Args:
            weights: official ``.pth`` file; ``None`` starts from random weights, which needs days
                of training to become useful. Random weights have LayerScale 1 instead of the 1e-5
                that large-scale pre-training starts from: with 1e-5 all twelve blocks are as good
                as absent for the first epochs (and a test of them tests nothing).
            variant: size: 22, 29, 86 or 303 million parameters; C = 384, 384, 768 or 1024.
            size_multiple: height and width of the pictures must be multiples of this; itself a
                multiple of 16, the patch size.
            **training: see :class:`TrainingOptions`.

        Raises:
            FileNotFoundError: the weights are not there; says how to obtain them.
            ValueError: the weights are damaged or of another model.
        """
        super().__init__(
            size_multiple=size_multiple,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            **training,
        )
        vit = timm.create_model(
            _TIMM_NAMES[variant], pretrained=False, num_classes=0, global_pool="token"
        )
        self.vit = cast(eva.Eva, vit)
        self.cls_dim = self.vit.num_features
        self.strides, self.dims = (_PATCH,), (self.cls_dim,)
        if weights is None:
            self._use_random_weights()
        else:
            load_official_weights(self.vit, weights)

    def _use_random_weights(self) -> None:
        if self.freeze and self.unfreeze_after is None:
            warnings.warn(
                "model.backbone: weights=null with freeze=true is a random net that never learns",
                stacklevel=3,
            )
        for name, parameter in self.vit.named_parameters():
            if name.endswith(("gamma_1", "gamma_2")):
                nn.init.ones_(parameter)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` pictures."""
        tokens = self.vit.forward_features(images)
        height, width = images.shape[-2] // _PATCH, images.shape[-1] // _PATCH
        patches = tokens[:, self.vit.num_prefix_tokens :]
        patches = patches.transpose(1, 2).unflatten(2, (height, width))
        return BackboneFeatures(levels=(patches,), cls=tokens[:, 0])

    def stages(self) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks; the last norm goes with the last."""
        *blocks, last = self.vit.blocks
        tokens = tuple(self.vit.parameters(recurse=False))
        return [
            Stage("embedding", (self.vit.patch_embed,), tokens),
            *(Stage(f"block {index}", (block,)) for index, block in enumerate(blocks)),
            Stage(f"block {len(blocks)}", (last, self.vit.norm)),
        ]
