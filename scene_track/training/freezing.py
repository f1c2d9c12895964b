"""Freezes the backbone as its schedule says, in every epoch and after every resume.

No state is kept: ``Backbone.frozen_stages_at(epoch)`` is asked at every epoch start, and when
training starts, because a resume in the middle of an epoch has no epoch start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl

from scene_track.models.backbones.base import Backbone
from scene_track.training.lightning_state import ddp_misses_unused_parameters

log = logging.getLogger(__name__)


class BackboneFreezing(pl.Callback):
    """Applies the freeze schedule of ``module.model.backbone``."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the schedule works with the strategy; freeze a backbone that never trains.

        Raises:
            ValueError: the backbone thaws during the run, which the DDP strategy does not support.
        """
        backbone = backbone_of(pl_module)
        if backbone is None or stage != "fit":
            return
        if backbone.unfreeze_after is None:
            # Before DDP lists the parameters that need a gradient.
            backbone.set_frozen(backbone.freeze)
            return
        thaws = backbone.unfreeze_after > 0 or backbone.unfreeze_blocks_per_epoch is not None
        if thaws and ddp_misses_unused_parameters(trainer.strategy):
            # DDP lists the parameters once, and would wait for gradients of what is frozen later
            raise ValueError(
                f"model.backbone.unfreeze_after={backbone.unfreeze_after} needs"
                " trainer.strategy=ddp_find_unused_parameters_true"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the state of the epoch that training begins or continues in."""
        self._apply(trainer, pl_module, announce=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the state of the new epoch."""
        self._apply(trainer, pl_module, announce=False)

    def _apply(self, trainer: pl.Trainer, pl_module: Any, *, announce: bool) -> None:
        backbone = backbone_of(pl_module)
        if backbone is None:
            return
        epoch = trainer.current_epoch
        frozen = backbone.frozen_stages_at(epoch)
        changed = frozen != backbone.frozen_stages
        if changed:
            backbone.set_frozen_stages(frozen)
            # Lightning restores after a validation the modes that it found before it
            backbone.train(pl_module.training)
        if changed or announce:
            log.info("epoch %d: backbone %s", epoch, _state(backbone))


def warn_of_a_random_backbone(module: Any, taken: Iterable[str] = ()) -> None:
    """Warn where a run would keep random weights frozen to its end."""
    backbone = backbone_of(module)
    if backbone is None or backbone.ever_trains or backbone.settings.get("weights", "") is not None:
        return
    if not any(key.startswith("model.backbone.") for key in taken):
        log.warning(
            "model.backbone.weights=null with freeze=true is a random network that never learns:"
            " type model.backbone.weights=..., or model.backbone.freeze=false"
        )


def _state(backbone: Backbone) -> str:
    """The freeze state, for the log."""
    stages = backbone.stages()
    count = backbone.frozen_stages
    if count == 0:
        return "trains"
    if count == len(stages):
        until = f" until epoch {backbone.unfreeze_after}" if backbone.ever_trains else ""
        return f"frozen{until}"
    return f"trains from {stages[count].name} on, {count} of {len(stages)} stages frozen"


def backbone_of(module: Any) -> Backbone | None:
    """The backbone of a LightningModule, or None."""
    backbone = getattr(getattr(module, "model", None), "backbone", None)
    return backbone if isinstance(backbone, Backbone) else None
