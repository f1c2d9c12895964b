"""Builds the Lightning Trainer from ``conf/trainer``.

Special here: the number of optimiser steps is limited by a callback. Lightning's own ``max_steps``
ends a run without a validation, and a run limited by it does not resume correctly at an epoch's end
(2.6.6 ends the finished epoch a second time). And all processes of a DDP run validate with the same
running statistics (``SharedStatistics``).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch.distributed as dist
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from torch.nn.parallel import DistributedDataParallel

from scene_track.training.checkpointing import AtomicCheckpointIO
from scene_track.training.precision import resolve_precision

log = logging.getLogger(__name__)


class StopAfterSteps(pl.Callback):
    """Ends the run after a number of optimiser steps, with a last validation."""

    def __init__(self, *, max_steps: Annotated[int, Field(ge=1)]) -> None:
        """Store the limit.

        Args:
            max_steps: optimiser steps of the whole run, resumed ones included.
        """
        self.max_steps = max_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A resumed run may be there already."""
        if trainer.global_step >= self.max_steps:
            log.warning("trainer.max_steps=%d is reached already: nothing to train", self.max_steps)
            trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop when the limit is reached."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True


class SharedStatistics(pl.Callback):
    """Validates with the running statistics of the first process, in every process.

    Those are in the checkpoint. DDP broadcasts buffers only in a forward pass that follows one that
    exchanged gradients (torch 2.14): after a batch that was accumulated each process would validate
    with its own. Here it is done before every validation, and not again inside of it, where the
    processes have different numbers of batches.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give every process the buffers of the first, then leave each alone."""
        if isinstance(trainer.model, DistributedDataParallel):
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, src=0)
            trainer.model.require_forward_param_sync = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes in step again."""
        if isinstance(trainer.model, DistributedDataParallel):
            trainer.model.require_forward_param_sync = True


def total_steps(trainer: pl.Trainer) -> int:
    """Optimiser steps that the run will make: what a learning-rate schedule is laid over.

    Raises:
        ValueError: neither epochs nor steps limit the run.
    """
    limits = [
        callback.max_steps
        for callback in _callbacks(trainer)
        if isinstance(callback, StopAfterSteps)
    ]
    steps = min([trainer.estimated_stepping_batches, *limits])
    if not math.isfinite(steps):
        raise ValueError("the run has no end: set trainer.max_epochs or trainer.max_steps")
    return int(steps)


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return list(getattr(trainer, "callbacks", []))


def build_trainer(
    *,
    max_epochs: Annotated[int, Field(ge=1)],
    max_steps: Annotated[int, Field(ge=1)] | None,
    max_time: Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$")] | None,
    accelerator: Literal["cpu", "gpu", "auto"],
    devices: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] | Literal["auto"],
    num_nodes: Annotated[int, Field(ge=1)],
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"],
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"],
    accumulate_grad_batches: Annotated[int, Field(ge=1)],
    gradient_clip_val: Annotated[float, Field(gt=0)] | None,
    limit_train_batches: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)],
    limit_val_batches: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)],
    check_val_every_n_epoch: Annotated[int, Field(ge=1)],
    val_check_interval: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)],
    num_sanity_val_steps: Annotated[int, Field(ge=-1)],
    log_every_n_steps: Annotated[int, Field(ge=1)],
    deterministic: bool | Literal["warn"],
    benchmark: bool,
    fast_dev_run: bool | Annotated[int, Field(ge=1)],
    overfit_batches: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)],
    detect_anomaly: bool,
    profiler: Literal["simple", "advanced", "pytorch"] | None,
    enable_progress_bar: bool,
    default_root_dir: str,
    callbacks: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
) -> pl.Trainer:
    """A Trainer with atomic checkpoints and the samplers left to the data room.

    Args:
        max_epochs: epochs of the whole run.
        max_steps: optimiser steps of the whole run, whichever limit comes first; None = no limit.
        max_time: ``DD:HH:MM:SS`` after which the run ends; None = no limit.
        accelerator: device kind.
        devices: how many devices, or which.
        num_nodes: machines.
        strategy: how several devices work together.
        precision: see ``resolve_precision``.
        accumulate_grad_batches: batches per optimiser step.
        gradient_clip_val: largest L2 norm of the gradient; None = unclipped.
        limit_train_batches: batches (int) or share (float) of a training epoch.
        limit_val_batches: batches (int) or share (float) of a validation; 0 = none.
        check_val_every_n_epoch: validate every n-th epoch.
        val_check_interval: validate every n batches (int) or every share of an epoch (float).
        num_sanity_val_steps: validation batches before training; -1 = all.
        log_every_n_steps: optimiser steps between two logged training values.
        deterministic: only deterministic operations; ``warn`` = where there are some.
        benchmark: let cuDNN search the fastest convolutions.
        fast_dev_run: train and validate so many batches (True = 1), without logs and checkpoints.
        overfit_batches: train and validate on so many batches (the data module stops shuffling).
        detect_anomaly: find the operation that made a NaN (slow).
        profiler: print where the time goes.
        enable_progress_bar: show progress; False also drops progress callbacks.
        default_root_dir: the run's folder.
        callbacks: built callbacks.
        loggers: built loggers.

    Raises:
        ValueError: the run would end before its first validation.
    """
    if max_epochs < check_val_every_n_epoch and limit_val_batches != 0 and not fast_dev_run:
        raise ValueError(
            f"trainer.check_val_every_n_epoch={check_val_every_n_epoch} is more than"
            f" trainer.max_epochs={max_epochs}: the run would end without a validation; type"
            f" trainer.check_val_every_n_epoch={max_epochs} or less"
        )
    kept = [*callbacks, SharedStatistics()]
    if not enable_progress_bar:
        kept = [c for c in kept if not isinstance(c, ProgressBar)]
    if max_steps is not None and not fast_dev_run:
        kept.append(StopAfterSteps(max_steps=max_steps))
    # Lightning itself leaves out only checkpoint callbacks of its own class
    if fast_dev_run:
        kept = [c for c in kept if not isinstance(c, Checkpoint)]
    _quieten_lightning()
    return pl.Trainer(
        max_epochs=max_epochs,
        max_time=max_time,
        accelerator=accelerator,
        devices=list(devices) if not isinstance(devices, int | str) else devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=resolve_precision(precision, accelerator),  # pyright: ignore[reportArgumentType]
        accumulate_grad_batches=accumulate_grad_batches,
        gradient_clip_val=gradient_clip_val,
        limit_train_batches=_unless_whole(limit_train_batches),
        limit_val_batches=_unless_whole(limit_val_batches),
        check_val_every_n_epoch=check_val_every_n_epoch,
        val_check_interval=_unless_whole(val_check_interval),
        num_sanity_val_steps=num_sanity_val_steps,
        log_every_n_steps=log_every_n_steps,
        deterministic=deterministic,
        benchmark=benchmark,
        fast_dev_run=fast_dev_run,
        overfit_batches=overfit_batches,
        detect_anomaly=detect_anomaly,
        profiler=profiler,
        enable_progress_bar=enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in kept),
        default_root_dir=default_root_dir,
        callbacks=kept,
        logger=list(loggers) or False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
    )


def _unless_whole(share: int | float) -> int | float | None:
    """None for the share 1.0, about which Lightning would print a line each; the number 1 stays."""
    return None if isinstance(share, float) and share == 1.0 else share


def _quieten_lightning() -> None:
    """Drop advertisements, and what a user of this package cannot act on."""
    rank_zero = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    if not any(isinstance(known, _NoTips) for known in rank_zero.filters):
        rank_zero.addFilter(_NoTips())
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # A frozen backbone is, and the log says so.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    # Figures of a validation are gathered before they are logged: every process has the same.
    warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\('val/")


class _NoTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "Tip: For seamless" not in record.getMessage()
