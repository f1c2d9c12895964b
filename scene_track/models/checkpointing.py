"""Gradient checkpointing: keep what enters a block, compute the block again for its gradient.

Special here: it is put around modules of any library, without their help and without a change to
the names of their weights, and a block that is computed twice updates the running statistics of its
batch norms once (torch's own checkpointing would move them twice, silently).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def checkpoint_units(modules: Iterable[nn.Module]) -> None:
    """Checkpoint modules, in place, each on its own.

    A plain container is not called itself, or is cut into pieces by its owner, so its children are
    taken.
    """
    for module in modules:
        if type(module) in (nn.Sequential, nn.ModuleList):
            checkpoint_units(module.children())
        else:
            module.forward = partial(_checkpointed, module, module.forward)


def _checkpointed(
    module: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any
) -> Any:
    """``forward``, remembered by what goes in, where a gradient will be asked for."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(
        forward,
        *arguments,
        use_reentrant=False,
        context_fn=partial(_contexts, module),
        **named,
    )


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Around the forward pass, and around the second one."""
    return nullcontext(), _statistics_at_rest(module)


@contextmanager
def _statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Let batch norms move copies of their running statistics, which are then dropped."""
    norms = [part for part in module.modules() if isinstance(part, _NormBase) and part.training]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({k: None if v is None else v.clone() for k, v in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
