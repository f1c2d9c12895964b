"""The depth of a network nobody here wrote: its blocks in order, found by their kind.

Libraries keep the repeated part of a network in lists of modules of one class. The outermost such
lists are the blocks, unless each of their members holds a list of its own (a pyramid of stages of
blocks), then those are. Without such lists, the parts that the network is made of are. Modules are
taken in the order in which they were registered, which is the order of the depth in the libraries
we read.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from scene_track.models.backbones.base import Stage


def depth_stages(net: nn.Module) -> list[Stage]:
    """Cut a network into embedding and blocks; what follows a block belongs to it.

    Args:
        net: any network, such as timm's or transformers'.

    Returns:
        Disjoint stages that cover every parameter; one stage where no blocks are found.
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
