"""The images of validations as files: which of them are kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scene_track.training.pictures import EpochPictures


def test_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    """Also where an epoch is validated twice, and where epochs have four digits."""
    pictures = EpochPictures(run_dir=str(tmp_path), keep=3)
    module: Any = SimpleNamespace(picture=np.zeros((4, 6, 3), dtype=np.uint8))
    for epoch, step in ((998, 9990), (998, 9995), (999, 10_000), (999, 1_000_005)):
        trainer: Any = SimpleNamespace(
            current_epoch=epoch, global_step=step, sanity_checking=False, fast_dev_run=False
        )
        pictures.on_validation_end(trainer, module)
    assert {file.name for file in (tmp_path / "viz").iterdir()} == {
        "epoch_999_step_009995.png",
        "epoch_1000_step_010000.png",
        "epoch_1000_step_1000005.png",
    }
