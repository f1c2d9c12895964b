"""What a run leaves behind in numbers: ``summary.json``, ``metrics.csv``, TensorBoard events.

Special here: all of it lies directly in the run's folder, is on the disk while the run still goes
on, and is continued by a resumed run. Values that are no finite numbers become ``null``, which
every JSON reader accepts.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from scene_track.io.atomic import atomic_path
from scene_track.training.checkpointing import RunCheckpoint

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
METRICS = "metrics.csv"
PACKAGES = (
    "scene_track",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "numpy",
    "scipy",
    "timm",
)


def git_sha() -> str | None:
    """Commit of the checkout that this package runs from; None for an installed wheel."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    try:
        # an installed package may lie inside some other project's repository: ask whether this file
        # is tracked
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=5,
        )
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() if tracked.returncode == head.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that decide over numbers."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def finite(value: float | None) -> float | None:
    """The value, or None where it is no finite number."""
    return value if value is not None and math.isfinite(value) else None


class RunSummary(pl.Callback):
    """Writes ``summary.json`` at the end of every epoch and of the run.

    Keys: ``monitor``; ``metrics`` (by name: ``best`` and ``last``); ``checkpoint`` (the best one,
    relative to the run's folder; the last one while there is no best; else null); ``status``
    (``running``, ``finished``, or what stopped the run); ``epoch``; ``step``; ``wall_s`` (seconds
    of fitting, earlier parts of a resumed run included); ``seed``; ``processes``;
    ``effective_batch`` (clips per optimiser step, over all processes; null where the data has no
    batch size); ``learning_rate`` (the highest of all parts); ``git_sha``; ``packages``.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        monitor: str,
        mode: Literal["min", "max"],
        higher_is_better: list[str],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        """Store what the summary says of the run.

        Args:
            run_dir: the run's folder.
            monitor: the metric that decides.
            mode: its direction.
            higher_is_better: beginnings of the last part of metric names, such as ``hota`` for
                ``val/hota``; of all others (losses, errors, counts of mistakes) lower is better.
            seed: the run's seed.
        """
        self.path = Path(run_dir) / SUMMARY
        self.monitor = monitor
        self.mode = mode
        self.higher_is_better = tuple(higher_is_better)
        self.seed = seed
        self.metrics: dict[str, dict[str, float | None]] = {}
        self.status = "running"
        self._wall_before = 0.0
        self._start: float | None = None
        self._git_sha: str | None = None
        self._scale: dict[str, int | float | None] = {}

    def state_dict(self) -> dict[str, Any]:
        """Best and last values and the time spent so far."""
        return {
            "metrics": {name: dict(pair) for name, pair in self.metrics.items()},
            "wall_s": self.wall_s,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Carry best values and time on."""
        self.metrics = {name: dict(pair) for name, pair in state_dict["metrics"].items()}
        self._wall_before = state_dict["wall_s"]

    @property
    def wall_s(self) -> float:
        """Seconds of fitting so far, earlier parts of a resumed run included."""
        return self._wall_before + (
            time.monotonic() - self._start if self._start is not None else 0.0
        )

    def better(self, name: str, value: float, best: float | None) -> bool:
        """Whether ``value`` of metric ``name`` beats ``best`` (None = nothing yet)."""
        if best is None:
            return True
        higher = name.rpartition("/")[2].startswith(self.higher_is_better)
        if name == self.monitor:
            higher = self.mode == "max"
        return value > best if higher else value < best

    def update(self, values: Mapping[str, float]) -> None:
        """Take new values in.

        Args:
            values: by metric name; learning rates (``lr/``) and values of one step (``_step``) are
                left out.
        """
        for name, raw in values.items():
            if name.endswith("_step") or name.startswith("lr/"):
                continue
            value = finite(float(raw))
            pair = self.metrics.setdefault(name, {"best": None, "last": None})
            pair["last"] = value
            if value is not None and self.better(name, value, pair["best"]):
                pair["best"] = value

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock."""
        if stage == "fit":
            self._start = time.monotonic()
            self._git_sha = git_sha()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say, in every process, how much goes into one step: rates belong to a batch size."""
        batch = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
        micro = trainer.accumulate_grad_batches
        total = None if batch is None else batch * trainer.world_size * micro
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rate = max((group.get("initial_lr", group["lr"]) for group in groups), default=None)
        self._scale = {
            "processes": trainer.world_size,
            "effective_batch": total,
            "learning_rate": rate,
        }
        log.info(
            "process %d of %d: effective batch %s clips (%s per process, %d accumulated), highest"
            " learning rate %s",
            *(trainer.global_rank + 1, trainer.world_size, total, batch, micro),
            "none" if rate is None else f"{rate:g}",
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the validation's values in, so that checkpoints saved next carry them."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.update(_scalars(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the epoch's values in and write."""
        self.update(_scalars(trainer))
        self.write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last state."""
        self.status = "finished"
        self.write(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write what stopped the run."""
        text = str(exception).split("\n")[0]
        self.status = f"stopped: {type(exception).__name__}" + (f": {text}" if text else "")
        self.write(trainer)

    @rank_zero_only
    def write(self, trainer: pl.Trainer) -> None:
        """Write ``summary.json`` in one step."""
        keeper = next(
            (c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)), None
        )
        checkpoint = (keeper.best_model_path or keeper.last_model_path) if keeper else ""
        content = {
            "monitor": self.monitor,
            "metrics": {name: self.metrics[name] for name in sorted(self.metrics)},
            "checkpoint": os.path.relpath(checkpoint, self.path.parent) if checkpoint else None,
            "status": self.status,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "wall_s": round(self.wall_s, 3),
            "seed": self.seed,
            **self._scale,
            "git_sha": self._git_sha,
            "packages": package_versions(),
        }
        with atomic_path(self.path) as temporary:
            temporary.write_text(
                json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )


def _scalars(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class RunCSVLogger(Logger):
    """Writes ``metrics.csv`` into the run's folder, one row per log call.

    Every row is on the disk when the call returns. A run that continues in the same folder appends;
    rows of steps that it trains again are dropped first, so that the file tells one history.
    Lightning's own logger deletes the file instead.
    """

    def __init__(self, *, run_dir: str) -> None:
        """Store the folder.

        Args:
            run_dir: the run's folder.
        """
        super().__init__()
        self.path = Path(run_dir) / METRICS
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: a run has one history."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the resolved configuration lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: values by name.
            step: optimiser steps before this one; None = 0.
        """
        row = {"step": step or 0, **{name: float(value) for name, value in metrics.items()}}
        if "epoch" in row:
            row["epoch"] = int(row["epoch"])
        if self._columns is None:
            self._open(row)
        assert self._columns is not None
        new = [name for name in row if name not in self._columns]
        if new:
            old = self._rows()
            self._columns += new
            self._rewrite([*old, row])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _open(self, first: Mapping[str, float]) -> None:
        """Take over an existing file up to the first row that is to be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            self._columns = list(first)
            self._rewrite([])
            return
        rows = self._rows()
        with self.path.open(newline="", encoding="utf-8") as file:
            self._columns = next(csv.reader(file), [])
        values = set(first) - {"step", "epoch"}

        def again(row: Mapping[str, str]) -> bool:
            step = int(row["step"])
            return step > first["step"] or (
                step == first["step"] and any(row.get(name) for name in values)
            )

        self._rewrite([row for row in rows if not again(row)])

    def _rows(self) -> list[dict[str, str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            # a kill may have torn the last row: it has fewer fields, or no step
            return [row for row in reader if None not in row.values() and row["step"].isdigit()]

    def _rewrite(self, rows: list[Any]) -> None:
        assert self._columns is not None
        with (
            atomic_path(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


class LearningRates(pl.Callback):
    """Logs the learning rate of each part of the model as ``lr/<prefix>``."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the rates that this step is made with, when the step is logged."""
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if (trainer.global_step + 1) % every:
            return
        groups = enumerate(optimizer.param_groups)
        rates = {f"lr/{g.get('name', str(i)).split('/')[0]}": g["lr"] for i, g in groups}
        pl_module.log_dict(rates, on_step=True, on_epoch=False)


def tensorboard_logger(*, run_dir: str) -> TensorBoardLogger:
    """TensorBoard events directly in the run's folder: TensorBoard names curves by folder.

    Args:
        run_dir: the run's folder.
    """
    return TensorBoardLogger(save_dir=run_dir, name="", version="", default_hp_metric=False)
