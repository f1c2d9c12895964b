"""What a loader is: one library's network of a DINOv3 size, behind one interface.

Loaders hold no tensors. They build a module, rename official tensors for it, run it, and say how it
is cut along its depth; the backbone owns the module. So the module's names in a checkpoint are the
library's own.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from scene_track.models.backbones.base import Stage


class Loader(Protocol):
    """One library's implementation of a family (vision transformer or ConvNeXt)."""

    def build(self, variant: Any) -> nn.Module:
        """The network of a size, with random weights and LayerScale 1."""
        ...

    def convert(self, state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
        """Tensors by official key to tensors by the network's keys."""
        ...

    def features(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Levels ``[N, C, h, w]``, finest first, and the global token of normalised images."""
        ...

    def stages(self, net: nn.Module) -> list[Stage]:
        """Stages of the depth, see ``Backbone.stages``."""
        ...


def as_map(patches: Tensor, images: Tensor, stride: int) -> Tensor:
    """Patch tokens ``[N, h * w, C]`` of images ``[N, 3, H, W]`` as ``[N, C, h, w]``."""
    shape = images.shape[-2] // stride, images.shape[-1] // stride
    return patches.transpose(1, 2).unflatten(2, shape)


def block_stages(
    blocks: list[nn.Module],
    *,
    first: tuple[nn.Module, ...],
    last: tuple[nn.Module, ...],
    tokens: tuple[nn.Parameter, ...] = (),
    before: dict[int, tuple[nn.Module, ...]] | None = None,
) -> list[Stage]:
    """Embedding, then one stage per block, in the order of the depth.

    ``first`` and ``tokens`` are the embedding's modules and bare parameters, ``last`` those after
    the last block, which go with it; ``before`` has modules that go with the block of that index,
    such as down-sampling before it.
    """
    stages = [Stage("embedding", first, tokens)]
    for index, block in enumerate(blocks):
        modules = (*(before or {}).get(index, ()), block)
        if index == len(blocks) - 1:
            modules += last
        stages.append(Stage(f"block {index}", modules))
    return stages


def pyramid_blocks(
    stages: list[list[nn.Module]], downsamples: list[tuple[nn.Module, ...]]
) -> tuple[list[nn.Module], dict[int, tuple[nn.Module, ...]]]:
    """Blocks of all resolutions in one line, and which down-sampling stands before which of them.

    Args:
        stages: blocks per resolution.
        downsamples: modules before each resolution but the first.
    """
    blocks = [block for stage in stages for block in stage]
    starts = [sum(map(len, stages[:index])) for index in range(1, len(stages))]
    return blocks, dict(zip(starts, downsamples, strict=True))
