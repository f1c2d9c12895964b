"""Temporal-deformable attention in plain PyTorch.

A query looks at a few points around its anchor box, in the feature maps of the frames t-k..t+k at
once. Offsets are generated per reference frame from the query and an embedding of the relative
time, in units of the anchor's size; attention logits fall by lambda * |dt|, so that a far frame
must earn its attention. Sampling is ``sample_bilinear``: no compiled extension.

Deformable attention: Zhu et al., Deformable DETR (ICLR 2021), eq. 2, with box-relative offsets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scene_track.models.positional import RelativeTimeEmbedding
from scene_track.models.sampling import sample_bilinear


class TemporalDeformableAttention(nn.Module):
    """Cross-attention from queries to sampled points of several frames."""

    def __init__(
        self, *, dim: int, heads: int, points: int, radius: int, decay: float, fps: float
    ) -> None:
        """Build the layer.

        Args:
            dim: width D of queries and features.
            heads: attention heads.
            points: sampling points per head and frame.
            radius: k, frames looked at before and after the query's own.
            fps: frames per second of the fastest video.
            decay: initial lambda, attention logit lost per second of distance (learned, kept >= 0).
        """
        super().__init__()
        self.dim, self.heads, self.points, self.radius = dim, heads, points, radius
        self.references = 2 * radius + 1
        self.offsets = nn.Linear(dim, heads * points * 2)
        self.weights = nn.Linear(dim, heads * points)
        self.project = nn.Linear(dim, dim)
        if radius:
            # Horizon in seconds: a window of 2k + 1 frames at a fifth of the frame rate (clips skip
            # frames).
            self.relative_time = RelativeTimeEmbedding(dim, fps, 5 * (radius + 1) / fps)
            self.decay = nn.Parameter(torch.tensor(float(decay)))
        self._reset()

    def _reset(self) -> None:
        # As in Deformable DETR: heads start looking in different directions, points at growing
        # distances. Offsets are in half box sizes, so the first points lie inside the box, the last
        # on its border.
        nn.init.zeros_(self.offsets.weight)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1) / self.points
        with torch.no_grad():
            grid = direction[:, None, :] * steps[None, :, None]
            self.offsets.bias.copy_(grid.flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def forward(
        self,
        queries: Tensor,
        boxes: Tensor,
        values: Tensor,
        seconds: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            queries: ``[N, Q, D]``.
            boxes: ``[N, Q, 4]`` anchors, cxcywh 0-1.
            values: ``[N, R, D, h, w]`` value maps of the R = 2k + 1 reference frames, in time
                order.
            seconds: ``[N, R]`` their time relative to the query's frame; needed where k > 0.
            present: ``[N, R]`` bool, False = that frame does not exist; needed where k > 0.

        Returns:
            ``[N, Q, D]``.
        """
        n, count, dim = queries.shape
        refs, heads, points = self.references, self.heads, self.points
        h, w = values.shape[-2:]
        conditioned = queries.unsqueeze(2)
        if self.radius:
            assert seconds is not None and present is not None
            conditioned = conditioned + self.relative_time(seconds).unsqueeze(1)
        offsets = self.offsets(conditioned).float().view(n, count, refs, heads, points, 2)
        logits = self.weights(conditioned).float().view(n, count, refs, heads, points)
        if seconds is not None and present is not None and self.radius:
            logits = logits - (self.decay.clamp(min=0) * seconds.abs()).view(n, 1, refs, 1, 1)
            logits = logits.masked_fill(~present.view(n, 1, refs, 1, 1), -1e4)
        # One softmax over all points of all reference frames.
        weights = logits.permute(0, 3, 1, 2, 4).reshape(n, heads, count, refs * points).softmax(-1)
        center, half = boxes.float()[..., :2], boxes.float()[..., 2:] / 2
        location = (
            center[:, :, None, None, None] + offsets * half[:, :, None, None, None]
        )  # [N, Q, R, heads, points, 2]
        places = location.permute(0, 2, 3, 1, 4, 5).reshape(n * refs * heads, count, points, 2)
        maps = values.float().reshape(n * refs * heads, dim // heads, h, w)
        sampled = sample_bilinear(maps, places)
        # [N, R, heads, d, Q, P] -> [N, heads, d, Q, R * P]
        sampled = sampled.view(n, refs, heads, dim // heads, count, points)
        sampled = sampled.permute(0, 2, 3, 4, 1, 5).reshape(
            n, heads, dim // heads, count, refs * points
        )
        attended = (sampled * weights.unsqueeze(2)).sum(-1)  # [N, heads, d, Q]
        return self.project(attended.permute(0, 3, 1, 2).reshape(n, count, dim))
