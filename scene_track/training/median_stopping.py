"""Stops a trial of a sweep that is worse than half of the others were at the same epoch.

The median rule (Golovin et al., "Google Vizier", KDD 2017, section 3.2; Optuna's ``MedianPruner``),
as a callback, because none of Hydra's sweepers prunes. It reads the curves that the other trials
wrote into their folders, so it works with every sweeper and launcher, also while they still run.
Optuna's pruner is not used: it compares with completed trials only, and needs a study that every
trial can read and write, which a grid does not have.
"""

from __future__ import annotations

import json
import logging
import statistics
from pathlib import Path
from typing import Annotated, Literal

import pytorch_lightning as pl
from pydantic import Field

from scene_track.io.atomic import write_atomic
from scene_track.sweeps import records
from scene_track.sweeps.results import read_curves
from scene_track.sweeps.trial import STOPPED

log = logging.getLogger(__name__)


class MedianStopping(pl.Callback):
    """Ends a run whose best value so far is worse than the median of the other trials' best."""

    def __init__(
        self,
        *,
        run_dir: str,
        sweep_dir: str,
        monitor: str,
        mode: Literal["min", "max"],
        min_trials: Annotated[int, Field(ge=1)],
        warmup_epochs: Annotated[int, Field(ge=0)],
    ) -> None:
        self.run_dir = Path(run_dir).absolute()
        self.sweep_dir = Path(sweep_dir).absolute()
        self.monitor, self.mode = monitor, mode
        self.min_trials, self.warmup_epochs = min_trials, warmup_epochs
        self.best: float | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, in the first process; all of them end together."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or value is None:
            return
        seen = [float(value), *([] if self.best is None else [self.best])]
        self.best = max(seen) if self.mode == "max" else min(seen)
        if trainer.current_epoch < self.warmup_epochs:
            return
        reason = self._verdict(trainer.current_epoch) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is None or trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            log.info("stopped early: %s", reason)
            write_atomic(self.run_dir / STOPPED, json.dumps({"reason": reason}) + "\n")

    def _verdict(self, epoch: int) -> str | None:
        """Why the run is to stop after an epoch; None if it is not."""
        others = self._others(epoch)
        if len(others) < self.min_trials or self.best is None:
            return None
        median = statistics.median(others)
        if not (self.best < median if self.mode == "max" else self.best > median):
            return None
        return (
            f"{self.monitor} {self.best:.4f} after epoch {epoch + 1} is worse than the median"
            f" {median:.4f} of {len(others)} other trials"
        )

    def _others(self, epoch: int) -> list[float]:
        """The best value up to an epoch of each other trial that came to it."""
        found = []
        for folder, trial in records.read_all(self.sweep_dir).items():
            if folder == self.run_dir or trial.state in ("failed", "waiting"):
                continue
            curve = read_curves(folder).get(self.monitor, [])
            values = [value for at, _, value in curve if at <= epoch]
            if values and curve[-1][0] >= epoch:
                found.append(max(values) if self.mode == "max" else min(values))
        return found
