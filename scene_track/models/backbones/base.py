"""The interface every backbone shares, and what *frozen* means.

A backbone turns pictures into one or more feature maps at stated strides and one global token. What
follows (neck, decoder, head) reads ``strides``, ``dims`` and ``cls_dim`` and knows no more.
Frozen means: no gradient, no graph, ``eval()`` mode whatever Lightning calls, buffers untouched.
The state is a function of the epoch alone (``frozen_at``), so it survives a resume by construction.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class BackboneFeatures:
    """Output of a backbone for N pictures of H x W.

    Attributes:
        levels: feature maps, finest first; level i is ``[N, dims[i], H / strides[i], W /
            strides[i]]``.
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


class Backbone(nn.Module):
    """Base class: subclasses implement ``extract`` and set the attributes below in ``__init__``.

    Attributes:
        strides: pixels per cell of each level, finest first: ``(16,)`` of a plain ViT, ``(4, 8, 16,
            32)`` of a ConvNeXt.
        dims: channels of each level.
        cls_dim: channels of the global token.
        size_multiple: height and width must be multiples of this.
        mean, std: RGB statistics (of 0-1 values) that the weights expect.
    """

    strides: tuple[int, ...]
    dims: tuple[int, ...]
    cls_dim: int
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        size_multiple: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        freeze: bool = False,
        unfreeze_after: int | None = None,
    ) -> None:
        """Store what all backbones share.

        Args:
            size_multiple: height and width of the input must be multiples of this.
            mean: per-channel mean of 0-1 RGB.
            std: per-channel standard deviation of 0-1 RGB.
            freeze: keep the backbone frozen for the whole run.
            unfreeze_after: keep it frozen for the first N epochs, then train it (wins over
                ``freeze``).
        """
        super().__init__()
        self.size_multiple = size_multiple
        self.freeze = freeze
        self.unfreeze_after = unfreeze_after
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._frozen = False
        self._wanted_mode = True

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
        """Whether the backbone is frozen now."""
        return self._frozen

    def frozen_at(self, epoch: int) -> bool:
        """Whether the schedule says frozen in ``epoch`` (from 0)."""
        if self.unfreeze_after is not None:
            return epoch < self.unfreeze_after
        return self.freeze

    def set_frozen(self, frozen: bool) -> None:
        """Freeze or thaw: gradients and mode together."""
        self._frozen = frozen
        for parameter in self.parameters():
            parameter.requires_grad_(not frozen)
        # Thawing gives back the mode that was last asked for while frozen.
        self.train(self._wanted_mode)

    def train(self, mode: bool = True) -> Backbone:
        """As ``nn.Module.train``, but a frozen backbone stays in evaluation mode."""
        self._wanted_mode = mode
        return super().train(mode and not self._frozen)

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` (or float 0-255) to the statistics that the weights expect."""
        return (frames.float() / 255 - self.mean) / self.std

    def extract(self, images: Tensor) -> BackboneFeatures:
        """Features of normalised ``[N, 3, H, W]`` pictures."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> BackboneFeatures:
        """Features of uint8 ``[N, 3, H, W]`` pictures.

        Raises:
            ValueError: height or width is no multiple of ``size_multiple``.
        """
        height, width = frames.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"frames are {height}x{width}; height and width must be multiples of"
                f" {self.size_multiple} for {type(self).__name__}: set dataset.size"
            )
        with torch.no_grad() if self._frozen else nullcontext():
            return self.extract(self.normalise(frames))
