"""What backbones around a network of another library have in common.

Such a network brings parts that no feature depends on: a pooler, a mask token, the head of another
task. They would wait for a gradient that never comes (several processes hang on that), so they are
found by asking autograd once, and never train.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scene_track.models.backbones.base import Backbone, Stage
from scene_track.models.backbones.depth import depth_stages


class LibraryBackbone(Backbone):
    """Base class; subclasses set ``net`` and call ``set_aside_unused`` at their constructor's end.

    Attributes:
        net: the library's network.
        unused: names of its parameters that no feature depends on.
    """

    net: nn.Module
    unused: tuple[str, ...] = ()

    def set_aside_unused(self, size: tuple[int, int]) -> None:
        """Find the parameters that no feature depends on, and stop asking for their gradient.

        Makes the network fit for checkpointing too, where that is asked for.

        Args:
            size: height and width of an image that the network takes.
        """
        if self.checkpointing:
            # A block's input is needed once more; an activation in place would have changed it.
            for module in self.net.modules():
                if getattr(module, "inplace", False):
                    module.inplace = False  # type: ignore[assignment]
        self.net.eval()
        with torch.enable_grad():
            features = self.extract(torch.zeros(1, 3, *size))
            total: Tensor = sum((level.sum() for level in features.levels), features.cls.sum())
        named = dict(self.net.named_parameters())
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        self.unused = tuple(
            name for name, gradient in zip(named, gradients, strict=True) if gradient is None
        )
        self._hold_unused()
        self.net.train(self.training)

    def _hold_unused(self) -> None:
        for name in self.unused:
            self.net.get_parameter(name).requires_grad_(False)

    def set_frozen_stages(self, count: int) -> None:
        """As every backbone; what no feature depends on stays without gradient."""
        super().set_frozen_stages(count)
        self._hold_unused()

    def stages(self) -> list[Stage]:
        """Found by the kind of the modules, see ``depth_stages``."""
        return depth_stages(self.net)
