"""Convolutional blocks that backbones and necks build stems from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """3x3 convolution, batch norm, ReLU.

    Batch norm, although the frames of a clip are near copies of each other: with group norm the
    same model reaches AP50 52 in 360 steps, with batch norm 74. ReLU, because on these large maps
    GELU costs as much as a convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, h, w]`` to the same shape."""
        return F.relu(x + self.second(self.first(x)))
