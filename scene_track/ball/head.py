"""The head of a heatmap: one logit per cell."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F


class HeatmapHead(nn.Module):
    """A 1x1 convolution to one channel, resized to ``size``."""

    READS = "maps"

    def __init__(
        self,
        *,
        size: Annotated[
            list[Annotated[int, Field(ge=4, le=8192)]], Field(min_length=2, max_length=2)
        ]
        | None,
        input_dim: Annotated[int, Field(ge=1)],
        prior: Annotated[float, Field(gt=0, lt=1)],
    ) -> None:
        """Builds the head. Options: see ``conf/head/heatmap.yaml``.

        ``input_dim`` is the channels of the decoder's map. Another size than the decoder's is
        reached by bilinear interpolation. The prior is that of Lin et al., ICCV 2017: nearly all
        cells are background, and would otherwise dominate the loss of the first steps.
        """
        super().__init__()
        self.size = None if size is None else (int(size[1]), int(size[0]))
        self.project = nn.Conv2d(input_dim, 1, 1)
        nn.init.normal_(self.project.weight, std=0.01)
        assert self.project.bias is not None
        nn.init.constant_(self.project.bias, math.log(prior / (1 - prior)))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, h, w]`` to logits ``[N, 1, Hh, Wh]``."""
        # In float32 also inside autocast: the 8 bits of bfloat16 do not separate the hottest cell
        # from its neighbours, nor locate the ball between them.
        with torch.autocast(x.device.type, enabled=False):
            logits = self.project(x.float())
            if self.size is not None and logits.shape[-2:] != self.size:
                logits = F.interpolate(logits, self.size, mode="bilinear", antialias=True)
        return logits
