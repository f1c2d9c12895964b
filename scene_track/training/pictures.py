"""Writes the image of every validation into the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from scene_track.viz.clips import write_png


class EpochPictures(pl.Callback):
    """Writes ``viz/epoch_001_step_000120.png`` and so on into the run's folder.

    Epochs are counted from 1; steps are those of the optimiser before the validation, so that
    several validations of an epoch have an image each.
    """

    def __init__(self, *, run_dir: str) -> None:
        self.folder = Path(run_dir) / "viz"

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the image, if the validation made one."""
        picture = getattr(pl_module, "picture", None)
        if picture is None or trainer.sanity_checking or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        write_png(self.folder / f"epoch_{epoch:03d}_step_{step:06d}.png", picture)
