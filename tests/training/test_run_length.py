"""A budget of time: the run ends by then, annealed, and a resumed run keeps the plan."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from scene_track.training.checkpointing import FOLDER, LAST, load_checkpoint
from scene_track.training.run_length import RunLength


class Clock(pl.Callback):
    """Time passes in steps and validations alone: seconds of a step, and of a validation."""

    def __init__(self, step_s: float, validation_s: float = 0.0) -> None:
        self.now, self.step_s, self.validation_s = 0.0, step_s, validation_s

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += self.step_s

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self.now += self.validation_s / 2  # two batches


def budgeted(
    tiny: Any, run: Path, clock: Clock, budget: str, **changes: Any
) -> tuple[RunLength, list[float]]:
    """A run of at most 30 epochs of 7 steps with a budget; its length and its rates."""
    rates: list[float] = []
    lengths: list[RunLength] = []

    class Rates(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            lengths.extend(c for c in trainer.callbacks if isinstance(c, RunLength))

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[-1]["lr"])

    extra = [Rates(), clock, *changes.pop("extra", [])]
    settings = {"max_epochs": 30, "every_n_steps": 50, "budget": budget, **changes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLength, "clock", staticmethod(lambda: clock.now))
        tiny.fit(run, extra=extra, **settings)
    return lengths[0], rates


@pytest.mark.parametrize("validation_s", [0.0, 4.0])
def test_the_run_ends_when_the_time_is_up_with_the_last_rate(
    tiny: Any, tmp_path: Path, validation_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(1.0, validation_s)
    with caplog.at_level(logging.INFO):
        length, rates = budgeted(tiny, tmp_path, clock, "00:00:01:00")
    assert 0.9 * 60 <= clock.now <= 60
    assert length.planned == len(rates) < 210
    assert rates[-1] < 0.05 * max(rates), "warm-up and cosine end with the run"
    assert "trainer.budget=00:00:01:00" in caplog.text and "1.000 s a step" in caplog.text
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[1] == "", "the last row is of a validation"


def test_a_machine_that_slows_down_still_ends_in_time(tiny: Any, tmp_path: Path) -> None:
    clock = Clock(1.0)

    class Busy(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            clock.step_s = 1.0 if trainer.current_epoch < 4 else 2.0

    _, rates = budgeted(tiny, tmp_path, clock, "00:00:01:30", extra=[Busy()])
    assert 0.9 * 90 <= clock.now <= 1.05 * 90
    assert rates[-1] < 0.1 * max(rates)


def test_enough_time_changes_nothing(tiny: Any, tmp_path: Path) -> None:
    plain = tiny.fit(tmp_path / "plain", max_epochs=4)
    tiny.seed_everything(1)
    module = tiny.TinyModule()
    length, _ = budgeted(
        tiny, tmp_path / "budget", Clock(0.1), "00:01:00:00", max_epochs=4, module=module
    )
    assert length.planned is None and module.seen == plain.seen
    assert all(map(torch.equal, module.state_dict().values(), plain.state_dict().values()))


def test_a_resumed_run_keeps_the_plan_and_the_time_that_was_spent(
    tiny: Any, tmp_path: Path
) -> None:
    whole, rates = budgeted(tiny, tmp_path / "whole", Clock(1.0), "00:00:01:00")
    stop = tiny.Stop("on_train_batch_start", 5, 3, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        budgeted(tiny, tmp_path / "cut", Clock(1.0), "00:00:01:00", extra=[stop])
    saved = load_checkpoint(tmp_path / "cut" / FOLDER / LAST)
    state = saved["callbacks"]["RunLength"]
    assert (state["planned"], state["wall_s"]) == (whole.planned, pytest.approx(38, abs=1))
    rest, others = budgeted(
        tiny, tmp_path / "cut", Clock(1.0), "00:00:01:00", resume=tmp_path / "cut" / FOLDER / LAST
    )
    assert rest.planned == whole.planned
    assert others == rates[-len(others) :] and len(others) == len(rates) - 38
    left, right = (load_checkpoint(tmp_path / n / FOLDER / LAST) for n in ("whole", "cut"))
    for name, value in left["state_dict"].items():
        assert torch.equal(value, right["state_dict"][name]), name


def test_trials_of_a_sweep_make_equal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENE_TRACK_OUTCOME", "somewhere")
    assert RunLength(max_steps=None, budget="00:00:01:00").budget is None
