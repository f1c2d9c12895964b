"""Checkpoints that survive a kill at any moment and continue bit for bit.

- A file is written beside its final name, flushed to the disk and renamed.
- The position in a checkpoint is written by ``RunCheckpoint``. Lightning's own counters are in the
  middle of something when a run is interrupted (a batch fetched but not trained, an accumulation or
  a validation half done). The state is always the one after the last optimiser step; a validation
  that was due and not finished is due again.
- A signal is answered between two optimiser steps, where the weights are whole. All processes stop
  after the same step, whichever of them received it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from scene_track.io.atomic import atomic_path
from scene_track.training.checkpointing import BEST, FOLDER, LAST, load_checkpoint, plain
from scene_track.training.lightning_state import (
    Position,
    position_after_batch,
    restore_loader_position,
    write_position,
)

log = logging.getLogger(__name__)

_AGREE_EVERY = 10  # optimiser steps after which several processes exchange received signals


class NonFiniteError(ValueError):
    """A loss or a weight is NaN or infinite; it must not be saved.

    One line for the user: the data or a rate is wrong, not the program.
    """


class RunCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` of a run.

    *Last* is written every ``every_n_steps`` optimiser steps, before every validation, at every
    epoch end, and when the run is stopped by SIGTERM, Ctrl-C or, with a single process, an error.
    *Best* is written after a validation whose monitored value is better than all before, those
    before a resume included.

    EMA or other weights that follow the optimiser must be updated inside ``optimizer_step``: this
    callback saves before the module's own ``on_train_batch_end``.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        monitor: str,
        mode: Literal["min", "max"],
        every_n_steps: Annotated[int, Field(ge=1)],
    ) -> None:
        self.folder = Path(run_dir) / FOLDER
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.best_model_score: float | None = None
        self.best_step: int | None = None
        self.history: list[dict[str, float]] = []
        self._position: Position | None = None
        self._saved: tuple[int, str, bool] | None = None
        self._updating = False
        self._buffers: list[Tensor] = []
        self._versions: list[int] = []
        self.received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def best_model_path(self) -> str:
        """The best checkpoint's file, or an empty string while there is none."""
        return str(self.folder / BEST) if self.best_model_score is not None else ""

    @property
    def last_model_path(self) -> str:
        """The last checkpoint's file, or an empty string while there is none."""
        return str(self.folder / LAST) if (self.folder / LAST).is_file() else ""

    def state_dict(self) -> dict[str, Any]:
        """Position, best value and history of the monitor, as plain numbers."""
        return {
            "monitor": self.monitor,
            "best": self.best_model_score,
            "best_step": self.best_step,
            "history": list(self.history),
            "position": asdict(self._position) if self._position else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Carry the position on, and best value and history if they are of the same monitor."""
        if state_dict["position"] is not None:
            self._position = Position(**state_dict["position"])
        if state_dict["monitor"] != self.monitor:
            log.warning(
                "the checkpoint's monitor was %s, now it is %s: the best value starts anew",
                *(state_dict["monitor"], self.monitor),
            )
            return
        self.best_model_score = state_dict["best"]
        self.best_step = state_dict["best_step"]
        self.history = list(state_dict["history"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the best checkpoint of a resumed run into this run's folder."""
        if self.best_model_score is None or trainer.ckpt_path is None:
            return
        target = self.folder / BEST
        source = Path(trainer.ckpt_path).parent / BEST
        there = [path for path in (target, source) if path.is_file()]
        steps = ((path, load_checkpoint(path).get("global_step")) for path in there)
        found = next((path for path, step in steps if step == self.best_step), None)
        if found is None:
            log.warning(
                "%s %.4g was best, but its checkpoint is not beside %s: the best value starts anew",
                *(self.monitor, self.best_model_score, trainer.ckpt_path),
            )
            self.best_model_score = self.best_step = None
        elif found != target and trainer.is_global_zero:
            with atomic_path(target) as temporary:
                shutil.copyfile(found, temporary)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the loader's position; handle signals at the end of a step from here on."""
        restore_loader_position(trainer)
        self._buffers = list(pl_module.buffers())
        self._versions = [buffer._version for buffer in self._buffers]
        self.received = None
        # Lightning's handler calls the other processes from inside the signal, wherever they are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if again:
            raise self._stop_request()
        log.warning(
            "%s: finishing the step and saving; once more stops at once", self.received.name
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note that the weights may be half updated until the end of the batch."""
        self._updating = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """After an optimiser step: note the position, save when due, answer signals."""
        before = self._position.steps if self._position else None
        if not self._updating and trainer.global_step == before:
            return  # gradients are being accumulated
        self._updating = False
        self._position = position = position_after_batch(trainer, batch_idx)
        due, last_batch = position.validation == "pending", position.last_batch
        self._versions = [buffer._version for buffer in self._buffers]
        stop = self._stop_received(trainer, last_batch)
        # without a validation the epoch's end, which saves, is only an instant away
        if due or stop or (trainer.global_step % self.every_n_steps == 0 and not last_batch):
            self._save_last(trainer)
        if stop:
            raise self._stop_request()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Answer signals; *last* was saved before the validation."""
        if self.received is not None and trainer.world_size == 1:  # of several: after a step
            raise self._stop_request()

    def _stop_received(self, trainer: pl.Trainer, last_batch: bool) -> bool:
        """Whether this process, or every ten steps any of several, received a signal."""
        if trainer.world_size == 1:
            return self.received is not None
        if trainer.global_step % _AGREE_EVERY and not last_batch:
            return False
        number = torch.tensor(int(self.received or 0), device=trainer.strategy.root_device)
        received = int(trainer.strategy.reduce(number, reduce_op="max"))
        if received:
            self.received = signal.Signals(received)
        return bool(received)

    def _stop_request(self) -> BaseException:
        return SIGTERMException() if self.received is signal.SIGTERM else KeyboardInterrupt()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the monitored value with the best and save."""
        if trainer.sanity_checking or self._position is None or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor.metric={self.monitor} is not logged by the validation; there are"
                f" {', '.join(sorted(trainer.callback_metrics))}"
            )
        position = self._position
        position.validation = "done"
        position.epoch_done = position.last_batch
        # all processes must agree on what is best: saving waits for each of them
        value = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        self.history.append({"epoch": position.epoch, "step": position.steps, "value": value})
        if self._is_better(value):
            self.best_model_score, self.best_step = value, position.steps
            trainer.save_checkpoint(self.folder / BEST, weights_only=False)
            log.info("%s %.4g is the best so far", self.monitor, value)
        if not position.epoch_done:
            self._save_last(trainer)

    def _is_better(self, value: float) -> bool:
        if value != value:
            log.warning("%s is NaN: not a candidate for the best checkpoint", self.monitor)
            return False
        if self.best_model_score is None:
            return True
        sign = 1 if self.mode == "max" else -1
        return sign * value > sign * self.best_model_score

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save *last*; an epoch that was cut short (should_stop) stays unfinished in it."""
        if self._position is None:
            return
        self._position.epoch_done = self._position.last_batch
        self._save_last(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save *last* unless the weights may be half updated or not finite."""
        self._restore_handlers()
        if isinstance(exception, NonFiniteError) or self._position is None:
            return
        if trainer.world_size > 1:
            return  # one process alone would wait for the others for ever
        # running statistics move before the weights do; saved in between they would move twice
        moved = self._versions != [buffer._version for buffer in self._buffers]
        if self._updating or (moved and not trainer.validating):
            log.warning("stopped inside a step: %s holds an earlier one", self.folder / LAST)
            return
        try:
            self._save_last(trainer)
        except Exception:  # the first error is the one to report
            log.exception("could not save %s", self.folder / LAST)

    def _save_last(self, trainer: pl.Trainer) -> None:
        position = self._position
        assert position is not None
        mark = (position.steps, position.validation, position.epoch_done)
        if mark != self._saved:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)
            self._saved = mark

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the position; make the content loadable with ``weights_only=True``."""
        if self._position is not None:
            write_position(checkpoint["loops"]["fit_loop"], self._position)
            checkpoint["epoch"] = self._position.epoch
        for key, value in list(checkpoint.items()):
            if key != "state_dict":
                checkpoint[key] = plain(value)


@contextlib.contextmanager
def exit_codes(trainer: pl.Trainer) -> Iterator[None]:
    """Around ``trainer.fit``: exit with 143 after SIGTERM and 130 after Ctrl-C.

    Lightning exits with 0 and 1, which tell a scheduler that the run succeeded or failed for good.
    """
    try:
        yield
    except SIGTERMException:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            sys.exit(130)
        raise
    except RuntimeError:
        # a signal to the whole process group kills the data workers first: an error of the loader
        keepers = [c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        if any(keeper.received is signal.SIGTERM for keeper in keepers):
            sys.exit(143)
        raise
