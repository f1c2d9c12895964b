"""Everything here that depends on private state of Lightning, written for pytorch-lightning 2.6.6.

No other file of this package reads or writes an attribute of Lightning that begins with an
underscore, or the loop counters in a checkpoint. Before another version is used, check these
functions; ``tests/training/test_resume.py`` shows whether they still hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy, Strategy


@dataclass
class Position:
    """Where the run was after its last optimiser step.

    Attributes:
        epoch: epoch from 0.
        batches: batches of this epoch trained.
        total_batches: batches of the whole run trained.
        steps: optimiser steps of the whole run.
        last_batch: this was the epoch's last batch.
        validation: ``pending`` = due here and not finished; ``done`` = nothing is due (any more).
        epoch_done: the epoch's end has been reached.
    """

    epoch: int
    batches: int
    total_batches: int
    steps: int
    last_batch: bool
    validation: Literal["pending", "done"]
    epoch_done: bool = False


def position_after_batch(trainer: pl.Trainer, batch_idx: int) -> Position:
    """The position after batch ``batch_idx`` of the epoch, whose optimiser step is done."""
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    assert fetcher is not None
    due = not trainer.should_stop and loop.epoch_loop._should_check_val_fx(fetcher)
    return Position(
        epoch=trainer.current_epoch,
        batches=batch_idx + 1,
        total_batches=loop.total_batch_idx + 1,
        steps=trainer.global_step,
        last_batch=bool(loop.epoch_loop.batch_progress.is_last_batch),
        validation="pending" if due else "done",
    )


def write_position(loops: dict[str, Any], position: Position) -> None:
    """Rewrite a checkpoint's loop counters so that Lightning continues at ``position``.

    Lightning derives from four counters (ready, started, processed, completed) what was going on,
    and takes a different path for each pattern. Three patterns are known to continue exactly:

    - *after a batch*: ``completed`` of the batches is one behind. Training continues with the next
      batch.
    - *validation pending*: all counters of the batches equal, one validation batch started and none
      processed. The whole validation runs again, then training continues.
    - *epoch done*: all counters of the batches equal, ``completed`` of the epochs one behind. The
      next epoch starts.

    Args:
        loops: ``checkpoint["loops"]["fit_loop"]``, changed in place.
        position: the run's position.
    """

    def counters(ready: int, processed: int, completed: int) -> dict[str, int]:
        return {"ready": ready, "started": ready, "processed": processed, "completed": completed}

    pending = position.validation == "pending" and not position.epoch_done
    behind = 0 if pending or position.epoch_done else 1
    for scope, count in (("total", position.total_batches), ("current", position.batches)):
        loops["epoch_loop.batch_progress"][scope] = counters(count, count, count - behind)
        epochs, done = position.epoch + 1, position.epoch + int(position.epoch_done)
        loops["epoch_progress"][scope] = counters(epochs, done, position.epoch)
        loops["epoch_loop.val_loop.batch_progress"][scope] = counters(int(pending), 0, 0)
    loops["epoch_loop.batch_progress"]["is_last_batch"] = position.last_batch
    loops["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = False
    # in the first two patterns Lightning counts the step once more when it continues
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = position.steps - (
        not position.epoch_done
    )
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for event in optimizer.values():
        for scope in event.values():  # a step that was begun and not finished did not happen
            scope.update({key: scope["completed"] for key in scope})
    for loader in loops["state_dict"].get("combined_loader", []):
        if {"epoch", "batches"} <= loader.keys():
            loader.update(epoch=position.epoch, batches=position.batches)


def restore_loader_position(trainer: pl.Trainer) -> None:
    """Give the training loader the position that the checkpoint holds.

    ``trainer.estimated_stepping_batches`` sets the loaders up before the loops are restored, and
    Lightning then never loads their positions: an epoch resumed in its middle would start anew.
    """
    trainer.fit_loop._load_combined_loader_states()


def ddp_misses_unused_parameters(strategy: Strategy) -> bool:
    """Whether the strategy is DDP that expects a gradient for every parameter."""
    return isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(
        "find_unused_parameters", False
    )
