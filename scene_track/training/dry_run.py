"""``dry_run=true``: one batch, then a table of shapes, model size, losses, time and memory.

Nothing is written.
"""

from __future__ import annotations

import dataclasses
import logging
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.data.module import TrackingDataModule
from scene_track.training.module import TrackingModule
from scene_track.training.precision import autocast_type, resolve_precision

log = logging.getLogger(__name__)


def dry_run(
    module: TrackingModule, data: TrackingDataModule, *, accelerator: str, precision: str
) -> None:
    """Train on one batch and validate on one window, then print shapes, losses, time and memory."""
    wants_gpu = accelerator in ("gpu", "cuda") or (
        accelerator == "auto" and torch.cuda.is_available()
    )
    device = torch.device("cuda" if wants_gpu else "cpu")
    kind = autocast_type(resolve_precision(precision, accelerator))
    data.prepare_data()
    data.setup("fit")
    module.to(device)
    backbone = module.model.backbone
    if backbone is not None:
        backbone.set_frozen_stages(backbone.frozen_stages_at(0))
    lines = ["--- model ---", str(ModelSummary(module, max_depth=2))]
    for mode, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        batch: SceneBatch = next(iter(loader)).to(device)
        module.train(mode == "train")
        started = time.perf_counter()
        with (
            torch.set_grad_enabled(mode == "train"),
            torch.autocast(device.type, kind, enabled=kind != torch.float32),
        ):
            predictions, losses, _ = module.losses(batch, denoise=mode == "train")
        if mode == "train":
            losses["total"].backward()
        # Before the clock is read: float waits for the device.
        values = {name: float(value.detach()) for name, value in losses.items()}
        seconds = time.perf_counter() - started
        lines += [f"--- {mode} batch ---", *_shapes("batch", batch)]
        lines += [*_shapes("predictions", predictions), f"--- {mode} losses, {seconds:.2f} s ---"]
        lines += [f"{name:<40}{value:.4g}" for name, value in values.items()]
    lines += ["--- memory ---", *_memory(device)]
    log.info("dry run: nothing was written\n%s", "\n".join(lines))


def _shapes(path: str, value: Any) -> Iterator[str]:
    """A line per tensor of a structure of dataclasses, lists and dicts."""
    if isinstance(value, Tensor | np.ndarray):
        kind = str(value.dtype).removeprefix("torch.")
        yield f"{path:<40}{list(value.shape)} {kind}"
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _shapes(f"{path}.{field.name}", getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _shapes(f"{path}[{index}]", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _shapes(f"{path}.{name}", item)


def _memory(device: torch.device) -> Iterator[str]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    yield f"{'process, at its peak':<40}{peak / 2**30:.2f} GiB"
    if device.type == "cuda":
        yield f"{'GPU, at its peak':<40}{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
