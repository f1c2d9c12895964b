"""The interface every backbone shares, and what *frozen* means.

A backbone turns normalised pictures into one feature map at a stated stride and one global token.
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
    """Output of a backbone.

    Attributes:
        patches: ``[N, C, h, w]`` feature map at the backbone's stride.
        cls: ``[N, C_cls]`` global token.
        fine: ``[N, C_fine, 2h, 2w]`` map at half that stride, for the borders of boxes; None where
            the backbone has none.
    """

    patches: Tensor
    cls: Tensor
    fine: Tensor | None = None


class Backbone(nn.Module):
    """Base class: subclasses implement ``extract`` and set the attributes below in ``__init__``.

    Attributes:
        dim: channels of ``patches``.
        cls_dim: channels of ``cls``.
        stride: pixels per cell of ``patches``.
        fine_dim: channels of ``fine``; 0 where there is none.
        size_multiple: height and width must be multiples of this.
        mean, std: RGB statistics (of 0-1 values) that the weights expect.
    """

    dim: int
    cls_dim: int
    stride: int
    fine_dim: int = 0
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
