"""The guard: names the frames, and lets nothing that is not a number reach a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from scene_track.training.checkpointing import FOLDER, LAST, load_checkpoint
from scene_track.training.guards import NonFiniteGuard
from scene_track.training.run_checkpoint import NonFiniteError
from tests.compose import compose_run

BATCH: Any = SimpleNamespace(
    sequence_ids=["dance0001", "dance0007"], frame_indices=torch.tensor([[3, 5], [10, 12]])
)
TRAINER: Any = SimpleNamespace(current_epoch=2, global_step=41)
MODULE: Any = torch.nn.Linear(1, 1)


def test_patience_waits_while_no_ball_is_found_and_its_distance_is_infinite() -> None:
    words = ["callbacks=patience", "monitor.metric=val/l2_mean", "monitor.mode=min"]
    patience = instantiate(compose_run(["dataset=tracknet", *words]).callbacks.patience)
    for error in (float("inf"), float("inf"), 3.0):
        stop, _ = patience._evaluate_stopping_criteria(torch.tensor(error))
        assert not stop
    assert patience.best_score == 3.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_names_place_sequences_and_frames(value: float) -> None:
    guard = NonFiniteGuard(every_n_steps=10)
    guard.on_train_batch_start(TRAINER, MODULE, BATCH, 5)
    guard.on_before_backward(TRAINER, MODULE, torch.tensor(1e30))
    with pytest.raises(NonFiniteError) as caught:
        guard.on_before_backward(TRAINER, MODULE, torch.tensor(value))
    assert str(caught.value).startswith(
        f"the loss is {value} at epoch 2, batch 5, step 41: sequence dance0001 frames [3, 5];"
        " sequence dance0007 frames [10, 12]. "
    )


def test_on_a_device_it_checks_rarely_but_names_the_right_batch(monkeypatch) -> None:
    """No GPU here: the losses lie about their device, which is all that the guard asks."""
    guard = NonFiniteGuard(every_n_steps=3)
    looks = []
    look = guard._check
    monkeypatch.setattr(guard, "_check", lambda: (looks.append(len(guard._waiting)), look()))

    class Far(torch.Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

    for index, value in enumerate([1.0, 1.0, 1.0, 1.0]):
        guard.on_train_batch_start(TRAINER, MODULE, BATCH, index)
        guard.on_before_backward(TRAINER, MODULE, torch.tensor(value).as_subclass(Far))
    assert looks == [3]
    guard.on_train_batch_start(TRAINER, MODULE, BATCH, 4)
    guard.on_before_backward(TRAINER, MODULE, torch.tensor(float("nan")).as_subclass(Far))
    assert looks == [3]
    with pytest.raises(NonFiniteError, match="batch 4,"):
        guard.on_save_checkpoint(TRAINER, MODULE, {})


@pytest.mark.parametrize("at", [(0, 3), (1, 2)])
def test_the_last_checkpoint_is_from_before(tiny: Any, tmp_path: Path, at: tuple) -> None:
    module = tiny.TinyModule(poison=at)
    with pytest.raises(NonFiniteError, match=f"epoch {at[0]}, batch {at[1]}"):
        tiny.fit(tmp_path, module=module, every_n_steps=2)
    checkpoint = load_checkpoint(tmp_path / FOLDER / LAST)
    assert checkpoint["global_step"] == (2 if at == (0, 3) else 8)
    assert all(bool(v.isfinite().all()) for v in checkpoint["state_dict"].values())


def test_weights_that_overflowed_are_not_saved(tiny: Any, tmp_path: Path) -> None:
    """A NaN gradient of a finite loss spoils the weights before any loss shows it."""

    class Spoil(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
            if trainer.global_step == 5:
                module.model.head.weight.grad.fill_(float("nan"))

    with pytest.raises(NonFiniteError, match=r"weights such as model\.\S+ are not finite"):
        tiny.fit(tmp_path, every_n_steps=2, extra=[Spoil()])
    checkpoint = load_checkpoint(tmp_path / FOLDER / LAST)
    assert checkpoint["global_step"] == 4
    assert all(bool(v.isfinite().all()) for v in checkpoint["state_dict"].values())
