"""Schedules: the recipe's curve, its ends, and that it is a function of the step alone."""

from __future__ import annotations

import math

import pytest
import torch

from scene_track.training.schedules import constant, warmup_cosine


def rates(schedule, steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_recipe_curve() -> None:
    curve = rates(warmup_cosine, 1000, total_steps=1000, warmup_steps=100, final_scale=0.02)
    assert curve[0] == pytest.approx(2.0 / 100)
    assert curve[49] == pytest.approx(2.0 / 2)
    assert curve[99] == max(curve) == pytest.approx(2.0)
    assert curve[-1] == pytest.approx(2.0 * 0.02), "the last step, not the one after it"
    middle = 99 + (999 - 99) // 2
    assert curve[middle] == pytest.approx(2.0 * (0.02 + 0.98 / 2))
    quarter = 99 + (999 - 99) // 4
    assert curve[quarter] == pytest.approx(2.0 * (0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2))
    assert all(a > b for a, b in zip(curve[99:], curve[100:], strict=False))


def test_stays_at_the_end_when_trained_on() -> None:
    curve = rates(warmup_cosine, 15, total_steps=10, warmup_steps=0, final_scale=0.1)
    assert curve[9:] == pytest.approx([0.2] * 6)
    assert curve[0] == pytest.approx(2.0)


def test_fraction_means_share_of_the_run() -> None:
    share = rates(warmup_cosine, 50, total_steps=50, warmup_steps=0.2, final_scale=0.0)
    steps = rates(warmup_cosine, 50, total_steps=50, warmup_steps=10, final_scale=0.0)
    assert share == steps


def test_constant() -> None:
    curve = rates(constant, 6, total_steps=6, warmup_steps=4)
    assert curve == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


@pytest.mark.parametrize("schedule", [warmup_cosine, constant])
def test_warmup_longer_than_the_run_is_said(schedule, caplog: pytest.LogCaptureFixture) -> None:
    options = {"final_scale": 0.1} if schedule is warmup_cosine else {}
    curve = rates(schedule, 3, total_steps=3, warmup_steps=10, **options)
    assert curve == pytest.approx([0.2, 0.4, 0.6])
    assert "full rate is not reached" in caplog.text


@pytest.mark.parametrize("total", [0, -1, math.inf])
def test_a_run_without_length_is_refused(total: float) -> None:
    with pytest.raises(ValueError, match="max_epochs"):
        rates(constant, 1, total_steps=total, warmup_steps=0)


def test_state_holds_the_counter_only() -> None:
    """A resumed run with more epochs follows its own, longer curve."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    short = warmup_cosine(optimizer, total_steps=10, warmup_steps=0, final_scale=0.0)
    for _ in range(5):
        optimizer.step()
        short.step()
    state = short.state_dict()
    long = warmup_cosine(optimizer, total_steps=1000, warmup_steps=0, final_scale=0.0)
    long.load_state_dict(state)
    optimizer.step()
    long.step()
    assert optimizer.param_groups[0]["lr"] > 0.99
