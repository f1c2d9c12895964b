"""What backbones around a network of another library have in common.

Such a network brings parts that no feature depends on: a pooler, a mask token, the head of another
task. They would wait for a gradient that never comes (several processes hang on that), so they are
found by asking autograd once, and never train.

Its depth is found by the kind of its modules. Libraries keep the repeated part of a network in
lists of modules of one class. The outermost such lists are the blocks, unless each of their members
holds a list of its own (a pyramid of stages of blocks), then those are. Without such lists, the
parts that the network is made of are. Modules are taken in the order in which they were registered.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scene_track.models.backbones.base import Backbone, Stage


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


def depth_stages(net: nn.Module) -> list[Stage]:
    """Cut a network into embedding and blocks; what follows a block belongs to it.

    The stages are disjoint and cover every parameter; one stage where no blocks are found.
    """
    composed = [part for part in net.children() if any(True for _ in part.children())]
    blocks = {id(block) for part in _lists(net) or [composed] for block in part}
    found: list[tuple[str, list[nn.Module], list[nn.Parameter]]] = [("embedding", [], [])]
    for item in _walk(net, blocks):
        if id(item) in blocks:
            found.append((f"block {len(found) - 1}", [], []))
        if isinstance(item, nn.Module):
            found[-1][1].append(item)
        else:
            found[-1][2].append(item)
    return [Stage(name, tuple(modules), tuple(tokens)) for name, modules, tokens in found]


def _lists(module: nn.Module) -> list[list[nn.Module]]:
    """The lists of blocks inside a module."""
    members = list(module.children())
    repeated = (
        isinstance(module, nn.ModuleList | nn.Sequential)
        and len(members) > 1
        and len({type(member) for member in members}) == 1
        and all(any(True for _ in member.parameters()) for member in members)
    )
    inner = [_lists(member) for member in members]
    if repeated and not all(inner):
        return [members]
    return [part for parts in inner for part in parts]


def _walk(module: nn.Module, blocks: set[int]) -> Iterator[nn.Module | nn.Parameter]:
    """Bare parameters, blocks and modules without blocks, in the order of registration."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if id(child) in blocks or not any(id(part) in blocks for part in child.modules()):
            yield child
        else:
            yield from _walk(child, blocks)
