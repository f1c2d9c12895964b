"""The LightningModule: micro-batches add up, streams start and end where they must."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.train import build_module
from scene_track.training.module import TrackingModule
from tests.compose import TINY, compose_run, make_batch, videos_of


def module_with(accumulate: int) -> TrackingModule:
    torch.manual_seed(0)
    module = build_module(compose_run(TINY))
    module._trainer = cast(Any, SimpleNamespace(accumulate_grad_batches=accumulate))
    return module


def start_validation(module: TrackingModule, *windows: SceneBatch) -> None:
    """Begins a validation of the videos that the windows are of."""
    data = SimpleNamespace(sequences=lambda split: videos_of(*windows))
    module.trainer.datamodule = data  # type: ignore[attr-defined]
    module.on_validation_epoch_start()


def test_accumulated_micro_batches_give_the_gradient_of_the_whole() -> None:
    module = module_with(accumulate=2)
    weight = torch.nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    sums, counts = (10.0, 90.0), (2.0, 30.0)  # very unequal micro-batches

    def backward(total: float, count: float) -> None:
        mean: Tensor = weight * total / count
        (module._weigh(mean, torch.tensor(count)) / 2).backward()  # Lightning divides by 2

    for total, count in zip(sums, counts, strict=True):
        backward(total, count)
    module.on_before_optimizer_step(optimizer)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor(sum(sums) / sum(counts)))
    # The next window starts afresh, and a last window may be shorter than the others.
    weight.grad = None
    backward(8.0, 4.0)
    module.on_before_optimizer_step(optimizer)
    torch.testing.assert_close(weight.grad, torch.tensor(2.0))


def test_a_window_of_another_sequence_starts_without_a_past() -> None:
    module = module_with(accumulate=1).eval()
    seen = []
    forward = module.model.forward

    def spy(*arguments: Any, **named: Any) -> Any:
        seen.append(arguments[4] is not None)
        return forward(*arguments, **named)

    module.model.forward = spy  # type: ignore[method-assign]
    windows = []
    for name, first in (("a", 0), ("a", 2), ("b", 0), ("b", 2), ("c", 0)):
        batch = make_batch(clips=1, frames=4).between(first, first + 2)
        batch.sequence_ids = [name]
        windows.append(batch)
    start_validation(module, *windows)
    for batch in windows:
        with torch.no_grad():
            module.validation_step(batch, 0)
    assert seen == [False, True, False, True, False]
    metrics = module.evaluator.compute()
    assert {f"val/{name}" for name in metrics} <= set(module.evaluator.LOGS)
    assert all(0 <= value <= 1 for name, value in metrics.items() if name != "mota")


def test_a_window_of_padding_alone_is_not_counted() -> None:
    module = module_with(accumulate=1).eval()
    batch = make_batch(clips=1, frames=2)
    start_validation(module, batch)
    with torch.no_grad():
        module.validation_step(batch, 0)
        alone = module.mean_losses()
        nothing = make_batch(clips=1, frames=2)
        nothing.padding_mask[:] = True
        module.validation_step(nothing, 1)
    assert module.mean_losses() == alone and alone["loss"] > 0
    start_validation(module)
    assert module.mean_losses() == {}


def test_every_window_weighs_the_same_in_the_validation_loss() -> None:
    module = module_with(accumulate=1).eval()
    windows, totals = [], []
    for objects in (1, 4):
        batch = make_batch(clips=1, frames=2, objects=objects)
        batch.sequence_ids = [f"with {objects}"]
        windows.append(batch)
    start_validation(module, *windows)
    for batch in windows:
        with torch.no_grad():
            module.validation_step(batch, 0)
            totals.append(float(module.losses(batch, denoise=False)[1]["total"]))
    assert totals[0] != totals[1]
    torch.testing.assert_close(module.mean_losses()["loss"], sum(totals) / 2)
