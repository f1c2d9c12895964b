"""Losses of a heatmap: of its values, and of its soft-arg-max.

Every term is a *sum* over frames divided by the number of annotated frames, so that accumulated
micro-batches and processes add up (see ``TrackingModule``). A frame without annotation counts
nothing. The target of an absent ball is an empty map, without a position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.ball.peaks import expected_position
from scene_track.data.batch import SceneBatch
from scene_track.models.predictions import HeatmapPredictions
from scene_track.objectives.losses import (
    draw_point_heatmap,
    heatmap_focal_loss,
    heatmap_mse_loss,
    quality_focal_loss,
)
from scene_track.objectives.processes import mean_over_processes


@dataclass(kw_only=True)
class ClassWeights:
    """Weight of a frame by the visibility of its ball; see ``Visibility``."""

    absent: Annotated[float, Field(ge=0)]
    visible: Annotated[float, Field(ge=0)]
    hard: Annotated[float, Field(ge=0)]
    occluded: Annotated[float, Field(ge=0)]

    def of(self, visibility: Tensor) -> Tensor:
        """``[...]`` float32 weights of ``[...]`` visibilities; 0 for those unknown."""
        table = [0.0, self.absent, self.visible, self.hard, self.occluded]
        return visibility.new_tensor(table, dtype=torch.float32)[visibility + 1]


class HeatmapCriterion(nn.Module):
    """Loss of the heatmap, and distance of its soft-arg-max from the ball."""

    def __init__(
        self,
        *,
        loss: Literal["mse", "focal", "quality_focal"],
        sigma: Annotated[float, Field(gt=0)],
        alpha: Annotated[float, Field(ge=1)],
        beta: Annotated[float, Field(ge=0)],
        weight_heatmap: Annotated[float, Field(ge=0)],
        weight_coordinate: Annotated[float, Field(ge=0)],
        temperature: Annotated[float, Field(gt=0)],
        class_weights: ClassWeights | None,
    ) -> None:
        """Stores the weights. Options: see ``conf/head/heatmap.yaml``; no class weights = all 1."""
        super().__init__()
        self.loss, self.sigma, self.alpha, self.beta = loss, sigma, alpha, beta
        self.weight_heatmap, self.weight_coordinate = weight_heatmap, weight_coordinate
        self.temperature = temperature
        self.class_weights = class_weights

    def forward(
        self, predictions: HeatmapPredictions, batch: SceneBatch, **scene: Any
    ) -> dict[str, Tensor]:
        """Computes all losses of a batch.

        Args:
            predictions: of the model.
            batch: the ground truth; each ball of a frame has its Gaussian, the coordinate loss
                uses the first.
            **scene: arguments of the criteria for people, not used.

        Returns:
            Unweighted scalars ``heatmap`` and, with its weight above 0, ``coordinate`` (cells),
            their weighted sum as ``total``, and ``num_targets`` (annotated frames per process) and
            ``num_matches`` (frames with a ball).
        """
        logits = predictions.heatmap_logits[:, :, 0].float()
        height, width = logits.shape[-2:]
        counts = batch.annotated & ~batch.padding_mask  # [B, T]
        ball = batch.valid & counts.unsqueeze(-1)
        weight = counts.float()
        if self.class_weights is not None:
            weight = self.class_weights.of(batch.visibility.amax(dim=-1)) * counts
        num_targets = counts.sum().float()
        # In validation each process has its own number of windows: a reduction would hang.
        everywhere = mean_over_processes(num_targets) if self.training else num_targets
        normaliser = everywhere.clamp(min=1.0)

        center = batch.boxes[..., :2].float()
        per_frame = self._heatmap_loss(logits, center, ball * batch.confidence).sum(dim=(-1, -2))
        losses = {"heatmap": (per_frame * weight).sum() / normaliser}
        total = self.weight_heatmap * losses["heatmap"]
        if self.weight_coordinate:
            first = ball.float().argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 2)
            wanted = center.gather(2, first).squeeze(2)
            away = expected_position(logits, self.temperature) - wanted
            distance = (away * away.new_tensor((width, height))).abs().sum(-1)
            losses["coordinate"] = (distance * weight * ball.any(-1)).sum() / normaliser
            total = total + self.weight_coordinate * losses["coordinate"]
        losses = {name: value.detach() for name, value in losses.items()}
        return losses | {
            "total": total,
            "num_targets": num_targets,
            "num_matches": ball.any(-1).sum().float(),
        }

    def _heatmap_loss(self, logits: Tensor, center: Tensor, peaks: Tensor) -> Tensor:
        """``[B, T, Hh, Wh]``; ``peaks [B, T, M]`` is the share of each ball, 0-1."""
        height, width = logits.shape[-2:]
        target = draw_point_heatmap(
            center.flatten(0, 1), peaks.flatten(0, 1), height, width, sigma=self.sigma
        ).view_as(logits)
        if self.loss == "mse":
            return heatmap_mse_loss(logits, target)
        if self.loss == "quality_focal":
            return quality_focal_loss(logits, target, gamma=self.alpha)
        # The cell that holds the ball is the positive, wherever in it the Gaussian is centred.
        index = (center * center.new_tensor((width, height))).long()
        index = index.clamp(min=0).minimum(index.new_tensor((width - 1, height - 1)))
        cell = (index[..., 1] * width + index[..., 0]).flatten(0, 1)
        held = torch.zeros_like(target).flatten(0, 1).flatten(1)
        held = held.scatter_reduce_(1, cell, peaks.flatten(0, 1).float(), "amax").view_as(target)
        # A ball with share s (`augment.mix`) is s of a positive and 1 - s of a negative.
        negative, positive = (
            heatmap_focal_loss(logits, wanted, alpha=self.alpha, beta=self.beta)
            for wanted in (target.clamp(max=1 - 1e-4), torch.ones_like(target))
        )
        return torch.lerp(negative, positive, held)
