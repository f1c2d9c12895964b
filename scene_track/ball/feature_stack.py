"""Fuses the feature maps of neighbouring frames by concatenation, as TrackNet does."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.ball.past_frames import NeighbourFrames, PastFrames


class FeatureStack(nn.Module):
    """Adds to each frame's map a projection of it and of the maps of earlier frames."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=4)],
        frames: Annotated[int, Field(ge=2, le=32)],
    ) -> None:
        """Builds the projection. Options: see ``model.stack`` in ``conf/model/heatmap.yaml``."""
        super().__init__()
        self.neighbours = NeighbourFrames(range(-(frames - 1), 1))
        last = nn.Conv2d(dim, dim, 1)
        nn.init.zeros_(last.weight)  # starts as the frame alone
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.mix = nn.Sequential(nn.Conv2d(frames * dim, dim, 1), nn.ReLU(), last)

    def forward(
        self, x: Tensor, padding_mask: Tensor, past: PastFrames | None
    ) -> tuple[Tensor, PastFrames | None]:
        """Fuses a clip.

        Args:
            x: ``[B, T, D, h, w]``.
            padding_mask: ``[B, T]`` bool, True = padding.
            past: maps of the window before; None at the start of a video.

        Returns:
            ``[B, T, D, h, w]``, and the maps for the next window.
        """
        around, kept = self.neighbours(x, padding_mask, past)
        stacked = around.flatten(2, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return x + self.mix(stacked).unflatten(0, x.shape[:2]), kept
