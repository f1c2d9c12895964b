"""Progress of a run: one live line in a terminal, an occasional log line elsewhere.

Special here: values are read from the device only when the line is redrawn, a few times per second,
so that watching costs a GPU nothing; and nothing is drawn into a log file.
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

BAR = 20


class RunProgress(ProgressBar):
    """Shows epoch, batch, loss, learning rate, the monitored value, speed and time left."""

    def __init__(
        self,
        *,
        monitor: str,
        refresh_s: Annotated[float, Field(gt=0, le=60)],
        log_every_s: Annotated[float, Field(gt=0)],
    ) -> None:
        """Store the settings.

        Args:
            monitor: name of the validation value to show.
            refresh_s: seconds between two redraws in a terminal.
            log_every_s: seconds between two log lines where there is no terminal.
        """
        super().__init__()
        self.monitor = monitor
        self.refresh_s = refresh_s
        self.log_every_s = log_every_s
        self._enabled = True
        self._terminal = sys.stderr.isatty()
        self._next = 0.0
        self._epoch_start = (0.0, 0)
        self._cleaner: _ClearLine | None = None

    def enable(self) -> None:
        """Show progress (Lightning calls this on the first process)."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing (Lightning calls this on the other processes)."""
        self._enabled = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep log lines and the live line apart."""
        super().setup(trainer, pl_module, stage)
        if self._enabled and self._terminal and self._cleaner is None:
            self._cleaner = _ClearLine()
            for handler in logging.getLogger().handlers:
                handler.addFilter(self._cleaner)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal tidy."""
        if self._cleaner is not None:
            self._cleaner.clear()
            for handler in logging.getLogger().handlers:
                handler.removeFilter(self._cleaner)
            self._cleaner = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure the epoch's speed."""
        self._epoch_start = (time.monotonic(), 0)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Redraw when it is time."""
        now = time.monotonic()
        if self._epoch_start[0] == 0.0:  # a resume inside an epoch has no epoch start
            self._epoch_start = (now, batch_idx + 1)
        if not self._enabled or now < self._next:
            return
        self._next = now + (self.refresh_s if self._terminal else self.log_every_s)
        started, first = self._epoch_start
        rate = (batch_idx + 1 - first) / max(now - started, 1e-9)
        self._show(self.line(trainer, batch_idx + 1, rate), live=self._terminal)

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
            if self._terminal:
                filled = BAR * batches // total
                parts.append("━" * filled + "╌" * (BAR - filled))
            parts.append(f"{batches}/{total}")
        # Not what the step returned: under accumulation that is a share of the window's loss.
        if "train/loss" in trainer.callback_metrics:
            parts.append(f"loss {float(trainer.callback_metrics['train/loss']):.4g}")
        rates = [
            group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups
        ]
        if rates:
            parts.append(f"lr {max(rates):.2e}")
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
        now = time.monotonic()
        if self._enabled and self._terminal and now >= self._next:
            self._next = now + self.refresh_s
            total = trainer.num_val_batches
            most = sum(total) if isinstance(total, list) else total
            self._show(f"validation  {batch_idx + 1}/{most}", live=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave a line with the monitored value."""
        value = trainer.callback_metrics.get(self.monitor)
        if self._enabled and not trainer.sanity_checking and value is not None:
            log.info(
                "epoch %d/%s  step %d  %s %.4f",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                trainer.global_step,
                self.monitor,
                float(value),
            )

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the live line."""
        if self._cleaner is not None:
            self._cleaner.clear()
        print(*args, **kwargs)

    def _show(self, text: str, *, live: bool) -> None:
        if live:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            if self._cleaner is not None:
                self._cleaner.dirty = True
        else:
            log.info("%s", text)


class _ClearLine(logging.Filter):
    """Wipes the live line before a log record is printed; lets every record through."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty = False

    def clear(self) -> None:
        if self.dirty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self.dirty = False

    def filter(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True
