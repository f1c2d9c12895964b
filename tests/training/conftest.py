"""A training run in miniature: real trainer, loader and callbacks; a model that costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from scene_track.data.resumable_loader import ResumableLoader, derive_seed
from scene_track.models.backbones.base import Backbone, BackboneFeatures, Stage, TrainingOptions
from scene_track.training.freezing import BackboneFreezing
from scene_track.training.guards import NonFiniteGuard
from scene_track.training.optimizers import adamw
from scene_track.training.reproducibility import StepSeeding, seed_everything
from scene_track.training.run_checkpoint import RunCheckpoint
from scene_track.training.run_length import total_steps
from scene_track.training.schedules import warmup_cosine
from scene_track.training.summary import RunCSVLogger, RunSummary
from scene_track.training.trainer import build_trainer
from tests.compose import compose_run


class TinyBackbone(Backbone):
    """Has all that freezing must hold still: weights, running statistics, dropout."""

    def __init__(self, **training: Unpack[TrainingOptions]) -> None:
        super().__init__(size_multiple=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **training)
        self.dims, self.strides, self.cls_dim = (4,), (1,), 4
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)

    def extract(self, images: Tensor) -> BackboneFeatures:
        patches = self.drop(self.norm(self.conv(images)))
        return BackboneFeatures((patches,), patches.mean((2, 3)))

    def stages(self) -> list[Stage]:
        return [Stage("stem", (self.conv,)), Stage("block 0", (self.norm, self.drop))]


class TinyModel(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.cls_dim, 1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.backbone(frames).cls)


class TinyClips:
    """Pictures and answers, both drawn from (epoch, index) as the real data does."""

    def __init__(self, length: int = 14, size: tuple[int, int] = (4, 4)) -> None:
        self.length, self.size = length, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(5, *key))
        frames = torch.randint(0, 256, (3, *self.size), generator=generator, dtype=torch.uint8)
        return {"frames": frames, "answer": frames.float().mean() / 255, "key": torch.tensor(key)}


class TinyModule(pl.LightningModule):
    """Draws noise in its steps and counts validations, as the real module does."""

    def __init__(
        self,
        *,
        lr: float = 1e-2,
        poison: tuple[int, int] | None = None,
        scores: list[float] | None = None,
        backbone: Backbone | None = None,
        **training: Unpack[TrainingOptions],
    ):
        super().__init__()
        self.model = TinyModel(TinyBackbone(**training) if backbone is None else backbone)
        self.lr = lr
        self.poison = poison
        self.seen: list[tuple[int, list[int]]] = []
        self.scores = scores

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((int(batch["key"][0, 0]), batch["key"][:, 1].tolist()))
        noise = 0.1 * torch.randn(len(batch["answer"]), 1)
        loss = (self.model(batch["frames"]) + noise - batch["answer"].unsqueeze(1)).square().mean()
        if (self.current_epoch, batch_idx) == self.poison:
            loss = loss * float("nan")
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        torch.rand(3)  # validation may draw what it likes
        error = (self.model(batch["frames"]) - batch["answer"].unsqueeze(1)).abs().mean()
        self.log("val/loss", error)
        score = 1 / (1 + error) if self.scores is None else self.scores[self.current_epoch]
        self.log("val/hota", score)

    def configure_optimizers(self) -> Any:
        optimizer = adamw(
            self,
            lr=self.lr,
            betas=[0.9, 0.98],
            weight_decay=0.02,
            eps=1e-8,
            backbone_lr_scale=0.5,
            lr_scales={},
            layer_decay=1.0,
        )
        scheduler = warmup_cosine(
            optimizer,
            total_steps=total_steps(self.trainer),
            warmup_steps=3,
            warmup_epochs=None,
            warmup_start_factor=None,
            final_scale=0.02,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of weights and buffers, also of those that no checkpoint holds."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


class Stop(pl.Callback):
    """Raises in a hook of a batch: the run ends in the middle of things."""

    def __init__(self, hook: str, epoch: int, batch: int, error: BaseException) -> None:
        self.at, self.error = (epoch, batch), error
        setattr(self, hook, self._strike)

    def _strike(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        if not trainer.sanity_checking and (trainer.current_epoch, self._batch(trainer)) == self.at:
            raise self.error

    def _batch(self, trainer: pl.Trainer) -> int:
        if trainer.validating:
            return trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready - 1
        return trainer.fit_loop.batch_idx


def callbacks(run_dir: Path, *, every_n_steps: int = 50) -> list[pl.Callback]:
    return [
        RunCheckpoint(
            run_dir=str(run_dir), monitor="val/hota", mode="max", every_n_steps=every_n_steps
        ),
        RunSummary(
            run_dir=str(run_dir), monitor="val/hota", mode="max", higher_is_better=["hota"], seed=1
        ),
        StepSeeding(seed=1),
        BackboneFreezing(),
        NonFiniteGuard(every_n_steps=4),
    ]


@cache
def shipped_trainer() -> dict[str, Any]:
    """The values of ``conf/trainer``."""
    node = OmegaConf.to_container(compose_run().trainer, resolve=True)
    return {key: value for key, value in node.items() if key != "_target_"}  # type: ignore


def trainer(
    run_dir: Path,
    *,
    extra: Sequence[pl.Callback] = (),
    every_n_steps: int = 50,
    **changes: Any,
) -> pl.Trainer:
    settings = {
        **shipped_trainer(),
        "max_epochs": 3,
        "precision": "32-true",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "default_root_dir": str(run_dir),
        "callbacks": [*callbacks(run_dir, every_n_steps=every_n_steps), *extra],
        "loggers": [RunCSVLogger(run_dir=str(run_dir))],
    }
    return build_trainer(**{**settings, **changes})


def loaders(
    num_workers: int = 0, length: int = 14, size: tuple[int, int] = (4, 4)
) -> tuple[ResumableLoader, ResumableLoader]:
    train = ResumableLoader(TinyClips(length, size), batch_size=2, seed=1, num_workers=num_workers)
    return train, ResumableLoader(TinyClips(4, size), batch_size=2, shuffle=False)


def fit(
    run_dir: Path,
    *,
    resume: Path | None = None,
    num_workers: int = 0,
    module: TinyModule | None = None,
    **changes: Any,
) -> TinyModule:
    """A run; with ``resume`` its continuation in a new process' state."""
    seed_everything(99 if resume else 1)  # a resumed process starts from other random numbers
    module = module or TinyModule()
    train, val = loaders(num_workers)
    trainer(run_dir, **changes).fit(module, train, val, ckpt_path=str(resume) if resume else None)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """This file's names, for tests that train."""
    return sys.modules[__name__]
