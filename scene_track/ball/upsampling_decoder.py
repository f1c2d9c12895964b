"""Patch features to a fine map, in stages that each double the resolution.

A stage may take a *skip*: features of the image itself at the stage's stride. A ball of five pixels
is a third of a ViT's patch and does not survive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.convolution import Activation, ConvNormAct, Norm, SqueezeExcitation

Upsample = Literal["bilinear", "deconv", "pixel_shuffle"]


class UpsamplingDecoder(nn.Module):
    """Stages that double the resolution, concatenate the skip and convolve."""

    def __init__(
        self,
        *,
        input_dim: Annotated[int, Field(ge=1)],
        input_stride: Annotated[int, Field(ge=2)],
        skips: Mapping[int, int],
        channels: Annotated[list[Annotated[int, Field(ge=4)]], Field(min_length=1, max_length=6)],
        stride: Literal[1, 2, 4, 8],
        upsample: Upsample,
        blocks_per_stage: Annotated[int, Field(ge=1, le=8)],
        norm: Norm,
        activation: Activation,
        use_depthwise: bool,
        use_se: bool,
        se_reduction: Annotated[int, Field(ge=1, le=64)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
    ) -> None:
        """Builds the stages. Options: see ``model.decoder`` in ``conf/model/heatmap.yaml``.

        ``input_dim`` and ``input_stride`` are channels and pixels per cell of the coarse map,
        ``skips`` the channels of the image's features by their stride.

        Raises:
            ValueError: too few numbers of channels to get from the backbone's stride to ``stride``,
                or a skip that no stage takes.
        """
        super().__init__()
        self.strides = [stride * 2**k for k in reversed(range(16)) if input_stride > stride * 2**k]
        doubling = input_stride == stride * 2 ** len(self.strides)
        if not self.strides or not doubling or len(channels) < len(self.strides):
            raise ValueError(
                f"model.decoder: from the backbone's stride {input_stride} to stride {stride} it is"
                f" {len(self.strides)} doublings, and model.decoder.channels={list(channels)} has"
                f" {len(channels)} numbers; name one per doubling, the finest first"
            )
        unused = sorted(set(skips) - set(self.strides))
        if unused:
            raise ValueError(
                f"model.detail gives features at the strides {sorted(skips)}, the decoder's stages"
                f" have {self.strides}: {unused} would go unused; shorten model.detail.channels or"
                " choose a finer model.decoder.stride"
            )
        stages: list[UpsamplingStage] = []
        for place, at in enumerate(self.strides):
            outputs = channels[len(self.strides) - 1 - place]
            stages.append(
                UpsamplingStage(
                    input_dim,
                    outputs,
                    skip=skips.get(at, 0),
                    upsample=upsample,
                    blocks=blocks_per_stage,
                    norm=norm,
                    activation=activation,
                    depthwise=use_depthwise,
                    se_reduction=se_reduction if use_se else None,
                )
            )
            input_dim = outputs
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout2d(dropout)
        self.dim = input_dim

    def forward(self, x: Tensor, skips: Mapping[int, Tensor]) -> Tensor:
        """``[N, C, h, w]`` and skips by stride to the map at the finest stride."""
        for stage, stride in zip(self.stages, self.strides, strict=True):
            x = stage(x, skips.get(stride))
        return self.dropout(x)


class UpsamplingStage(nn.Module):
    """Doubles the resolution of a map."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        skip: int,
        upsample: Upsample,
        blocks: int,
        norm: Norm,
        activation: Activation,
        depthwise: bool,
        se_reduction: int | None,
    ) -> None:
        """Builds the stage; arguments as in ``UpsamplingDecoder``, ``skip`` in channels."""
        super().__init__()
        # Channels are reduced before the map is enlarged: a quarter of the work.
        self.up: nn.Module
        if upsample == "deconv":
            self.up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
        elif upsample == "pixel_shuffle":  # Shi et al., CVPR 2016
            self.up = nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2))
        else:
            self.up = nn.Sequential(nn.Conv2d(inputs, outputs, 1), _Bilinear())
        self.blocks = nn.Sequential(
            *(
                ConvNormAct(
                    outputs + skip if index == 0 else outputs,
                    outputs,
                    norm=norm,
                    activation=activation,
                    depthwise=depthwise,
                )
                for index in range(blocks)
            )
        )
        self.excite = (
            nn.Identity() if se_reduction is None else SqueezeExcitation(outputs, se_reduction)
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """``[N, inputs, h, w]`` to ``[N, outputs, 2h, 2w]``, or to the size of the skip.

        The two sizes differ where the image is no whole number of coarse cells
        (``size_policy=pad``): both cover the image exactly.
        """
        x = self.up(x)
        if skip is not None:
            if x.shape[-2:] != skip.shape[-2:]:
                x = F.interpolate(x, skip.shape[-2:], mode="bilinear")
            x = torch.cat((x, skip.to(x.dtype)), dim=1)
        return self.excite(self.blocks(x))


class _Bilinear(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")
