"""Losses of a heatmap: how it should look, and where its mean lies.

Every term is a *sum* over frames divided by the number of frames that somebody has looked at, so
that accumulated micro-batches and processes add up (see ``TrackingModule``). Those frames alone
count: an absent ball asks for an empty map and for no position, a frame without annotation for
nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.ball.peaks import expected_position
from scene_track.data.batch import SceneBatch
from scene_track.data.visibility import Visibility
from scene_track.models.predictions import HeatmapPredictions
from scene_track.objectives.losses import (
    draw_point_heatmap,
    heatmap_focal_loss,
    heatmap_mse_loss,
    quality_focal_loss,
)
from scene_track.objectives.processes import mean_over_processes


class ClassWeights:
    """How much a frame counts by how well its ball can be seen; rare kinds may count more."""

    def __init__(
        self,
        *,
        absent: Annotated[float, Field(ge=0)] = 1.0,
        visible: Annotated[float, Field(ge=0)] = 1.0,
        hard: Annotated[float, Field(ge=0)] = 1.0,
        occluded: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        """Store the weights.

        Args:
            absent: of frames without a ball.
            visible: of frames with one that is easily seen.
            hard: of frames with one that is hard to see.
            occluded: of frames with one behind something.
        """
        self.by_class = {
            Visibility.ABSENT: absent,
            Visibility.VISIBLE: visible,
            Visibility.HARD: hard,
            Visibility.OCCLUDED: occluded,
        }

    def of(self, visibility: Tensor) -> Tensor:
        """``[...]`` float32 weights of ``[...]`` visibilities; 0 for those unknown."""
        table = [0.0, *(self.by_class[Visibility(value)] for value in range(4))]
        return visibility.new_tensor(table, dtype=torch.float32)[visibility + 1]


class HeatmapCriterion(nn.Module):
    """Heatmap loss, and the distance of the soft-arg-max."""

    def __init__(
        self,
        *,
        loss: Literal["mse", "focal", "quality_focal"] = "focal",
        sigma: Annotated[float, Field(gt=0)] = 2.0,
        alpha: Annotated[float, Field(ge=1)] = 2.0,
        beta: Annotated[float, Field(ge=0)] = 4.0,
        weight_heatmap: Annotated[float, Field(ge=0)] = 1.0,
        weight_coordinate: Annotated[float, Field(ge=0)] = 0.0,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        class_weights: ClassWeights | None = None,
    ) -> None:
        """Store the weights.

        Args:
            loss: ``mse`` of the values; ``focal``, the penalty-reduced one of CornerNet; or
                ``quality_focal`` (Li et al., NeurIPS 2020), whose target at every cell is the
                Gaussian itself.
            sigma: standard deviation of the target Gaussian, cells of the heatmap.
            alpha: focusing exponent of both focal losses.
            beta: exponent of the reduced penalty around the peak (``focal``).
            weight_heatmap: of the heatmap loss.
            weight_coordinate: of the distance between soft-arg-max and ball, per cell.
            temperature: of that soft-arg-max.
            class_weights: of frames by visibility; None = all count the same.
        """
        super().__init__()
        self.loss, self.sigma, self.alpha, self.beta = loss, sigma, alpha, beta
        self.weight_heatmap, self.weight_coordinate = weight_heatmap, weight_coordinate
        self.temperature = temperature
        self.class_weights = class_weights or ClassWeights()

    def forward(
        self, predictions: HeatmapPredictions, batch: SceneBatch, **scene: Any
    ) -> dict[str, Tensor]:
        """All losses of a batch.

        Args:
            predictions: of the model.
            batch: the ground truth; of several balls in a frame each has its Gaussian, the
                coordinate loss looks at the first.
            **scene: what only the criterion of a scene looks at.

        Returns:
            Unweighted scalars ``heatmap`` and, with its weight above 0, ``coordinate`` (cells),
            their weighted sum as ``total``, and ``num_targets`` (annotated frames per process) and
            ``num_matches`` (frames with a ball).
        """
        logits = predictions.heatmap_logits[:, :, 0].float()
        height, width = logits.shape[-2:]
        counts = batch.annotated & ~batch.padding_mask  # [B, T]
        ball = batch.valid & counts.unsqueeze(-1)
        weight = self.class_weights.of(batch.visibility.amax(dim=-1)) * counts
        num_targets = counts.sum().float()
        # In validation each process has its own number of windows: asking the others would hang.
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
        """``[B, T, Hh, Wh]``; ``peaks [B, T, M]`` says how much of a ball there is."""
        height, width = logits.shape[-2:]
        target = draw_point_heatmap(
            center.flatten(0, 1), peaks.flatten(0, 1), height, width, sigma=self.sigma
        ).view_as(logits)
        if self.loss == "mse":
            return heatmap_mse_loss(logits, target)
        if self.loss == "quality_focal":
            return quality_focal_loss(logits, target, gamma=self.alpha)
        # The cell that holds the centre is the positive, though the centre of its Gaussian lies
        # elsewhere in it.
        index = (center * center.new_tensor((width, height))).long()
        index = index.clamp(min=0).minimum(index.new_tensor((width - 1, height - 1)))
        cell = (index[..., 1] * width + index[..., 0]).flatten(0, 1)
        held = torch.zeros_like(target).flatten(0, 1).flatten(1)
        held = held.scatter_reduce_(1, cell, peaks.flatten(0, 1).float(), "amax").view_as(target)
        # So much of a positive as there is of a ball (`augment.mix`), and a negative for the rest.
        negative, positive = (
            heatmap_focal_loss(logits, wanted, alpha=self.alpha, beta=self.beta)
            for wanted in (target.clamp(max=1 - 1e-4), torch.ones_like(target))
        )
        return torch.lerp(negative, positive, held)
