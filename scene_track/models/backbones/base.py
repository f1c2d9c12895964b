"""The interface every backbone shares, and what *frozen* means.

A backbone turns images into one or more feature maps at stated strides and one global token. What
follows (neck, decoder, head) reads ``strides``, ``dims`` and ``cls_dim`` and knows no more.
Frozen means: no gradient, no graph, ``eval()`` mode whatever Lightning calls, buffers untouched.
The state is a function of the epoch alone (``frozen_stages_at``), so it survives a resume by
construction. A backbone thaws from its last stage back; autograd then records from the first stage
that trains on, because nothing before it asks for a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.checkpointing import checkpoint_units
from scene_track.models.sampling import sample_bilinear

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TrainingOptions(TypedDict, total=False):
    """How a backbone is trained: the options that all of them share, with the same meaning.

    A backbone passes them on (``**training: Unpack[TrainingOptions]``); their defaults and their
    comments for people are in ``conf/model/backbone/training/shared.yaml``.

    Attributes:
        freeze: keep the backbone frozen for the whole run.
        unfreeze_after: keep it frozen for the first N epochs, then train it (wins over ``freeze``).
        unfreeze_blocks_per_epoch: of its ``stages``, thaw so many more in every epoch from
            ``unfreeze_after`` on, from the last one back; None thaws all at once.
        cache: keep the features of frames on disk while the whole backbone is frozen.
        cache_limit_gb: most GiB that features may take on disk.
        checkpointing: keep only what enters each block, and compute the block once more for its
            gradient: less memory, slower.
        size_policy: what happens to an image whose sides are no multiples of ``size_multiple``.
            ``error`` refuses it. ``pad`` adds the mean colour on the right and at the bottom up to
            the next multiple, which the network sees (attention is not masked), and hands out the
            maps of the image alone: boxes do not shift.
    """

    freeze: bool
    unfreeze_after: Annotated[int, Field(ge=0)] | None
    unfreeze_blocks_per_epoch: Annotated[int, Field(ge=1)] | None
    cache: bool
    cache_limit_gb: Annotated[float, Field(gt=0)]
    checkpointing: bool
    size_policy: Literal["error", "pad"]


@dataclass
class BackboneFeatures:
    """Output of a backbone for N images of H x W.

    Attributes:
        levels: feature maps, finest first; level i is ``[N, dims[i], H / strides[i], W /
            strides[i]]``, rounded up, and its cells cover exactly the image, so that a place in
            0-1 of the one is the same place in the other.
        cls: ``[N, cls_dim]`` global token.
    """

    levels: tuple[Tensor, ...]
    cls: Tensor


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a backbone's depth: what thaws, and shares a learning rate, together.

    Attributes:
        name: for tables and logs, such as ``block 3``.
        modules: the modules of the stage; their mode (dropout, batch norm) goes with them.
        tokens: parameters of the stage that none of ``modules`` holds (class token, positions).
    """

    name: str
    modules: tuple[nn.Module, ...]
    tokens: tuple[nn.Parameter, ...] = ()

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the stage."""
        return [*self.tokens, *(p for module in self.modules for p in module.parameters())]


def cover(level: Tensor, stride: int, height: int, width: int) -> Tensor:
    """The part of a padded image's feature map that the image itself covers.

    Where the image is whole cells, that is a crop. Where its border lies within a cell, the map
    is sampled anew (bilinear) on cells a little smaller than the stride.

    Args:
        level: ``[N, C, h, w]`` of an image padded on the right and at the bottom.
        stride: pixels per cell.
        height: of the image without padding, in pixels.
        width: the same.

    Returns:
        ``[N, C, ceil(height / stride), ceil(width / stride)]``.
    """
    rows, columns = -(-height // stride), -(-width // stride)
    if height == rows * stride and width == columns * stride:
        return level[..., :rows, :columns]
    h, w = level.shape[-2:]
    device = level.device
    ys = (torch.arange(rows, device=device) + 0.5) * height / rows / (h * stride)
    xs = (torch.arange(columns, device=device) + 0.5) * width / columns / (w * stride)
    # No nearer to the border than the outer cells' centres: beyond, a map counts as 0.
    y, x = torch.meshgrid(
        ys.clamp(0.5 / h, 1 - 0.5 / h), xs.clamp(0.5 / w, 1 - 0.5 / w), indexing="ij"
    )
    points = torch.stack((x, y), dim=-1).expand(len(level), -1, -1, -1)
    return sample_bilinear(level.float(), points).to(level.dtype)


class Backbone(nn.Module):
    """Base class: subclasses implement ``extract`` and set the attributes below in ``__init__``.

    Attributes:
        strides: pixels per cell of each level, finest first: ``(16,)`` of a plain ViT, ``(4, 8, 16,
            32)`` of a ConvNeXt.
        dims: channels of each level.
        cls_dim: channels of the global token.
        size_multiple: height and width must be multiples of this.
        mean, std: RGB statistics (of 0-1 values) that the weights expect.
        settings: keyword arguments that it was built with.
    """

    settings: dict[str, Any]
    strides: tuple[int, ...]
    dims: tuple[int, ...]
    cls_dim: int
    mean: Tensor
    std: Tensor

    def __new__(cls, *arguments: Any, **settings: Any) -> Self:
        """Remember what the backbone is built with: its features depend on it."""
        backbone = super().__new__(cls)
        # A plain attribute: the constructor of nn.Module has not run yet.
        object.__setattr__(backbone, "settings", settings)
        return backbone

    def __init__(
        self,
        *,
        size_multiple: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        **training: Unpack[TrainingOptions],
    ) -> None:
        """Store what all backbones share.

        Args:
            size_multiple: height and width of the input must be multiples of this.
            mean: per-channel mean of 0-1 RGB.
            std: per-channel standard deviation of 0-1 RGB.
            **training: see :class:`TrainingOptions`.

        Raises:
            ValueError: options of ``training`` that contradict each other.
        """
        super().__init__()
        self.size_multiple = size_multiple
        self.size_policy = training.get("size_policy", "error")
        self.freeze = training.get("freeze", False)
        self.unfreeze_after = training.get("unfreeze_after")
        self.unfreeze_blocks_per_epoch = training.get("unfreeze_blocks_per_epoch")
        self.cache = training.get("cache", False)
        self.cache_limit_gb = training.get("cache_limit_gb", 50.0)
        self.checkpointing = training.get("checkpointing", False)
        if self.unfreeze_blocks_per_epoch is not None and self.unfreeze_after is None:
            raise ValueError(
                f"model.backbone.unfreeze_blocks_per_epoch={self.unfreeze_blocks_per_epoch} says"
                " how fast to thaw, not when: type model.backbone.unfreeze_after=N too (0 = the"
                " first epoch)"
            )
        if self.cache and not self.frozen_at(0):
            raise ValueError(
                "model.backbone.cache=true keeps the features of a frozen backbone, and this one"
                " trains from the start: type model.backbone.freeze=true, or"
                " model.backbone.unfreeze_after=N, or model.backbone.cache=false"
            )
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._frozen = False
        self._frozen_stages = 0
        self._wanted_mode = True
        self._checkpointed = False

    def stages(self) -> list[Stage]:
        """The backbone cut along its depth, from the input to the output.

        First the embedding or stem, then one stage per block; what follows the last block (a final
        norm) belongs to the last stage. The stages are disjoint, and every parameter is in one.
        Gradual unfreezing goes through them from the end, layer-wise learning-rate decay counts
        them. Without an override the whole backbone is one stage.
        """
        return [Stage("all", tuple(self.children()), tuple(self.parameters(recurse=False)))]

    @property
    def frozen(self) -> bool:
        """Whether the whole backbone is frozen now."""
        return self._frozen

    @property
    def frozen_stages(self) -> int:
        """How many stages are frozen now, counted from the input."""
        return self._frozen_stages

    @property
    def ever_trains(self) -> bool:
        """Whether the schedule lets any of it train at some time."""
        return self.unfreeze_after is not None or not self.freeze

    def frozen_stages_at(self, epoch: int) -> int:
        """How many stages the schedule says are frozen in ``epoch`` (from 0), from the input on."""
        total = len(self.stages())
        if self.unfreeze_after is None:
            return total if self.freeze else 0
        if epoch < self.unfreeze_after:
            return total
        if self.unfreeze_blocks_per_epoch is None:
            return 0
        thawed = (epoch - self.unfreeze_after + 1) * self.unfreeze_blocks_per_epoch
        return max(0, total - thawed)

    def frozen_at(self, epoch: int) -> bool:
        """Whether the schedule says that the whole backbone is frozen in ``epoch`` (from 0)."""
        if self.unfreeze_after is not None:
            return epoch < self.unfreeze_after
        return self.freeze

    def set_frozen(self, frozen: bool) -> None:
        """Freeze or thaw all of it: gradients and mode together."""
        self.set_frozen_stages(len(self.stages()) if frozen else 0)

    def set_frozen_stages(self, count: int) -> None:
        """Freeze the first ``count`` stages and thaw the others: gradients and mode together."""
        stages = self.stages()
        self._frozen_stages, self._frozen = count, count == len(stages)
        for index, stage in enumerate(stages):
            for parameter in stage.parameters():
                parameter.requires_grad_(index >= count)
        # Thawing gives back the mode that was last asked for while frozen.
        self.train(self._wanted_mode)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``, but what is frozen stays in evaluation mode.

        So does what belongs to no stage, as long as any is frozen: a rotary embedding that is
        disturbed at random in training would disturb the frozen blocks too.
        """
        self._wanted_mode = mode
        if not mode or not self._frozen_stages:
            return super().train(mode)
        super().train(False)
        for stage in self.stages()[self._frozen_stages :]:
            for module in stage.modules:
                module.train()
        return self

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Evaluation mode without gradients for a while, as when all of it is frozen."""
        wanted = self._wanted_mode
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(wanted)

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` (or float 0-255) to the statistics that the weights expect."""
        return (frames.float() / 255 - self.mean) / self.std

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` images."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> BackboneFeatures:
        """Features of uint8 ``[N, 3, H, W]`` images.

        Raises:
            ValueError: height or width is no multiple of ``size_multiple``, and ``size_policy`` is
                ``error``.
        """
        height, width = frames.shape[-2:]
        below, right = -height % self.size_multiple, -width % self.size_multiple
        if (below or right) and self.size_policy == "error":
            raise ValueError(
                f"frames are {height}x{width}; height and width must be multiples of"
                f" {self.size_multiple} for {type(self).__name__}: set dataset.size (of training"
                " clips dataset.augment.crop, if it is used), or model.backbone.size_policy=pad"
            )
        if self.checkpointing and not self._checkpointed:
            # Not in the constructor: a subclass builds its modules after it.
            for stage in self.stages():
                checkpoint_units(stage.modules)
            self._checkpointed = True
        with torch.no_grad() if self._frozen else nullcontext():
            images = self.normalise(frames)
            if not (below or right):
                return self.extract(images)
            # 0 is the mean colour after normalisation
            features = self.extract(F.pad(images, (0, right, 0, below)))
            levels = tuple(
                cover(level, stride, height, width)
                for level, stride in zip(features.levels, self.strides, strict=True)
            )
            return BackboneFeatures(levels=levels, cls=features.cls)
