"""Fuses all levels of a backbone into one map at the finest of their strides.

A feature pyramid (Lin et al., CVPR 2017) that returns its finest map only; with one level it is a
projection. ``scene_track.models.neck`` is for models that read several maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.convolution import ConvNormAct, Norm


class LevelFusion(nn.Module):
    """Lateral projections, fused from the coarsest level down to the finest."""

    def __init__(
        self,
        *,
        dims: Sequence[int],
        strides: Sequence[int],
        lateral_dim: Annotated[int, Field(ge=8, multiple_of=4)],
        fuse: Literal["sum", "concat"],
        norm: Norm,
    ) -> None:
        """Builds the pyramid. Options: see ``model.fusion`` in ``conf/model/heatmap.yaml``.

        ``dims`` and ``strides`` are the channels and pixels per cell of the levels, finest first,
        each stride a multiple of the one before.
        """
        super().__init__()
        self.fuse, self.stride, self.dim = fuse, strides[0], lateral_dim
        self.lateral = nn.ModuleList(nn.Conv2d(dim, lateral_dim, 1) for dim in dims)
        inputs = lateral_dim * (len(dims) if fuse == "concat" else 1)
        self.smooth = ConvNormAct(
            inputs, lateral_dim, kernel=1 if fuse == "concat" else 3, norm=norm
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """``[N, C_i, h_i, w_i]`` per level, finest first, to ``[N, lateral_dim, h_0, w_0]``."""
        maps = [project(level) for project, level in zip(self.lateral, levels, strict=True)]
        if self.fuse == "concat":
            size = maps[0].shape[-2:]
            # Bilinear: a coarse map beside a fine one must not show its cells.
            enlarged = [maps[0], *(F.interpolate(m, size, mode="bilinear") for m in maps[1:])]
            return self.smooth(torch.cat(enlarged, dim=1))
        fused = maps[-1]
        for finer in reversed(maps[:-1]):
            fused = finer + F.interpolate(fused, finer.shape[-2:], mode="nearest")
        return self.smooth(fused)
