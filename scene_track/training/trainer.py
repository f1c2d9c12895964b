"""Builds the Lightning Trainer from ``conf/trainer``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict, Unpack

import pytorch_lightning as pl
import torch.distributed as dist
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from torch.nn.parallel import DistributedDataParallel

from scene_track.training.checkpointing import AtomicCheckpointIO
from scene_track.training.precision import resolve_precision
from scene_track.training.run_length import RunLength
from scene_track.training.threads import CpuThreads


class SharedStatistics(pl.Callback):
    """Validates with the running statistics of the first process, in every process.

    The checkpoint holds those of the first process. DDP broadcasts buffers only in a forward pass
    after one that exchanged gradients (torch 2.14), so after an accumulated batch each process
    would validate with its own. Inside the validation the processes have different numbers of
    batches: nothing is broadcast there.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Broadcast the buffers of the first process; DDP broadcasts none until the end."""
        if isinstance(trainer.model, DistributedDataParallel):
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, src=0)
            trainer.model.require_forward_param_sync = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let DDP broadcast again."""
        if isinstance(trainer.model, DistributedDataParallel):
            trainer.model.require_forward_param_sync = True


Duration = Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$")]


class TrainerOptions(TypedDict):
    """What ``conf/trainer`` sets, in its units; handed to ``pl.Trainer`` under the same names."""

    max_epochs: Annotated[int, Field(ge=1)]
    max_time: Duration | None
    accelerator: Literal["cpu", "gpu", "auto"]
    devices: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] | Literal["auto"]
    num_nodes: Annotated[int, Field(ge=1)]
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    accumulate_grad_batches: Annotated[int, Field(ge=1)]
    gradient_clip_val: Annotated[float, Field(gt=0)] | None
    limit_train_batches: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
    limit_val_batches: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)]
    check_val_every_n_epoch: Annotated[int, Field(ge=1)]
    val_check_interval: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: Annotated[int, Field(ge=1)]
    deterministic: bool | Literal["warn"]
    benchmark: bool
    fast_dev_run: bool | Annotated[int, Field(ge=1)]
    overfit_batches: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)]
    detect_anomaly: bool
    profiler: Literal["simple", "advanced", "pytorch"] | None
    enable_progress_bar: bool
    default_root_dir: str


def build_trainer(
    *,
    max_steps: Annotated[int, Field(ge=1)] | None,
    budget: Annotated[
        Duration | None, Field(description="type DD:HH:MM:SS, 00:03:00:00 for three hours")
    ],
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] | None,
    callbacks: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
    **options: Unpack[TrainerOptions],
) -> pl.Trainer:
    """A Trainer with atomic checkpoints, whose samplers are left to the data module.

    Raises:
        ValueError: the run would end before its first validation.
    """
    fast = options["fast_dev_run"]
    every, epochs = options["check_val_every_n_epoch"], options["max_epochs"]
    if epochs < every and options["limit_val_batches"] != 0 and not fast:
        raise ValueError(
            f"trainer.check_val_every_n_epoch={every} is more than trainer.max_epochs={epochs}: the"
            " run would end without a validation; type"
            f" trainer.check_val_every_n_epoch={epochs} or less"
        )
    # A user's choice, or one that Lightning would not carry out for callbacks of other classes.
    dropped = (ProgressBar,) * (not options["enable_progress_bar"]) + (Checkpoint,) * bool(fast)
    own = (SharedStatistics(), CpuThreads(threads=threads))
    kept = [c for c in (*callbacks, *own) if not isinstance(c, dropped)]
    if not fast:
        kept.append(RunLength(max_steps=max_steps, budget=budget))
    _quieten_lightning()
    settings: dict[str, Any] = dict(options)
    settings["precision"] = resolve_precision(options["precision"], options["accelerator"])
    for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
        if isinstance(settings[name], float) and settings[name] == 1.0:
            settings[name] = None  # the same, without a line in the log; the number 1 stays
    if not isinstance(settings["devices"], int | str):
        settings["devices"] = list(settings["devices"])  # Hydra's list type is not accepted
    return pl.Trainer(
        **settings,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in kept),
        callbacks=kept,
        logger=list(loggers) or False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
    )


def _quieten_lightning() -> None:
    """Drop advertisements, and warnings that a user of this package cannot act on."""
    rank_zero = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    if not any(isinstance(known, _NoTips) for known in rank_zero.filters):
        rank_zero.addFilter(_NoTips())
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # A frozen backbone is in eval mode, and the log says so.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    # Values of a validation are gathered before they are logged: every process has the same.
    warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\('val/")


class _NoTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "Tip: For seamless" not in record.getMessage()
