"""The set criterion of the scene model: every loss of a clip, by name.

Matching is done once for all layers. Every term is a *sum* over the clip divided by the same
number, the count of real objects (averaged over processes): only then do accumulated micro-batches
and several processes add up to the loss of the one large batch (see ``TrackingModule``).

Set losses: DETR (ECCV 2020), denoising: DN-DETR (CVPR 2022) and DINO (ICLR 2023), dense: CenterNet
(2019).
"""

from __future__ import annotations

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
    draw_center_heatmap,
    heatmap_focal_loss,
    sigmoid_focal_loss,
)
from scene_track.objectives.matcher import HungarianMatcher
from scene_track.objectives.processes import mean_over_processes


class SceneCriterion(nn.Module):
    """Classification, existence, box, dense, denoising and identity losses."""

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        identity: IdentityLoss | None = None,
        weight_class: Annotated[float, Field(ge=0)] = 2.0,
        weight_exist: Annotated[float, Field(ge=0)] = 1.0,
        weight_l1: Annotated[float, Field(ge=0)] = 5.0,
        weight_giou: Annotated[float, Field(ge=0)] = 2.0,
        weight_heat: Annotated[float, Field(ge=0)] = 1.0,
        weight_dense: Annotated[float, Field(ge=0)] = 1.0,
        weight_identity: Annotated[float, Field(ge=0)] = 1.0,
        weight_motion: Annotated[float, Field(ge=0)] = 0.5,
        weight_auxiliary: Annotated[float, Field(ge=0)] = 1.0,
        focal_alpha: Annotated[float, Field(ge=0, le=1)] = 0.25,
        focal_gamma: Literal[0] | Annotated[float, Field(ge=1)] = 2.0,
        max_match_distance: Annotated[float, Field(gt=0)] | None = 0.6,
        heat_sigma: Annotated[float, Field(gt=0)] = 0.1,
    ) -> None:
        """Store the weights.

        Args:
            matcher: assigns queries to objects.
            identity: identity loss; None trains no identity.
            weight_class: focal loss of the classes.
            weight_exist: cross-entropy of existence.
            weight_l1: box L1, in canvas units.
            weight_giou: 1 - GIoU.
            weight_heat: focal loss of the dense heat.
            weight_dense: box losses of the dense proposals, relative to the decoder's.
            weight_identity: cross-entropy over tracks and "new".
            weight_motion: expected-box loss of the tracks.
            weight_auxiliary: layers before the last, relative to the last.
            focal_alpha: weight of positives in the focal losses.
            focal_gamma: focusing exponent; between 0 and 1 its gradient is unbounded.
            max_match_distance: a matched pair whose centres lie further apart than this many object
                sizes is left out of the box losses (it is no estimate of that object); null keeps
                all.
            heat_sigma: standard deviation of the centre Gaussians, in object sizes.
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
        b, t = batch.padding_mask.shape
        present = ~batch.padding_mask
        valid = batch.valid & present.unsqueeze(-1)
        num_targets = valid.sum().float()
        # In validation each process streams its own sequences and has its own number of windows:
        # asking the others here would wait for windows that they do not have.
        count = mean_over_processes(num_targets) if self.training else num_targets
        normaliser = count.clamp(min=1.0)
        boxes, labels = batch.boxes.float(), batch.labels

        depth = len(predictions.layers)
        cls_logits = torch.stack([layer.cls_logits for layer in predictions.layers])
        stacked_boxes = torch.stack([layer.boxes.float() for layer in predictions.layers])
        with torch.no_grad():
            # [L, B, T, M]: all layers in one go, one copy to the host.
            repeat = (depth, *(1,) * 3)
            matches = self.matcher.match_padded(
                cls_logits.flatten(0, 2),
                stacked_boxes.flatten(0, 2),
                labels.repeat(repeat).flatten(0, 2),
                boxes.repeat((depth, 1, 1, 1, 1)).flatten(0, 2),
                valid.repeat(repeat).flatten(0, 2),
            ).view(depth, b, t, -1)

        losses: dict[str, Tensor] = {}
        weighted = boxes.new_zeros(())
        for index, layer in enumerate(predictions.layers):
            terms = self._layer(layer, matches[index], boxes, labels, present)
            last = index == depth - 1
            scale = 1.0 if last else self.weight_auxiliary
            for name, value in terms.items():
                value = value / normaliser
                key = name if last else f"aux_{name}"
                losses[key] = losses.get(key, 0.0) + value
                weighted = weighted + scale * self.weights[name] * value
        for name, value in self._dense(predictions, boxes, labels, valid, present).items():
            losses[name] = value / normaliser
            weighted = weighted + self.weights[name] * losses[name]
        if predictions.denoising:
            denoising, copies = self._denoising(predictions, boxes, labels, present, num_targets)
            for name, value in denoising.items():
                # Each object has as many noised copies as there are groups: together they weigh
                # one.
                value = value / (normaliser * copies.clamp(min=1))
                losses[f"dn_{name}"] = value
                weighted = weighted + lambda_dn * self.weights[name] * value
        if self.identity is not None and model.identity is not None:
            if clip is None:
                terms, accuracy = self.identity(model.identity, predictions, matches[-1], batch)
                share = present.new_ones((), dtype=torch.float32)
            else:
                whole, truth, start = clip
                found = self._match_around(matches[-1], whole, truth, start)
                terms, accuracy = self.identity(model.identity, whole, found, truth)
                share = present.sum() / (~truth.padding_mask).sum().clamp(min=1)
            for name, value in terms.items():
                losses[name] = share * value / normaliser
                weighted = weighted + self.weights[name] * losses[name]
            losses["id_accuracy"] = accuracy
        for name, value in self.extra_terms(predictions, batch, matches[-1]).items():
            losses[name] = value / normaliser
            weighted = weighted + self.weights[name] * losses[name]
        losses["total"] = weighted
        losses["num_targets"] = num_targets
        losses["num_matches"] = (matches[-1] >= 0).sum().float()
        return {
            name: value if name == "total" else value.detach() for name, value in losses.items()
        }

    @torch.no_grad()
    def _match_around(
        self, stretch: Tensor, clip: ScenePredictions, batch: SceneBatch, start: int
    ) -> Tensor:
        """``[B, T, M]`` query of each object of a clip or -1, of which a stretch is known."""
        stop = start + stretch.shape[1]
        around = [
            frame for frame in range(batch.padding_mask.shape[1]) if not start <= frame < stop
        ]
        valid = (batch.valid & ~batch.padding_mask.unsqueeze(-1))[:, around]
        found = self.matcher.match_padded(
            clip.cls_logits[:, around].flatten(0, 1),
            clip.boxes[:, around].float().flatten(0, 1),
            batch.labels[:, around].flatten(0, 1),
            batch.boxes[:, around].float().flatten(0, 1),
            valid.flatten(0, 1),
        ).view(*valid.shape)
        return torch.cat((found[:, :start], stretch, found[:, start:]), dim=1)

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

    def _layer(
        self,
        layer: LayerPredictions,
        match: Tensor,
        boxes: Tensor,
        labels: Tensor,
        present: Tensor,
    ) -> dict[str, Tensor]:
        """Sums of one layer's losses; ``match [B, T, M]`` holds the query of each object or -1."""
        matched = match >= 0
        query = match.clamp(min=0)
        classes = layer.cls_logits.shape[-1]
        target = torch.zeros_like(layer.cls_logits)
        exist = torch.zeros_like(layer.exist_logits.squeeze(-1))
        # amax, not assignment: unmatched objects also point at query 0 and must not erase it.
        exist.scatter_reduce_(2, query, matched.float(), "amax")
        onehot = F.one_hot(labels.clamp(min=0), classes).float() * matched.unsqueeze(-1)
        target.scatter_reduce_(2, query.unsqueeze(-1).expand(-1, -1, -1, classes), onehot, "amax")
        mask = present[..., None]
        picked = layer.boxes.float().gather(2, query.unsqueeze(-1).expand(-1, -1, -1, 4))
        near = matched & self._near(picked, boxes)
        return {
            "class": sigmoid_focal_loss(
                layer.cls_logits, target, mask[..., None], self.focal_alpha, self.focal_gamma
            ).sum(),
            "exist": F.binary_cross_entropy_with_logits(
                layer.exist_logits.squeeze(-1), exist, mask.float().expand_as(exist),
                reduction="sum",
            ),
            "l1": box_l1(picked, boxes, near).sum(),
            "giou": box_giou(picked, boxes, near).sum(),
        }  # fmt: skip

    def _near(self, picked: Tensor, boxes: Tensor) -> Tensor:
        """``[..., M]`` bool: is the prediction close enough to be an estimate of that object?"""
        if self.max_match_distance is None:
            return torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
        gap = (picked[..., :2] - boxes[..., :2]).detach().abs()
        return (gap <= self.max_match_distance * boxes[..., 2:].clamp(min=1e-3)).all(-1)

    def _dense(
        self,
        predictions: ScenePredictions,
        boxes: Tensor,
        labels: Tensor,
        valid: Tensor,
        present: Tensor,
    ) -> dict[str, Tensor]:
        """Heat over all cells; boxes at the centre cell and its four neighbours."""
        logits = predictions.dense.heat_logits
        b, t, classes, h, w = logits.shape
        boxes, labels, valid = boxes.flatten(0, 1), labels.flatten(0, 1), valid.flatten(0, 1)
        heat = draw_center_heatmap(
            boxes, labels, valid, classes, h, w, sigma_fraction=self.heat_sigma
        )
        mask = present.flatten()[:, None, None, None]
        offsets = boxes.new_tensor(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)))
        limit = boxes.new_tensor((w, h))
        cells = (boxes[..., :2] * limit).floor().unsqueeze(2) + offsets  # [N, M, 5, 2]
        inside = ((cells >= 0) & (cells < limit)).all(-1) & valid.unsqueeze(-1)
        cells = cells.minimum(limit - 1).clamp(min=0).long()
        index = (cells[..., 1] * w + cells[..., 0]).flatten(1)
        maps = predictions.dense.boxes.flatten(0, 1).flatten(2)
        picked = maps.gather(2, index.unsqueeze(1).expand(-1, 4, -1))
        picked = picked.transpose(1, 2).unflatten(1, cells.shape[1:3])  # [N, M, 5, 4]
        wanted = boxes.unsqueeze(2).expand_as(picked)
        return {
            "heat": heatmap_focal_loss(logits.flatten(0, 1), heat, mask).sum(),
            "dense_l1": box_l1(picked, wanted, inside).sum() / 5,
            "dense_giou": box_giou(picked, wanted, inside).sum() / 5,
        }

    def _denoising(
        self,
        predictions: ScenePredictions,
        boxes: Tensor,
        labels: Tensor,
        present: Tensor,
        num_targets: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Sums over the noised copies of all layers, and the positive copies per object."""
        queries = predictions.denoising_queries
        assert queries is not None
        b, t = present.shape
        counts = (queries.valid & present.flatten().unsqueeze(-1)).unflatten(0, (b, t))
        positive = counts & queries.positive.unflatten(0, (b, t))
        index = queries.target_index.unflatten(0, (b, t))
        wanted = boxes.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, 4))
        label = labels.gather(2, index)
        sums: dict[str, Tensor] = {}
        for layer in predictions.denoising:
            onehot = F.one_hot(label, layer.cls_logits.shape[-1]).float()
            onehot = onehot * positive.unsqueeze(-1)
            terms = {
                "class": sigmoid_focal_loss(
                    layer.cls_logits, onehot, counts.unsqueeze(-1), self.focal_alpha,
                    self.focal_gamma,
                ).sum(),
                "exist": F.binary_cross_entropy_with_logits(
                    layer.exist_logits.squeeze(-1), positive.float(), counts.float(),
                    reduction="sum",
                ),
                "l1": box_l1(layer.boxes, wanted, positive).sum(),
                "giou": box_giou(layer.boxes, wanted, positive).sum(),
            }  # fmt: skip
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        return sums, positive.sum() / num_targets.clamp(min=1)
