"""Stops a run whose loss or weights are not finite, before a checkpoint of it is written.

On a GPU, reading a loss makes the processor wait. There losses stay on the device and are checked
every few steps and before every checkpoint; on a CPU in every step.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor

from scene_track.training.run_checkpoint import NonFiniteError


class NonFiniteGuard(pl.Callback):
    """Raises ``NonFiniteError``, naming the batch whose loss was NaN or infinite."""

    def __init__(self, *, every_n_steps: Annotated[int, Field(ge=1)]) -> None:
        self.every_n_steps = every_n_steps
        self._batch: Any = None
        self._place = ""
        self._waiting: list[tuple[Tensor, Any, str]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, for the message."""
        self._batch = batch
        place = f"epoch {trainer.current_epoch}, batch {batch_idx}, step {trainer.global_step}"
        self._place = place

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Check the loss, before it is used in a step."""
        # Of the batch what names it: its images would stay on the device.
        names = [getattr(self._batch, key, None) for key in ("sequence_ids", "frame_indices")]
        self._waiting.append((loss.detach(), names, self._place))
        if loss.device.type == "cpu" or len(self._waiting) >= self.every_n_steps:
            self._check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the losses that are left."""
        self._check()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save weights that are not finite."""
        self._check()
        floats = [p for p in pl_module.parameters() if p.is_floating_point() and p.numel()]
        sums = torch.stack(
            [p.detach().sum(dtype=torch.float64).to("cpu", non_blocking=True) for p in floats]
        )
        if not bool(sums.isfinite().all()):
            named = pl_module.named_parameters()
            if bad := [name for name, p in named if not bool(p.detach().isfinite().all())]:
                raise NonFiniteError(
                    f"{len(bad)} weights such as {bad[0]} are not finite after {self._place}: a"
                    " gradient overflowed; nothing was saved. Lower optimizer.lr, or set"
                    " trainer.precision=32-true"
                )

    def _check(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        losses = torch.stack([loss for loss, *_ in waiting]).tolist()
        for value, (_, (sequences, frames), place) in zip(losses, waiting, strict=True):
            if math.isfinite(value):
                continue
            clips = "a batch without sequence ids"
            if sequences is not None and frames is not None:
                pairs = zip(sequences, torch.as_tensor(frames).tolist(), strict=True)
                clips = "; ".join(f"sequence {name} frames {numbers}" for name, numbers in pairs)
            raise NonFiniteError(
                f"the loss is {value} at {place}: {clips}. Look at these frames, lower"
                " optimizer.lr, or set trainer.precision=32-true"
            )
