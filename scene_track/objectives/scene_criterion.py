"""The set criterion of the scene model: every loss of a clip, by name.

Matching is done once for all layers. Every term is a *sum* over the clip divided by the same
number, the count of real objects (averaged over processes): only then do accumulated micro-batches
and several processes add up to the loss of the one large batch (see ``TrackingModule``).

Set losses: DETR (ECCV 2020), denoising: DN-DETR (CVPR 2022) and DINO (ICLR 2023), dense: CenterNet
(2019). The identity terms are in ``identity.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.data.batch import SceneBatch
from scene_track.models.predictions import LayerPredictions, ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.objectives.identity import IdentityLoss
from scene_track.objectives.losses import (
    box_giou,
    box_l1,
    cells_inside,
    draw_center_heatmap,
    heatmap_focal_loss,
    mostly_inside,
    pick,
    sigmoid_focal_loss,
)
from scene_track.objectives.matcher import HungarianMatcher
from scene_track.objectives.processes import mean_over_processes


@dataclass(frozen=True)
class _Targets:
    """The ground truth of a clip, M objects per frame after padding.

    Attributes:
        boxes: ``[B, T, M, 4]`` float32 cxcywh.
        labels: ``[B, T, M]``; 0 where not valid.
        valid: ``[B, T, M]`` bool, True = a real object of a real frame.
        present: ``[B, T]`` bool, False = padding frame.
        ignored: ``[B, T, M]`` bool, True = the box is a region that no loss looks at.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    present: Tensor
    ignored: Tensor

    @classmethod
    def of(cls, batch: SceneBatch) -> _Targets:
        present = ~batch.padding_mask
        valid = batch.valid & present.unsqueeze(-1)
        return cls(batch.boxes.float(), batch.labels.clamp(min=0), valid, present, batch.ignored)

    def counts(self, boxes: Tensor) -> Tensor:
        """``[B, T, Q]`` bool: these ``[B, T, Q, 4]`` boxes are right or wrong, not ignored."""
        return self.present.unsqueeze(-1) & ~mostly_inside(boxes, self.boxes, self.ignored)


class _WeightedSum:
    """Losses by name, and their weighted sum in the order in which they are added."""

    def __init__(self, zero: Tensor) -> None:
        self.by_name: dict[str, Tensor] = {}
        self.total = zero

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Add a term; terms of the same name add up."""
        self.by_name[name] = self.by_name[name] + value if name in self.by_name else value
        self.total = self.total + weight * value


class SceneCriterion(nn.Module):
    """Classification, existence, box, dense, denoising and identity losses."""

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        identity: IdentityLoss | None,
        weight_class: Annotated[float, Field(ge=0)],
        weight_exist: Annotated[float, Field(ge=0)],
        weight_l1: Annotated[float, Field(ge=0)],
        weight_giou: Annotated[float, Field(ge=0)],
        weight_heat: Annotated[float, Field(ge=0)],
        weight_dense: Annotated[float, Field(ge=0)],
        weight_identity: Annotated[float, Field(ge=0)],
        weight_motion: Annotated[float, Field(ge=0)],
        weight_auxiliary: Annotated[float, Field(ge=0)],
        focal_alpha: Annotated[float, Field(ge=0, le=1)],
        focal_gamma: Literal[0] | Annotated[float, Field(ge=1)],
        max_match_distance: Annotated[float, Field(gt=0)] | None,
        heat_sigma: Annotated[float, Field(gt=0)],
    ) -> None:
        """Store the weights. Options: see ``conf/head/bbox.yaml``; no ``identity`` trains none.

        The gradient of the focal losses is unbounded with an exponent between 0 and 1.
        """
        super().__init__()
        self.matcher, self.identity = matcher, identity
        self.weights = {
            "class": weight_class,
            "exist": weight_exist,
            "l1": weight_l1,
            "giou": weight_giou,
            "heat": weight_heat,
            "dense_l1": weight_dense * weight_l1,
            "dense_giou": weight_dense * weight_giou,
            "identity": weight_identity,
            "motion": weight_motion,
        }
        self.weight_auxiliary = weight_auxiliary
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.max_match_distance, self.heat_sigma = max_match_distance, heat_sigma

    def forward(
        self,
        predictions: ScenePredictions,
        batch: SceneBatch,
        *,
        model: SceneModel,
        lambda_dn: float = 0.0,
        clip: tuple[ScenePredictions, SceneBatch, int] | None = None,
    ) -> dict[str, Tensor]:
        """All losses of a batch.

        Args:
            predictions: of the model, with denoising answers where there were denoising queries.
            batch: the ground truth.
            model: the model that predicted (its pointer head answers for identities).
            lambda_dn: weight of the denoising losses.
            clip: predictions and ground truth of a longer clip around ``batch``, and the frame of
                it that ``batch`` starts with, for the identity loss; it weighs as much as it would
                on ``batch`` alone. None: ``batch`` itself.

        Returns:
            Unweighted scalars by name (last layer; ``aux_*`` summed over the earlier ones, ``dn_*``
            over the denoising answers of all layers), their weighted sum as ``total``, and
            ``num_targets`` (real objects per process) and ``num_matches``.
        """
        targets = _Targets.of(batch)
        num_targets = targets.valid.sum().float()
        # In validation each process streams its own videos and has its own number of windows:
        # asking the others here would wait for windows that they do not have.
        count = mean_over_processes(num_targets) if self.training else num_targets
        normaliser = count.clamp(min=1.0)
        matches = self._match_layers(predictions.layers, targets)
        last = len(predictions.layers) - 1
        losses = _WeightedSum(targets.boxes.new_zeros(()))
        for index, layer in enumerate(predictions.layers):
            prefix, scale = ("", 1.0) if index == last else ("aux_", self.weight_auxiliary)
            for name, value in self._layer(layer, matches[index], targets).items():
                losses.add(prefix + name, value / normaliser, scale * self.weights[name])
        for name, value in self._dense(predictions, targets).items():
            losses.add(name, value / normaliser, self.weights[name])
        if predictions.denoising:
            denoising, copies = self._denoising(predictions, targets, num_targets)
            for name, value in denoising.items():
                # Each object has one noised copy per group: together they weigh as much as one.
                value = value / (normaliser * copies.clamp(min=1))
                losses.add(f"dn_{name}", value, lambda_dn * self.weights[name])
        accuracy = None
        if self.identity is not None and model.identity is not None:
            if clip is None:
                terms, accuracy = self.identity(model.identity, predictions, matches[last], batch)
                share = torch.ones_like(num_targets)
            else:
                whole, truth, start = clip
                found = self._match_around(matches[last], whole, truth, start)
                terms, accuracy = self.identity(model.identity, whole, found, truth)
                share = targets.present.sum() / (~truth.padding_mask).sum().clamp(min=1)
            for name, value in terms.items():
                losses.add(name, share * value / normaliser, self.weights[name])
        for name, value in self.extra_terms(predictions, batch, matches[last]).items():
            losses.add(name, value / normaliser, self.weights[name])
        answer = {name: value.detach() for name, value in losses.by_name.items()}
        if accuracy is not None:
            answer["id_accuracy"] = accuracy
        answer["total"] = losses.total
        answer["num_targets"] = num_targets
        answer["num_matches"] = (matches[last] >= 0).sum().float()
        return answer

    def extra_terms(
        self, predictions: ScenePredictions, batch: SceneBatch, matches: Tensor
    ) -> dict[str, Tensor]:
        """Sums of further losses of a subclass, by name; their weights stand in ``self.weights``.

        Args:
            predictions: of the clip.
            batch: the ground truth.
            matches: ``[B, T, M]`` the last layer's query of each object or -1.
        """
        return {}

    @torch.no_grad()
    def _match_layers(self, layers: list[LayerPredictions], targets: _Targets) -> Tensor:
        """``[L, B, T, M]`` query of each object or -1: all layers with one copy to the host."""
        depth = len(layers)
        matches = self.matcher.match_padded(
            torch.stack([layer.cls_logits for layer in layers]).flatten(0, 2),
            torch.stack([layer.boxes.float() for layer in layers]).flatten(0, 2),
            targets.labels.repeat(depth, 1, 1, 1).flatten(0, 2),
            targets.boxes.repeat(depth, 1, 1, 1, 1).flatten(0, 2),
            targets.valid.repeat(depth, 1, 1, 1).flatten(0, 2),
        )
        return matches.view(depth, *targets.valid.shape)

    @torch.no_grad()
    def _match_around(
        self, known: Tensor, clip: ScenePredictions, batch: SceneBatch, start: int
    ) -> Tensor:
        """``[B, T, M]`` query of each object of a clip or -1; ``known`` from frame ``start`` on."""
        stop, length = start + known.shape[1], batch.padding_mask.shape[1]
        around = [frame for frame in range(length) if not start <= frame < stop]
        valid = (batch.valid & ~batch.padding_mask.unsqueeze(-1))[:, around]
        found = self.matcher.match_padded(
            clip.cls_logits[:, around].flatten(0, 1),
            clip.boxes[:, around].float().flatten(0, 1),
            batch.labels[:, around].clamp(min=0).flatten(0, 1),
            batch.boxes[:, around].float().flatten(0, 1),
            valid.flatten(0, 1),
        ).view(*valid.shape)
        return torch.cat((found[:, :start], known, found[:, start:]), dim=1)

    def _layer(
        self, layer: LayerPredictions, match: Tensor, targets: _Targets
    ) -> dict[str, Tensor]:
        """Sums of one layer's losses; ``match [B, T, M]`` holds the query of each object or -1."""
        matched = match >= 0
        query = match.clamp(min=0)
        classes = layer.cls_logits.shape[-1]
        target = torch.zeros_like(layer.cls_logits)
        exist = torch.zeros_like(layer.exist_logits.squeeze(-1))
        # amax, not assignment: unmatched objects also point at query 0 and must not erase it.
        exist.scatter_reduce_(2, query, matched.float(), "amax")
        onehot = F.one_hot(targets.labels, classes).float() * matched.unsqueeze(-1)
        target.scatter_reduce_(2, query.unsqueeze(-1).expand(-1, -1, -1, classes), onehot, "amax")
        picked = pick(layer.boxes.float(), query)
        near = matched & self._near(picked, targets.boxes)
        counts = (exist > 0) | targets.counts(layer.boxes)
        return self._set_losses(layer, target, exist, counts, picked, targets.boxes, near)

    def _denoising(
        self, predictions: ScenePredictions, targets: _Targets, num_targets: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Sums over the noised copies of all layers, and the positive copies per object."""
        queries = predictions.denoising_queries
        assert queries is not None
        shape = (*targets.present.shape, queries.valid.shape[1])
        counts = queries.valid.view(shape) & targets.present.unsqueeze(-1)
        positive = counts & queries.positive.view(shape)
        noised = queries.boxes.detach().sigmoid().view(*shape, 4)
        counts = counts & (positive | targets.counts(noised))
        index = queries.target_index.reshape(shape)
        wanted = pick(targets.boxes, index)
        label = targets.labels.gather(2, index)
        sums: dict[str, Tensor] = {}
        for layer in predictions.denoising:
            onehot = F.one_hot(label, layer.cls_logits.shape[-1]).float() * positive.unsqueeze(-1)
            terms = self._set_losses(
                layer, onehot, positive.float(), counts, layer.boxes, wanted, positive
            )
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums, positive.sum() / num_targets.clamp(min=1)

    def _set_losses(
        self,
        layer: LayerPredictions,
        classes: Tensor,
        exist: Tensor,
        counts: Tensor,
        boxes: Tensor,
        wanted: Tensor,
        box_counts: Tensor,
    ) -> dict[str, Tensor]:
        """Sums of the four set losses.

        Args:
            layer: the answers.
            classes: ``[B, T, Q, C]`` 0-1, target of the class logits.
            exist: ``[B, T, Q]`` 0-1, target of the existence.
            counts: ``[B, T, Q]`` bool, queries whose class and existence count.
            boxes: ``[B, T, N, 4]`` answers that are compared with ``wanted``.
            wanted: ``[B, T, N, 4]``.
            box_counts: ``[B, T, N]`` bool, boxes that count.
        """
        return {
            "class": sigmoid_focal_loss(
                layer.cls_logits, classes, counts.unsqueeze(-1), self.focal_alpha, self.focal_gamma
            ).sum(),
            "exist": F.binary_cross_entropy_with_logits(
                layer.exist_logits.squeeze(-1), exist, counts.float(), reduction="sum"
            ),
            "l1": box_l1(boxes, wanted, box_counts).sum(),
            "giou": box_giou(boxes, wanted, box_counts).sum(),
        }

    def _near(self, picked: Tensor, boxes: Tensor) -> Tensor:
        """``[..., M]`` bool: whether a predicted box is close enough to count as an estimate."""
        if self.max_match_distance is None:
            return torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
        gap = (picked[..., :2] - boxes[..., :2]).detach().abs()
        return (gap <= self.max_match_distance * boxes[..., 2:].clamp(min=1e-3)).all(-1)

    def _dense(self, predictions: ScenePredictions, targets: _Targets) -> dict[str, Tensor]:
        """Heat over all cells; boxes at the centre cell and its four neighbours."""
        logits = predictions.dense.heat_logits
        classes, h, w = logits.shape[2:]
        boxes, valid = targets.boxes.flatten(0, 1), targets.valid.flatten(0, 1)
        heat = draw_center_heatmap(
            boxes,
            targets.labels.flatten(0, 1),
            valid,
            classes,
            h,
            w,
            sigma_fraction=self.heat_sigma,
        )
        ignored = cells_inside(boxes, targets.ignored.flatten(0, 1), h, w).unsqueeze(1)
        mask = targets.present.flatten()[:, None, None, None] & (~ignored | (heat >= 1))
        offsets = boxes.new_tensor(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)))
        limit = boxes.new_tensor((w, h))
        cells = (boxes[..., :2] * limit).floor().unsqueeze(2) + offsets  # [N, M, 5, 2]
        inside = ((cells >= 0) & (cells < limit)).all(-1) & valid.unsqueeze(-1)
        cells = cells.minimum(limit - 1).clamp(min=0).long()
        index = (cells[..., 1] * w + cells[..., 0]).flatten(1)
        maps = predictions.dense.boxes.flatten(0, 1).flatten(2)
        picked = maps.gather(2, index.unsqueeze(1).expand(-1, 4, -1)).transpose(1, 2)
        picked = picked.reshape(*cells.shape[:3], 4)  # [N, M, 5, 4]
        wanted = boxes.unsqueeze(2).expand_as(picked)
        return {
            "heat": heatmap_focal_loss(logits.flatten(0, 1), heat, mask).sum(),
            "dense_l1": box_l1(picked, wanted, inside).sum() / 5,
            "dense_giou": box_giou(picked, wanted, inside).sum() / 5,
        }
