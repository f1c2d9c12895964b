"""DINOv3 backbones from the weights that Meta publishes.

The vision transformers give one map at stride 16. Their positions are rotary on normalised
coordinates, so any image whose sides are multiples of 16 goes in without interpolation. The
ConvNeXts, distilled from the same teacher, give a pyramid at strides 4, 8, 16 and 32: boxes need a
finer stride than a plain ViT has.

Three libraries can carry a network (``loader``); the same weights give the same features through
each, which the tests compare with numbers of the official code. The weights are under the DINOv3
licence: this project may not pass them on, the user downloads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Unpack

from pydantic import DirectoryPath, Field, FilePath
from torch import Tensor, nn

from scene_track.models.backbones.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    BackboneFeatures,
    Stage,
    TrainingOptions,
)
from scene_track.models.backbones.dinov3.hf_networks import HfConvNeXt, HfVit
from scene_track.models.backbones.dinov3.hub_networks import HubConvNeXt, HubVit
from scene_track.models.backbones.dinov3.loader import Loader
from scene_track.models.backbones.dinov3.state import read_official_state
from scene_track.models.backbones.dinov3.timm_networks import TimmConvNeXt, TimmVit
from scene_track.models.backbones.dinov3.variants import (
    CONVNEXTS,
    LICENCE_PAGE,
    PATCH,
    VITS,
    Variant,
)
from scene_track.models.weights import load_strictly

Weights = Annotated[
    FilePath | DirectoryPath | None,
    Field(
        description=f"accept the licence at {LICENCE_PAGE}, download the file and put it there"
        " (make weights says more); null starts from random weights"
    ),
]


class DinoV3(Backbone):
    """DINOv3 ViT: patch features at stride 16 and the class token, after the last norm.

    They are the official ``x_norm_patchtokens`` and ``x_norm_clstoken``.
    """

    def __init__(
        self,
        *,
        weights: Weights,
        variant: Literal["vits16", "vits16plus", "vitb16", "vitl16"],
        loader: Literal["timm", "hf", "hub"],
        repository: Path,
        size_multiple: Annotated[int, Field(ge=16, multiple_of=16)],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the network and load its weights.

        Options: see ``conf/model/backbone/_dinov3.yaml``. Random weights have LayerScale 1 instead
        of the 1e-5 that large-scale pre-training starts from: with 1e-5 the blocks have next to no
        effect for the first epochs.

        Raises:
            FileNotFoundError: weights or official code are not there; says how to obtain them.
            ValueError: the weights are damaged or of another model.
        """
        super().__init__(
            size_multiple=size_multiple, mean=IMAGENET_MEAN, std=IMAGENET_STD, **training
        )
        size = VITS[variant]
        loaders = {"timm": TimmVit, "hf": HfVit, "hub": lambda: HubVit(repository)}
        self.loader: Loader = loaders[loader]()
        self.vit = self.loader.build(size)
        self.cls_dim = size.dim
        self.strides, self.dims = (PATCH,), (size.dim,)
        _fill(self.vit, self.loader, weights, size)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` images."""
        return BackboneFeatures(*self.loader.features(self.vit, images))

    def stages(self) -> list[Stage]:
        """Patch embedding with the tokens, then the blocks; the last norm goes with the last."""
        return self.loader.stages(self.vit)


class DinoV3ConvNeXt(Backbone):
    """DINOv3 ConvNeXt: the outputs of its four resolutions and the normed mean of the last.

    They are the official ``get_intermediate_layers(n=4, norm=True)``, whose last map alone is
    normed, and ``x_norm_clstoken``.
    """

    def __init__(
        self,
        *,
        weights: Weights,
        variant: Literal["tiny", "small", "base"],
        loader: Literal["timm", "hf", "hub"],
        repository: Path,
        size_multiple: Annotated[int, Field(ge=32, multiple_of=32)],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the network and load its weights; see ``DinoV3``."""
        super().__init__(
            size_multiple=size_multiple, mean=IMAGENET_MEAN, std=IMAGENET_STD, **training
        )
        size = CONVNEXTS[f"convnext_{variant}"]
        loaders = {"timm": TimmConvNeXt, "hf": HfConvNeXt, "hub": lambda: HubConvNeXt(repository)}
        self.loader: Loader = loaders[loader]()
        self.convnext = self.loader.build(size)
        self.strides, self.dims = (4, 8, 16, 32), size.dims
        self.cls_dim = size.dims[-1]
        _fill(self.convnext, self.loader, weights, size)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` images."""
        return BackboneFeatures(*self.loader.features(self.convnext, images))

    def stages(self) -> list[Stage]:
        """Stem, then the blocks; a down-sampling goes with the block after it."""
        return self.loader.stages(self.convnext)


def _fill(net: nn.Module, loader: Loader, weights: Path | None, variant: Variant) -> None:
    """Load weights into a network; on an error it stays as it is."""
    if weights is not None:
        load_strictly(net, loader.convert(read_official_state(weights, variant), net), weights)
