"""A light convolutional branch beside a backbone that has no fine maps.

A plain ViT sees 16 x 16 pixels as one token, and what it was trained for does not keep where inside
them an edge lies. This branch looks at the image itself, at strides 4 and 8, and the neck fuses
its maps under the backbone's (spatial prior module, ViT-Adapter, Chen et al., ICLR 2023; spatial
tuning adapter of DEIMv2). It belongs to the neck: it always trains, also under a frozen backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.backbones.base import cover
from scene_track.models.convolution import ConvNorm, ResidualBlock

_FINEST = 4


class SideBranch(nn.Module):
    """Images to maps at strides 4, 8, ...

    Attributes:
        strides: of the maps, finest first.
        dims: their channels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        """Build the branch.

        Args:
            channels: of the maps at strides 4, 8 and so on, each at least 2; as many maps as
                numbers.
        """
        super().__init__()
        self.dims = tuple(channels)
        self.strides = tuple(_FINEST * 2**index for index in range(len(channels)))
        first, *others = self.dims
        stem = nn.Sequential(ConvNorm(3, first // 2, 2), ConvNorm(first // 2, first, 2))
        inputs = (first, *others)
        self.steps = nn.ModuleList(
            [
                stem,
                *(
                    nn.Sequential(ConvNorm(inputs[index], width, 2), ResidualBlock(width))
                    for index, width in enumerate(others)
                ),
            ]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised ``[N, 3, H, W]`` of any size to maps that cover the image exactly."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % self.strides[-1], 0, -height % self.strides[-1]))
        maps: list[Tensor] = []
        for step, stride in zip(self.steps, self.strides, strict=True):
            x = step(x)
            maps.append(cover(x, stride, height, width))
        return tuple(maps)
