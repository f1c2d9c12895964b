"""The trainer: limits, what fast_dev_run leaves behind, and quiet output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scene_track.training.checkpointing import AtomicCheckpointIO
from scene_track.training.progress import RunProgress
from scene_track.training.run_length import total_steps


def fitted(tiny: Any, run: Path, **changes: Any) -> tuple[Any, Any]:
    trainer = tiny.trainer(run, **changes)
    module = tiny.TinyModule()
    trainer.fit(module, *tiny.loaders())
    return trainer, module


@pytest.mark.parametrize(("changes", "steps"), [({}, 21), ({"accumulate_grad_batches": 2}, 12)])
def test_total_steps_is_what_is_made(tiny: Any, tmp_path: Path, changes: dict, steps: int) -> None:
    trainer, _ = fitted(tiny, tmp_path, **changes)
    assert total_steps(trainer) == trainer.global_step == steps


def test_max_steps_ends_with_a_validation(tiny: Any, tmp_path: Path) -> None:
    trainer, module = fitted(tiny, tmp_path, max_steps=9)
    assert len(module.seen) == trainer.global_step == 9
    text = (tmp_path / "metrics.csv").read_text().splitlines()
    assert text[-1].startswith("8,,1,"), "validated where it stopped"
    assert total_steps(trainer) == 9, "the schedule ends there too"
    module = tiny.fit(tmp_path, max_steps=9, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert module.seen == [], "nothing is left to train"


def test_checkpoints_are_atomic_and_progress_can_be_off(tiny: Any, tmp_path: Path) -> None:
    bar = RunProgress(monitor="val/hota", refresh_every=1, log_every_s=1)
    trainer = tiny.trainer(tmp_path, extra=[bar], enable_progress_bar=False)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert bar not in trainer.callbacks
    assert bar in tiny.trainer(tmp_path, extra=[bar], enable_progress_bar=True).callbacks


def test_whole_and_one_are_not_mixed_up(tiny: Any, tmp_path: Path) -> None:
    assert len(fitted(tiny, tmp_path, limit_train_batches=1, max_epochs=1)[1].seen) == 1
    assert len(fitted(tiny, tmp_path, limit_train_batches=1.0, max_epochs=1)[1].seen) == 7


def test_a_run_without_a_validation_is_refused(tiny: Any, tmp_path: Path) -> None:
    """It would train to its end and then have no best checkpoint and no objective."""
    with pytest.raises(ValueError, match="type trainer.check_val_every_n_epoch=2 or less"):
        tiny.trainer(tmp_path, max_epochs=2, check_val_every_n_epoch=4)
