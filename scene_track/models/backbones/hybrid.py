"""A small backbone that learns from scratch on a CPU.

A plain patch embedding does not start within minutes; a convolutional stem does. So: convolutions
to stride 8 for edges and limbs, global attention at stride 16 for context, and the context added
back onto the stride-8 map, which is fine enough for boxes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.attention import attend
from scene_track.models.backbones.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    BackboneFeatures,
    Stage,
    TrainingOptions,
)
from scene_track.models.convolution import ConvNorm, ResidualBlock
from scene_track.models.positional import sincos_2d


class AttentionBlock(nn.Module):
    """Pre-norm transformer block over all cells (Dosovitskiy et al., 2021)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, D]`` to the same shape."""
        n, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v)
        x = x + self.project(attended.transpose(1, 2).reshape(n, length, dim))
        return x + self.mlp(self.norm2(x))


class HybridBackbone(Backbone):
    """Convolutional stem to stride 8, global attention at stride 16, fused back to stride 8."""

    def __init__(
        self,
        *,
        channels: Annotated[list[int], Field(min_length=3, max_length=3)],
        dim: Annotated[int, Field(ge=16, multiple_of=16)],
        depth: Annotated[int, Field(ge=0)],
        heads: Annotated[int, Field(ge=1)],
        size_multiple: Literal[16],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Build the backbone. Options: see ``conf/model/backbone/hybrid_tiny.yaml``.

        Raises:
            ValueError: ``dim`` is no multiple of ``heads``.
        """
        super().__init__(
            size_multiple=size_multiple,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            **training,
        )
        if dim % heads:
            raise ValueError(f"model.backbone.dim={dim} must be a multiple of heads={heads}")
        c2, c4, c8 = channels
        self.cls_dim = dim
        self.strides, self.dims = (8,), (dim,)
        self.stem = nn.Sequential(
            ConvNorm(3, c2, 2),
            ConvNorm(c2, c4, 2),
            ConvNorm(c4, c8, 2),
            ResidualBlock(c8),
            ResidualBlock(c8),
        )
        self.down = nn.Sequential(nn.Conv2d(c8, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim))
        self.blocks = nn.ModuleList(AttentionBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.lateral = nn.Conv2d(c8, dim, 1)
        self.fuse = ConvNorm(dim, dim)

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` at stride 8, and their mean token."""
        eighth = self.stem(images.contiguous(memory_format=torch.channels_last))
        coarse = self.down(eighth)
        n, dim, h, w = coarse.shape
        position = sincos_2d(h, w, dim, device=coarse.device).flatten(0, 1)
        x = coarse.flatten(2).transpose(1, 2) + position
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        context = x.transpose(1, 2).reshape(n, dim, h, w)
        context = context.contiguous(memory_format=torch.channels_last)
        lateral = self.lateral(eighth)
        up = F.interpolate(context.to(lateral.dtype), scale_factor=2, mode="nearest")
        return BackboneFeatures(levels=(self.fuse(lateral + up),), cls=x.mean(dim=1))

    def stages(self) -> list[Stage]:
        """The convolutional stem, then the attention blocks; fusion goes with the last."""
        head = (self.norm, self.lateral, self.fuse)
        stages = [Stage("stem", (self.stem, self.down))]
        stages += [Stage(f"block {index}", (block,)) for index, block in enumerate(self.blocks)]
        last = stages.pop()
        return [*stages, Stage(last.name, (*last.modules, *head))]
