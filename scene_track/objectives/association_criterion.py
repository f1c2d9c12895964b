"""The criterion of ``model=association``: which detection is whose is given, who is who is learned.

Detections are matched to ground truth frame by frame, one to one with the largest sum of overlaps.
What is matched to nobody is a false positive, which the head must learn to leave alone.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn

from scene_track.data.batch import SceneBatch
from scene_track.models.association import AssociationModel
from scene_track.models.boxes import pairwise_iou
from scene_track.models.predictions import ScenePredictions
from scene_track.objectives.identity import IdentityLoss
from scene_track.objectives.processes import mean_over_processes


class AssociationCriterion(nn.Module):
    """Matches detections to ground truth and trains the pointer head."""

    def __init__(
        self,
        *,
        identity: IdentityLoss,
        match_iou: Annotated[float, Field(gt=0, le=1)],
        weight_identity: Annotated[float, Field(ge=0)],
        weight_motion: Annotated[float, Field(ge=0)],
    ) -> None:
        """Store the weights. Options: see ``conf/head/association.yaml``."""
        super().__init__()
        self.identity, self.match_iou = identity, match_iou
        self.weights = {"identity": weight_identity, "motion": weight_motion}

    def forward(
        self,
        predictions: ScenePredictions,
        batch: SceneBatch,
        *,
        model: AssociationModel,
        lambda_dn: float = 0.0,
        clip: None = None,
    ) -> dict[str, Tensor]:
        """See ``SceneCriterion.forward``: ``identity`` and ``motion``; nothing is denoised."""
        matches = match_by_overlap(predictions, batch, self.match_iou)
        num_targets = (batch.valid & ~batch.padding_mask.unsqueeze(-1)).sum().float()
        # Processes validate different numbers of windows; see ``SceneCriterion``.
        count = mean_over_processes(num_targets) if self.training else num_targets
        assert model.identity is not None
        terms, accuracy = self.identity(model.identity, predictions, matches, batch)
        terms = {name: value / count.clamp(min=1.0) for name, value in terms.items()}
        total = sum((self.weights[n] * value for n, value in terms.items()), count.new_zeros(()))
        return {name: value.detach() for name, value in terms.items()} | {
            "id_accuracy": accuracy,
            "total": total,
            "num_targets": num_targets,
            "num_matches": (matches >= 0).sum().float(),
        }


@torch.no_grad()
def match_by_overlap(predictions: ScenePredictions, batch: SceneBatch, least: float) -> Tensor:
    """``[B, T, M]`` int64 detection of each true object, or -1; ``least`` is the smallest IoU."""
    overlap = pairwise_iou(batch.boxes.float(), predictions.boxes.float())
    counts = batch.valid & ~batch.padding_mask.unsqueeze(-1)
    possible = counts.unsqueeze(-1) & (predictions.exist_conf.transpose(-1, -2) > 0)
    # Pairs below the limit count 0, so they never replace a pair that counts.
    overlap = overlap.masked_fill(~possible | (overlap < least), 0.0).flatten(0, 1)
    # The assignment is host work: scipy solves one matrix at a time.
    worth = overlap.cpu().numpy()
    answer = np.full(worth.shape[:2], -1, dtype=np.int64)
    for row, frame in zip(answer, worth, strict=True):
        objects, found = optimize.linear_sum_assignment(frame, maximize=True)  # pyright: ignore
        good = frame[objects, found] > 0
        row[objects[good]] = found[good]
    return torch.as_tensor(answer).view(counts.shape).to(counts.device)
