"""The picture of every validation as a file: what the model sees, without TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.utilities import rank_zero_only

from scene_track.viz.clips import write_png


class EpochPictures(pl.Callback):
    """Writes ``viz/epoch_001.png`` and so on into the run's folder, epochs counted from 1."""

    def __init__(self, *, run_dir: str, keep: Annotated[int, Field(ge=1)] | None = None) -> None:
        """Store where to.

        Args:
            run_dir: the run's folder.
            keep: pictures that are kept, the newest; None keeps all.
        """
        self.folder, self.keep = Path(run_dir) / "viz", keep

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the picture, if the validation made one."""
        picture = getattr(pl_module, "picture", None)
        if picture is None or trainer.sanity_checking or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        write_png(self.folder / f"epoch_{trainer.current_epoch + 1:03d}.png", picture)
        if self.keep is not None:
            for old in sorted(self.folder.glob("epoch_*.png"))[: -self.keep]:
                old.unlink()
