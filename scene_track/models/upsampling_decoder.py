"""Patch features to a fine map, in stages that each double the resolution.

What is special: a stage may take a *skip*, features of the picture itself at the stage's stride. A
ball of five pixels is a third of a ViT's patch and does not survive it, whatever comes after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.conv_blocks import Activation, ConvNormAct, Norm, SqueezeExcitation

Upsample = Literal["bilinear", "deconv", "pixel_shuffle"]


class UpsamplingDecoder(nn.Module):
    """Stages of (double the resolution, take the skip in, convolve)."""

    def __init__(
        self,
        *,
        input_dim: Annotated[int, Field(ge=1)],
        stride: Annotated[int, Field(ge=2)],
        skips: Mapping[int, int],
        channels: Annotated[list[Annotated[int, Field(ge=4)]], Field(min_length=1, max_length=5)],
        upsample: Upsample = "bilinear",
        blocks_per_stage: Annotated[int, Field(ge=1, le=8)] = 1,
        norm: Norm = "bn",
        activation: Activation = "relu",
        use_depthwise: bool = False,
        use_se: bool = False,
        se_reduction: Annotated[int, Field(ge=1, le=64)] = 8,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        """Build the stages.

        Args:
            input_dim: channels of the coarse map.
            stride: its pixels per cell.
            skips: channels of the picture's features by their stride.
            channels: of each stage, the coarsest first; as many stages, each halving the stride.
            upsample: how a stage doubles the resolution.
            blocks_per_stage: convolutions of a stage.
            norm: ``bn`` or ``gn``.
            activation: of every convolution.
            use_depthwise: depthwise separable convolutions.
            use_se: squeeze and excitation at the end of each stage.
            se_reduction: how much narrower its hidden layer is.
            dropout: probability that a channel of the result is left out in training.

        Raises:
            ValueError: more stages than the stride can be halved, or a skip that no stage takes.
        """
        super().__init__()
        if stride % 2 ** len(channels):
            raise ValueError(
                f"model.decoder.channels={list(channels)} halves the stride {stride} of the"
                f" backbone {len(channels)} times: name at most {_halvings(stride)} stages"
            )
        stages: list[UpsamplingStage] = []
        for outputs in channels:
            stride //= 2
            stages.append(
                UpsamplingStage(
                    input_dim,
                    outputs,
                    skip=skips.get(stride, 0),
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
        self.strides = [stride * 2**k for k in reversed(range(len(stages)))]
        unused = sorted(set(skips) - set(self.strides))
        if unused:
            raise ValueError(
                f"model.detail gives features at the strides {sorted(skips)}, the decoder's stages"
                f" have {self.strides}: {unused} would go unused; shorten model.detail.channels or"
                " lengthen model.decoder.channels"
            )
        self.dropout = nn.Dropout2d(dropout)
        self.dim, self.stride = input_dim, stride

    def forward(self, x: Tensor, skips: Mapping[int, Tensor]) -> Tensor:
        """``[N, C, h, w]`` and skips by stride to ``[N, dim, H / stride, W / stride]``."""
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
        """Build the stage; arguments as in ``UpsamplingDecoder``, ``skip`` in channels, 0 = none."""
        super().__init__()
        # Channels are brought down before the map is enlarged: a quarter of the work.
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
        """``[N, inputs, h, w]`` to ``[N, outputs, 2h, 2w]``."""
        x = self.up(x)
        if skip is not None:
            x = torch.cat((x, skip.to(x.dtype)), dim=1)
        return self.excite(self.blocks(x))


class _Bilinear(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")


def _halvings(stride: int) -> int:
    return (stride & -stride).bit_length() - 1
