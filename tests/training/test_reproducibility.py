"""Seeds: a step's draws are a function of its place, whatever was drawn before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scene_track.training.reproducibility import seed_everything, seed_step


def draws() -> tuple:
    return (random.random(), float(np.random.rand()), torch.rand(2).tolist())


def test_seed_everything_repeats_all_three() -> None:
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(3, rank=1)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_step_draws_by_its_place() -> None:
    seed_step(1, 2, 3, 0)
    first = draws()
    draws()
    seed_step(1, 2, 3, 0)
    assert draws() == first
    for place in ((2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)):
        seed_step(*place)
        assert all(a != b for a, b in zip(draws(), first, strict=True)), place


def test_validation_does_not_change_training(tiny: Any, tmp_path: Path) -> None:
    with_validation = tiny.fit(tmp_path / "a", max_epochs=2)
    without = tiny.fit(tmp_path / "b", max_epochs=2, limit_val_batches=0)
    for left, right in zip(with_validation.parameters(), without.parameters(), strict=True):
        assert torch.equal(left, right)
