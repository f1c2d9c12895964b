"""The numbers of a run: ``summary.json``, ``metrics.csv``, logged learning rates.

All files lie directly in the run's folder, are written while the run goes on, and are continued by
a resumed run. Values that are not finite become ``null``, which every JSON reader accepts.
"""

from __future__ import annotations

import contextlib
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
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from scene_track.io.atomic import atomic_path, write_atomic
from scene_track.training.parameter_groups import base_groups
from scene_track.training.run_checkpoint import RunCheckpoint

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
METRICS = "metrics.csv"
# The packages that affect numbers.
PACKAGES = ("scene_track", "torch", "torchvision", "pytorch-lightning", "hydra-core")
PACKAGES += ("numpy", "scipy", "timm")


def git_sha() -> str | None:
    """Commit of the checkout that this package runs from; None for an installed wheel."""
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    # An installed package may lie inside another project's repository: is this file tracked?
    tracked, head = [*git, "ls-files", "--error-unmatch", file.name], [*git, "rev-parse", "HEAD"]
    try:
        subprocess.run(tracked, capture_output=True, timeout=5, check=True)
        found = subprocess.run(head, capture_output=True, timeout=5, check=True, text=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of the installed packages among ``PACKAGES``."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


class RunSummary(pl.Callback):
    """Writes ``summary.json`` at the end of every epoch and of the run.

    Keys: ``monitor``; ``metrics`` (by name: ``best`` and ``last``); ``checkpoint`` (the best one,
    else the last one, else null; relative to the run's folder); ``status`` (``running``,
    ``finished``, or what stopped the run); ``epoch``; ``step``; ``wall_s`` (seconds of fitting,
    earlier parts of a resumed run included); ``seed``; ``processes``; ``effective_batch`` (clips
    per optimiser step over all processes; null where the data has no batch size);
    ``learning_rate`` (of the parts without a rate of their own); ``git_sha``; ``packages``.
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
        self.path = Path(run_dir) / SUMMARY
        self.monitor, self.mode = monitor, mode
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
        """Continue best values and time."""
        self.metrics = {name: dict(pair) for name, pair in state_dict["metrics"].items()}
        self._wall_before = state_dict["wall_s"]

    @property
    def wall_s(self) -> float:
        """Seconds of fitting so far, earlier parts of a resumed run included."""
        return self._wall_before + (0.0 if self._start is None else time.monotonic() - self._start)

    def _is_better(self, name: str, value: float, best: float | None) -> bool:
        if best is None:
            return True
        better = name.rpartition("/")[2].startswith(self.higher_is_better)
        higher = self.mode == "max" if name == self.monitor else better
        return value > best if higher else value < best

    def update(self, values: Mapping[str, Any]) -> None:
        """Record new values."""
        for name, raw in values.items():
            if name.endswith("_step") or name.startswith("lr/"):
                continue
            value = float(raw) if math.isfinite(raw) else None
            pair = self.metrics.setdefault(name, {"best": None, "last": None})
            pair["last"] = value
            if value is not None and self._is_better(name, value, pair["best"]):
                pair["best"] = value

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock."""
        if stage == "fit":
            self._start = time.monotonic()
            self._git_sha = git_sha()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log, in every process, the batch size of a step and the learning rate."""
        batch = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
        micro, processes = trainer.accumulate_grad_batches, trainer.world_size
        total = None if batch is None else batch * processes * micro
        # Parts with a rate of their own, such as the motion prior, are in the table of groups.
        base = base_groups(trainer.optimizers)
        rate = max((group.get("initial_lr", group["lr"]) for group in base), default=None)
        self._scale = {"processes": processes, "effective_batch": total, "learning_rate": rate}
        log.info(
            "process %d of %d: effective batch %s clips (%s per process, %d accumulated),"
            " learning rate %s",
            *(trainer.global_rank + 1, processes, total, batch, micro),
            "none" if rate is None else f"{rate:g}",
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the validation's values, so that checkpoints saved next hold them."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.update(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch's values and write."""
        self.update(trainer.callback_metrics)
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
        """Write ``summary.json`` atomically."""
        keepers = [c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        checkpoint = next((k.best_model_path or k.last_model_path for k in keepers), "")
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(content, indent=2, allow_nan=False) + "\n")


class RunCSVLogger(Logger):
    """Writes ``metrics.csv`` into the run's folder, one row per log call.

    Every row is on the disk when the call returns. A run that continues in the same folder first
    drops the rows of steps that it trains again, then appends. Lightning's own logger deletes the
    file instead.
    """

    def __init__(self, *, run_dir: str) -> None:
        super().__init__()
        self.path = Path(run_dir) / METRICS
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: there is one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the resolved configuration lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step or 0, **{name: float(value) for name, value in metrics.items()}}
        if "epoch" in row:
            row["epoch"] = int(row["epoch"])
        if self._columns is not None and row.keys() <= set(self._columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
            return
        columns, rows = self._read()
        if self._columns is None:  # the first row of this process
            rows = [old for old in rows if not _is_repeated(old, row)]
        self._columns = list(dict.fromkeys([*columns, *row]))
        with (
            atomic_path(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows([*rows, row])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and rows of the file, without a last row that a kill has torn."""
        if not self.path.is_file():
            return [], []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row.values() and row["step"].isdigit()]
            return list(reader.fieldnames or []), rows


def _is_repeated(old: Mapping[str, str], first: Mapping[str, float]) -> bool:
    """Whether a resumed run, whose first row is given, will write this row of the file again."""
    step = int(old["step"])
    values = first.keys() - {"step", "epoch"}
    return step > first["step"] or (step == first["step"] and any(map(old.get, values)))


class LearningRates(pl.Callback):
    """Logs the learning rate of each part of the model as ``lr/<prefix>``."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the rates of this step, when the step is logged."""
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if (trainer.global_step + 1) % every:
            return
        groups = enumerate(optimizer.param_groups)
        rates = {f"lr/{g.get('name', str(i)).split('/')[0]}": g["lr"] for i, g in groups}
        pl_module.log_dict(rates, on_step=True, on_epoch=False)
