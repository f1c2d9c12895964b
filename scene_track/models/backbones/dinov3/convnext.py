"""DINOv3 ConvNeXts: a pyramid at strides 4, 8, 16 and 32, from the weights that Meta publishes.

Distilled from the same teacher as the vision transformers, and the cheaper way to fine maps: boxes
need a stride that a plain ViT does not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Unpack

from pydantic import DirectoryPath, Field, FilePath
from torch import Tensor

from scene_track.models.backbones.base import Backbone, BackboneFeatures, Stage, TrainingOptions
from scene_track.models.backbones.dinov3.filling import fill
from scene_track.models.backbones.dinov3.hf_networks import HfConvNeXt
from scene_track.models.backbones.dinov3.hub_networks import HubConvNeXt
from scene_track.models.backbones.dinov3.loader import Loader
from scene_track.models.backbones.dinov3.timm_networks import TimmConvNeXt
from scene_track.models.backbones.dinov3.variants import CONVNEXTS, IMAGENET_MEAN, IMAGENET_STD


class DinoV3ConvNeXt(Backbone):
    """DINOv3 ConvNeXt: the outputs of its four resolutions and the normed mean of the last.

    They are the official ``get_intermediate_layers(n=4, norm=True)``, whose last map alone is
    normed, and ``x_norm_clstoken``.
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
        variant: Literal["tiny", "small", "base"],
        loader: Literal["timm", "hf", "hub"],
        repository: Path,
        size_multiple: Annotated[int, Field(ge=32, multiple_of=32)],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the network and load its weights.

        Args:
            weights: official ``.pth`` file, or a folder (or ``.safetensors`` file) with the names
                of Hugging Face; ``None`` starts from random weights, with LayerScale 1 instead of
                the 1e-6 of large-scale pre-training, at which the blocks are as good as absent.
            variant: size: 28, 49 or 88 million parameters.
            loader: library that carries the network; the features are the same.
            repository: checkout of the official code, for ``loader=hub``.
            size_multiple: height and width of the pictures must be multiples of this; itself a
                multiple of 32, the coarsest stride.
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
        size = CONVNEXTS[f"convnext_{variant}"]
        self.loader: Loader = {
            "timm": TimmConvNeXt,
            "hf": HfConvNeXt,
            "hub": lambda: HubConvNeXt(repository),
        }[loader]()
        self.convnext = self.loader.build(size)
        self.strides, self.dims = (4, 8, 16, 32), size.dims
        self.cls_dim = size.dims[-1]
        fill(self.convnext, self.loader, weights, size)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` pictures."""
        levels, cls = self.loader.features(self.convnext, images)
        return BackboneFeatures(levels=levels, cls=cls)

    def stages(self) -> list[Stage]:
        """Stem, then the blocks; a down-sampling goes with the block after it."""
        return self.loader.stages(self.convnext)
