"""Progress of a run: Lightning's bar in a terminal, an occasional log line elsewhere.

Values are read from the device only when they are shown.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Annotated, Any

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.callbacks import TQDMProgressBar
from tqdm.contrib.logging import logging_redirect_tqdm

from scene_track.training.parameter_groups import base_groups

log = logging.getLogger(__name__)


class RunProgress(TQDMProgressBar):
    """Shows epoch, batch, loss, learning rate, the monitored value, speed and time left."""

    def __init__(
        self,
        *,
        monitor: str,
        refresh_every: Annotated[int, Field(ge=1)],
        log_every_s: Annotated[float, Field(gt=0)],
    ) -> None:
        super().__init__(refresh_rate=refresh_every)
        self.monitor, self.log_every_s = monitor, log_every_s
        self._terminal = sys.stdout.isatty()
        self._beside_the_bar = contextlib.ExitStack()
        self._next = 0.0
        self._start_s: float | None = None  # of this process in this epoch
        self._start_batch = 0

    @property
    def is_disabled(self) -> bool:
        """Whether no bar is drawn."""
        return super().is_disabled or not self._terminal

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write log lines above the bar."""
        super().setup(trainer, pl_module, stage)
        if not self.is_disabled:
            self._beside_the_bar.enter_context(logging_redirect_tqdm())

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write log lines as before."""
        self._beside_the_bar.close()

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown beside the bar and in a log line."""
        shown: dict[str, Any] = {}
        # Not what the step returned: under accumulation that is a share of the window's loss.
        if "train/loss" in trainer.callback_metrics:
            shown["loss"] = f"{float(trainer.callback_metrics['train/loss']):.4g}"
        if groups := base_groups(trainer.optimizers):
            shown["lr"] = f"{max(group['lr'] for group in groups):.2e}"
        if self.monitor in trainer.callback_metrics:
            shown[self.monitor] = f"{float(trainer.callback_metrics[self.monitor]):.4f}"
        return shown

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin to measure the epoch's speed."""
        super().on_train_epoch_start(trainer, *_)
        self._start_s, self._start_batch = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar, or log a line when one is due."""
        if self._terminal:  # a bar that is not drawn would still read the loss from the device
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        now = time.monotonic()
        if self._start_s is None:  # a resume inside an epoch has no epoch start
            self._start_s, self._start_batch = now, batch_idx + 1
        if self._terminal or not self.is_enabled or now < self._next:
            return
        self._next = now + self.log_every_s
        done, total = batch_idx + 1, trainer.num_training_batches
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", f"{done}/{total}"]
        parts += [f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items()]
        rate = (done - self._start_batch) / max(now - self._start_s, 1e-9)
        if rate > 0:
            minutes, seconds = divmod(round((total - done) / rate), 60)
            parts += [f"{rate:.2f} batches/s", f"{minutes}:{seconds:02d} left in epoch"]
        log.info("%s", "  ".join(parts))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the monitored value."""
        super().on_validation_end(trainer, pl_module)
        value = trainer.callback_metrics.get(self.monitor)
        if self.is_enabled and not trainer.sanity_checking and value is not None:
            log.info(
                "epoch %d/%s  step %d  %s %.4f",
                *(trainer.current_epoch + 1, trainer.max_epochs, trainer.global_step),
                *(self.monitor, float(value)),
            )
