"""Chooses how many threads compute on a CPU: two on a busy machine are slower than one."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

log = logging.getLogger(__name__)

_ROUNDS, _LAYERS = 12, 60


class CpuThreads(pl.Callback):
    """Sets the number of threads of a run, and keeps it in the checkpoint.

    Another number of threads changes the rounding of sums, so a resumed run computes on as many as
    it began with.
    """

    def __init__(self, *, threads: int | str | None) -> None:
        """Store the option."""
        self.threads = threads

    def state_dict(self) -> dict[str, Any]:
        """The number that was chosen."""
        return {} if self.threads is None else {"threads": torch.get_num_threads()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compute on as many threads as before, unless another number was typed."""
        if self.threads == "auto" and "threads" in state_dict:
            torch.set_num_threads(state_dict["threads"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose, in a single process on a CPU."""
        if isinstance(self.threads, int):
            torch.set_num_threads(self.threads)
            return
        alone = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"
        if self.threads == "auto" and alone:
            torch.set_num_threads(fastest(torch.get_num_threads()))


def fastest(most: int) -> int:
    """1 or ``most`` threads, whichever takes less time now."""
    if most == 1:
        return 1
    before, spent = torch.get_num_threads(), dict.fromkeys((1, most), 0.0)
    for turn in range(_ROUNDS + 1):
        for threads in spent:
            torch.set_num_threads(threads)
            took = _seconds()
            spent[threads] += took if turn else 0.0  # the first warms up
    torch.set_num_threads(before)
    best = min(spent, key=lambda threads: spent[threads])
    log.info(
        "a part of a step: %.1f ms on 1 thread, %.1f ms on %d: computing on %d",
        *(1e3 * spent[1] / _ROUNDS, 1e3 * spent[most] / _ROUNDS, most, best),
    )
    return best


def _seconds() -> float:
    """Of what a step of the small model is made of, in little; draws nothing at random.

    One convolution, which two threads halve, and many small operations, at whose ends they wait for
    each other: for a thread that is not running, where the machine is busy.
    """
    images = torch.ones(8, 96, 16, 28).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(96, 96, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    queries, matrix = torch.ones(48, 128), torch.ones(128, 128).requires_grad_()
    started = time.perf_counter()
    with torch.enable_grad():
        F.conv2d(images, weight, padding=1).sum().backward()
        for _ in range(_LAYERS):
            queries = F.layer_norm(F.gelu(queries @ matrix), (128,))
        queries.sum().backward()
    return time.perf_counter() - started
