"""Fine features that a coarse backbone cannot give: of the image, and of what moves in it.

The camera of a court stands still, so players and ball are what differs from earlier frames. Two
earlier frames separate where the ball *is* from where it *was*: only the first differs from both
(three-frame differencing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.ball.past_frames import NeighbourFrames, PastFrames
from scene_track.models.backbones.base import cover
from scene_track.models.convolution import Activation, ConvNormAct, Norm


class DetailStem(nn.Module):
    """Convolutions on the image and its differences to other frames, at strides 2, 4, ..."""

    def __init__(
        self,
        *,
        channels: Annotated[list[Annotated[int, Field(ge=4)]], Field(min_length=1, max_length=3)],
        offsets: Sequence[Annotated[int, Field(ge=-64, le=64)]],
        picture: bool,
        blocks: Annotated[int, Field(ge=0, le=4)],
        norm: Norm,
        activation: Activation,
    ) -> None:
        """Builds the stem. Options: see ``model.detail`` in ``conf/model/heatmap.yaml``.

        Raises:
            ValueError: an offset of 0, or one twice; or neither image nor offsets.
        """
        super().__init__()
        if 0 in offsets or len(set(offsets)) < len(offsets):
            raise ValueError(
                f"model.detail.offsets={list(offsets)}: name other frames, each once, such as"
                " [-1,-2]"
            )
        if not picture and not offsets:
            raise ValueError(
                "model.detail.picture=false with offsets=[] leaves nothing to look at: type"
                " model.detail=null, or name other frames, such as model.detail.offsets=[-1,-2]"
            )
        self.picture = picture
        self.neighbours = NeighbourFrames(offsets)
        self.dims = {2 ** (index + 1): width for index, width in enumerate(channels)}
        inputs = 3 * (picture + len(offsets))
        levels: list[nn.Module] = []
        for width in channels:
            first = ConvNormAct(inputs, width, stride=2, norm=norm, activation=activation)
            more = (
                ConvNormAct(width, width, norm=norm, activation=activation) for _ in range(blocks)
            )
            levels.append(nn.Sequential(first, *more))
            inputs = width
        self.levels = nn.ModuleList(levels)

    def forward(
        self, frames: Tensor, padding_mask: Tensor, past: PastFrames | None
    ) -> tuple[dict[int, Tensor], PastFrames | None]:
        """Computes the fine features of a clip.

        Args:
            frames: ``[B, T, 3, H, W]`` uint8.
            padding_mask: ``[B, T]`` bool, True = padding.
            past: frames of the window before; None at the start of a video.

        Returns:
            ``[B x T, C, H / stride, W / stride]``, rounded up, by stride, and the frames
            for the next window.
        """
        now = frames.flatten(0, 1)
        inputs = [now.to(torch.float32).div_(128).sub_(1)] if self.picture else []
        around, kept = self.neighbours(frames, padding_mask, past)
        for index in range(around.shape[2]):
            other = around[:, :, index].flatten(0, 1).to(torch.float32)
            # Scaled so that the faint streak of a fast ball (20 of 255 levels) is a large number.
            inputs.append((now - other).div_(32))
        x = torch.cat(inputs, dim=1).contiguous(memory_format=torch.channels_last)
        features: dict[int, Tensor] = {}
        for stride, level in zip(self.dims, self.levels, strict=True):
            x = level(x)
            features[stride] = cover(x, stride, *frames.shape[-2:])
        return features, kept
