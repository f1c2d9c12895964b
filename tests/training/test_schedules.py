"""Schedules: the recipe's curve, its ends, and that it is a function of the step alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from scene_track.training.schedules import warmup_cosine
from tests.compose import shipped

PLAIN: dict[str, Any] = {"warmup_epochs": None, "warmup_start_factor": None}


def rates(steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = warmup_cosine(optimizer, **{"total_steps": steps, **PLAIN, **options})
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_recipe_curve() -> None:
    curve = rates(1000, warmup_steps=100, final_scale=0.02)
    assert curve[0] == pytest.approx(2.0 / 100)
    assert curve[49] == pytest.approx(2.0 / 2)
    assert curve[99] == max(curve) == pytest.approx(2.0)
    assert curve[-1] == pytest.approx(2.0 * 0.02), "the last step, not the one after it"
    middle = 99 + (999 - 99) // 2
    assert curve[middle] == pytest.approx(2.0 * (0.02 + 0.98 / 2))
    quarter = 99 + (999 - 99) // 4
    assert curve[quarter] == pytest.approx(2.0 * (0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2))
    assert all(a > b for a, b in zip(curve[99:], curve[100:], strict=False))


def test_a_share_of_the_run_and_the_end_when_trained_on() -> None:
    share = rates(50, warmup_steps=0.2, final_scale=0.0)
    assert share == rates(50, warmup_steps=10, final_scale=0.0)
    curve = rates(15, total_steps=10, warmup_steps=0, final_scale=0.1)
    assert curve[9:] == pytest.approx([0.2] * 6) and curve[0] == pytest.approx(2.0)


def test_epochs_take_the_place_of_steps_and_the_first_rate_can_be_set() -> None:
    options = {"warmup_epochs": 0.5, "warmup_start_factor": 0.1, "steps_per_epoch": 8.0}
    curve = rates(10, warmup_steps=100, final_scale=1.0, **options)
    assert curve == pytest.approx([0.2, 0.8, 1.4, *[2.0] * 7])


def test_constant() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = shipped("scheduler", "scheduler=constant", "scheduler.warmup_steps=4")
    factor = schedule(optimizer, total_steps=6).lr_lambdas[0]
    assert [factor(step) for step in range(8)] == [0.25, 0.5, 0.75, *[1.0] * 5]


def test_warmup_longer_than_the_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert rates(3, warmup_steps=10, final_scale=1.0) == pytest.approx([0.2, 0.4, 0.6])
    assert "full rate is not reached" in caplog.text


def test_state_holds_the_counter_only() -> None:
    """A resumed run with more epochs follows its own, longer curve."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    short = warmup_cosine(optimizer, total_steps=10, warmup_steps=0, final_scale=0.0, **PLAIN)
    for _ in range(5):
        optimizer.step()
        short.step()
    state = short.state_dict()
    long = warmup_cosine(optimizer, total_steps=1000, warmup_steps=0, final_scale=0.0, **PLAIN)
    long.load_state_dict(state)
    optimizer.step()
    long.step()
    assert optimizer.param_groups[0]["lr"] > 0.99
