"""DINOv3 vision transformers at stride 16, from the weights that Meta publishes.

Positions are rotary on normalised coordinates, so any picture whose sides are multiples of 16 goes
in without interpolation. Three libraries can carry the network (``loader``); the same weights give
the same features through each, which the tests hold against numbers of the official code.

The weights are under the DINOv3 licence: nobody may pass them on here, the user fetches them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Unpack

from pydantic import DirectoryPath, Field, FilePath
from torch import Tensor

from scene_track.models.backbones.base import Backbone, BackboneFeatures, Stage, TrainingOptions
from scene_track.models.backbones.dinov3.filling import fill
from scene_track.models.backbones.dinov3.hf_networks import HfVit
from scene_track.models.backbones.dinov3.hub_networks import HubVit
from scene_track.models.backbones.dinov3.loader import Loader
from scene_track.models.backbones.dinov3.timm_networks import TimmVit
from scene_track.models.backbones.dinov3.variants import IMAGENET_MEAN, IMAGENET_STD, PATCH, VITS


class DinoV3(Backbone):
    """DINOv3 ViT: patch features at stride 16 and the class token, after the last norm.

    They are the official ``x_norm_patchtokens`` and ``x_norm_clstoken``.
    """

    def __init__(
        self,
        *,
        weights: Annotated[
            FilePath | DirectoryPath | None,
            Field(
                description="accept the licence at"
                " https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/, download"
                " the file and put it there (make weights says more); null starts from random"
                " weights"
            ),
        ],
        variant: Literal["vits16", "vits16plus", "vitb16", "vitl16"],
        loader: Literal["timm", "hf", "hub"],
        repository: Path,
        size_multiple: Annotated[int, Field(ge=16, multiple_of=16)],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the network and load its weights.

        Args:
            weights: official ``.pth`` file, or a folder (or ``.safetensors`` file) with the names
                of Hugging Face; ``None`` starts from random weights, which needs days of training
                to become useful. Random weights have LayerScale 1 instead of the 1e-5 that
                large-scale pre-training starts from: with 1e-5 all twelve blocks are as good as
                absent for the first epochs (and a test of them tests nothing).
            variant: size: 22, 29, 86 or 303 million parameters; C = 384, 384, 768 or 1024.
            loader: library that carries the network; the features are the same.
            repository: checkout of the official code, for ``loader=hub``.
            size_multiple: height and width of the pictures must be multiples of this; itself a
                multiple of 16, the patch size.
            **training: see :class:`TrainingOptions`.

        Raises:
            FileNotFoundError: the weights or the official code are not there; says how to obtain
                them.
            ValueError: the weights are damaged or of another model.
        """
        super().__init__(
            size_multiple=size_multiple,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            **training,
        )
        size = VITS[variant]
        self.loader: Loader = {"timm": TimmVit, "hf": HfVit, "hub": lambda: HubVit(repository)}[
            loader
        ]()
        self.vit = self.loader.build(size)
        self.cls_dim = size.dim
        self.strides, self.dims = (PATCH,), (size.dim,)
        fill(self.vit, self.loader, weights, size)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` pictures."""
        levels, cls = self.loader.features(self.vit, images)
        return BackboneFeatures(levels=levels, cls=cls)

    def stages(self) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks; the last norm goes with the last."""
        return self.loader.stages(self.vit)
