"""One process of several that train a step and validate; ``test_distributed.py`` starts them.

Predictions are the ground truth, disturbed by noise that depends on the frames alone, so that a
model that has learnt nothing is given figures away from 0 and 1. Scores are coarse: many are equal.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scene_track.train import build_module, train
from scene_track.training.module import TrackingModule
from tests.compose import TINY, compose_run, without_objects

SCENARIOS = {
    "three": ["dataset.val=val"],
    "one": ["dataset.val=[val/dance0001]"],
    # The second process has more windows than the first.
    "positions": ["dataset.val=[val/dance0001:1-3,val/dance0002]", "head=scene3d"],
}


class NoisyTruth(TrackingModule):
    """Remembers the windows that it saw and the figures that it logged, before they are rounded."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.windows: list[tuple[str, int]] = []
        self.figures: dict[str, float] = {}

    def losses(self, batch: Any, *, state: Any = None, denoise: bool) -> Any:
        predictions, losses, state = super().losses(batch, state=state, denoise=denoise)
        if not denoise:
            window = (batch.sequence_ids[0], int(batch.frame_indices[0, 0]))
            self.windows.append(window)
            noise = torch.Generator().manual_seed(zlib.crc32(repr(window).encode()))
            count = batch.boxes.shape[2]
            boxes = batch.boxes + 0.02 * torch.randn(batch.boxes.shape, generator=noise)
            scores = torch.rand(batch.track_ids.shape, generator=noise).mul(4).round().div(4)
            predictions.bbox_center[:, :, :count] = boxes[..., :2]
            predictions.bbox_size[:, :, :count] = boxes[..., 2:].clamp(min=1e-3)
            predictions.exist_conf[:, :, :count, 0] = scores
            predictions.dense.boxes[:, :, :, 0, :count] = boxes.transpose(2, 3)
            predictions.dense.heat_logits[:, :, 0, 0, :count] = scores
        return predictions, losses, state

    def log_dict(self, dictionary: Any, *arguments: Any, **named: Any) -> None:
        if any(name.startswith("val/") for name in dictionary):
            self.figures = dict(dictionary)
        super().log_dict(dictionary, *arguments, **named)


def build(kind: type[TrackingModule], cfg: DictConfig) -> TrackingModule:
    """A module of another class with the parts of the shipped one, but a constant rate."""
    torch.manual_seed(1)
    parts = build_module(cfg)
    return kind(
        model=parts.model,
        criterion=parts.criterion,
        evaluator=parts.evaluator,
        denoiser=parts.denoiser,
        optimizer=instantiate(cfg.optimizer),
        hyper_parameters=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
    )


def run(
    scenario: str, data: list[str], weights: Path, *, rank: int, processes: int
) -> dict[str, Any]:
    """Train a step and validate; one process validates with the weights of the several."""
    several = [f"trainer.devices={processes}", "trainer.strategy=ddp"] if processes > 1 else []
    cfg = compose_run(
        [
            *TINY, *data, *SCENARIOS[scenario], *several, "model.backbone.depth=1",
            "dataset.eval_window.length=4", "viz.max_frames=0", "trainer.precision=32-true",
            "trainer.max_epochs=1", "trainer.limit_train_batches=1",
            "trainer.enable_progress_bar=false",
        ]
    )  # fmt: skip
    module: Any = build(NoisyTruth, cfg)
    trainer = instantiate(cfg.trainer)
    if processes > 1:
        trainer.fit(module, datamodule=instantiate(cfg.dataset))
        if rank == 0:
            torch.save(module.state_dict(), weights)
    else:
        module.load_state_dict(torch.load(weights, weights_only=True))
        trainer.validate(module, datamodule=instantiate(cfg.dataset), verbose=False)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    return {"figures": module.figures, "logged": logged, "windows": module.windows}


class Lonely(TrackingModule):
    """The second process has a batch without anybody in every epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_rank == 1 and batch_idx == 0:
            batch = without_objects(batch)
        return super().training_step(batch, batch_idx)


def uneven(data: list[str]) -> dict[str, Any]:
    """Two epochs with a backbone that thaws in the second, and batches without anybody."""
    cfg = compose_run(
        [
            *TINY, *data, "model.backbone.depth=1", "model.backbone.unfreeze_after=1",
            "trainer.devices=2", "trainer.strategy=ddp_find_unused_parameters_true",
            "trainer.precision=32-true", "trainer.max_epochs=2", "trainer.limit_train_batches=2",
            "trainer.limit_val_batches=0", "trainer.accumulate_grad_batches=2",
            "trainer.enable_progress_bar=false",
        ]
    )  # fmt: skip
    module = build(Lonely, cfg)
    callbacks = [instantiate(cfg.callbacks.freezing)]
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = instantiate(cfg.trainer, callbacks=callbacks)
    trainer.fit(module, datamodule=instantiate(cfg.dataset))
    sums = {name: float(value.double().sum()) for name, value in module.named_parameters()}
    moved = [n for n, value in module.named_parameters() if not torch.equal(value, before[n])]
    return {"sums": sums, "moved": moved, "steps": trainer.global_step}


def main(folder: Path, rank: int, data: list[str]) -> None:
    """All scenarios, and a run as a user has it, as one of two processes; to ``rank<N>.json``."""
    results: dict[str, Any] = {
        name: run(name, data, folder / f"{name}.pt", rank=rank, processes=2) for name in SCENARIOS
    }
    results["uneven"] = uneven(data)
    cfg = compose_run(
        [
            "debug=minimal", *TINY, *data, "trainer.devices=2", "trainer.strategy=ddp",
            "model.backbone.depth=1", "trainer.limit_val_batches=1.0",
        ]
    )  # fmt: skip
    cfg.run_dir = str(folder / "run")
    (folder / "run").mkdir(exist_ok=True)
    results["run"] = train(cfg)
    (folder / f"rank{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
