"""Progress of a run: one live line in a terminal, an occasional log line elsewhere.

Values are read from the device only when the line is redrawn, a few times per second.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Annotated, Any

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.callbacks import ProgressBar

log = logging.getLogger(__name__)

_BAR = 20  # characters
_CLEAR = "\r\x1b[K"


class RunProgress(ProgressBar):
    """Shows epoch, batch, loss, learning rate, the monitored value, speed and time left."""

    def __init__(
        self,
        *,
        monitor: str,
        refresh_s: Annotated[float, Field(gt=0, le=60)],
        log_every_s: Annotated[float, Field(gt=0)],
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.refresh_s = refresh_s
        self.log_every_s = log_every_s
        self._enabled = True
        self._terminal = sys.stderr.isatty()
        self._next = 0.0
        self._start_s: float | None = None  # of this process in this epoch
        self._start_batch = 0
        self._cleaner = _ClearLine()

    def enable(self) -> None:
        """Show progress (Lightning calls this in the first process)."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing (Lightning calls this in the other processes)."""
        self._enabled = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Clear the live line before every log line."""
        super().setup(trainer, pl_module, stage)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._cleaner)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Clear the live line."""
        self._cleaner.clear()
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._cleaner)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure the epoch's speed."""
        self._start_s, self._start_batch = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Redraw when due."""
        if self._start_s is None:  # a resume inside an epoch has no epoch start
            self._start_s, self._start_batch = time.monotonic(), batch_idx + 1
        if self._due():
            seconds = max(time.monotonic() - self._start_s, 1e-9)
            rate = (batch_idx + 1 - self._start_batch) / seconds
            self._show(self.line(trainer, batch_idx + 1, rate))

    def line(self, trainer: pl.Trainer, batches: int, rate: float) -> str:
        """The text of the line.

        Args:
            trainer: gives epoch, batches, loss, learning rate and monitored value.
            batches: batches of the epoch done.
            rate: batches per second; 0 = unknown.
        """
        total = trainer.num_training_batches
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        if isinstance(total, int) and total > 0:
            filled = _BAR * batches // total
            parts += ["━" * filled + "╌" * (_BAR - filled)] if self._terminal else []
            parts.append(f"{batches}/{total}")
        # Not what the step returned: under accumulation that is a share of the window's loss.
        if "train/loss" in trainer.callback_metrics:
            parts.append(f"loss {float(trainer.callback_metrics['train/loss']):.4g}")
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if groups:
            parts.append(f"lr {max(group['lr'] for group in groups):.2e}")
        if self.monitor in trainer.callback_metrics:
            parts.append(f"{self.monitor} {float(trainer.callback_metrics[self.monitor]):.4f}")
        if rate > 0:
            parts.append(f"{rate:.2f} batches/s")
            if isinstance(total, int):
                minutes, seconds = divmod(round((total - batches) / rate), 60)
                parts.append(f"{minutes}:{seconds:02d} left in epoch")
        return "  ".join(parts)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show how far the validation is."""
        if self._terminal and self._due():
            total = trainer.num_val_batches
            most = sum(total) if isinstance(total, list) else total
            self._show(f"validation  {batch_idx + 1}/{most}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the monitored value."""
        value = trainer.callback_metrics.get(self.monitor)
        if self._enabled and not trainer.sanity_checking and value is not None:
            log.info(
                "epoch %d/%s  step %d  %s %.4f",
                *(trainer.current_epoch + 1, trainer.max_epochs, trainer.global_step),
                *(self.monitor, float(value)),
            )

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the live line."""
        self._cleaner.clear()
        print(*args, **kwargs)

    def _due(self) -> bool:
        now = time.monotonic()
        if not self._enabled or now < self._next:
            return False
        self._next = now + (self.refresh_s if self._terminal else self.log_every_s)
        return True

    def _show(self, text: str) -> None:
        if self._terminal:
            sys.stderr.write(f"{_CLEAR}{text}")
            sys.stderr.flush()
            self._cleaner.dirty = True
        else:
            log.info("%s", text)


class _ClearLine(logging.Filter):
    """Clears the live line before a log record is printed; lets every record through."""

    dirty = False

    def clear(self) -> None:
        if self.dirty:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self.dirty = False

    def filter(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True
