"""AssociationModel: the identity head alone, on detections of any detector.

There is no backbone and nothing to detect. Each detection becomes a token of what a box and its
score say beside its place in a track (how sure, how covered, how large); the pointer head does the
rest. Its predictions are those of a scene model, so losses, trackers and commands are too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.models.boxes import pairwise_iou
from scene_track.models.clip_model import ClipModel
from scene_track.models.identity import PointerIdentity
from scene_track.models.predictions import ScenePredictions

_FEATURES = 6


@dataclass
class AssociationState:
    """Nothing: every frame's tokens are made from that frame alone."""

    def detach(self) -> AssociationState:
        """Itself."""
        return self


def detection_features(boxes: Tensor, scores: Tensor, exists: Tensor) -> Tensor:
    """What is known of detections besides where they are relative to tracks.

    Args:
        boxes: ``[..., Q, 4]`` cxcywh, 0-1.
        scores: ``[..., Q]`` 0-1.
        exists: ``[..., Q]`` bool, False = padding.

    Returns:
        ``[..., Q, 6]``: score and its logit; largest overlap with another detection, and with a
        surer one; log height and log aspect.
    """
    count = boxes.shape[-2]
    itself = torch.eye(count, dtype=torch.bool, device=boxes.device)
    others = exists.unsqueeze(-2) & ~itself
    overlap = pairwise_iou(boxes, boxes).masked_fill(~others, 0.0)
    surer = scores.unsqueeze(-2) > scores.unsqueeze(-1)
    size = boxes[..., 2:].clamp(min=1e-3)
    features = (
        scores,
        scores.clamp(0.01, 0.99).logit() / 4,
        overlap.amax(-1),
        overlap.masked_fill(~surer, 0.0).amax(-1),
        size[..., 1].log() / 2,
        (size[..., 1] / size[..., 0]).log(),
    )
    return torch.stack(features, dim=-1)


class AssociationModel(ClipModel):
    """Detections of a clip as predictions with identity tokens."""

    GIVES = "queries"
    READS = "detections"

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=8)],
        identity: PointerIdentity,
    ) -> None:
        """Build the model. Options: see ``conf/model/association.yaml``.

        Raises:
            ValueError: the head keeps its loss from what its tokens are made of.
        """
        super().__init__()
        if identity.detach:
            raise ValueError(
                "model.identity.detach=true: nothing else trains the tokens of model=association;"
                " type model.identity.detach=false"
            )
        self.backbone = None
        self.identity = identity
        self.features = nn.Sequential(nn.Linear(_FEATURES, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self,
        frames: Tensor,
        seconds: Tensor,
        padding_mask: Tensor,
        denoising: Any = None,
        state: AssociationState | None = None,
        features: Any = None,
    ) -> tuple[ScenePredictions, AssociationState]:
        """See ``ClipModel.forward``; of ``seconds`` the head alone makes use.

        Raises:
            ValueError: images were given.
        """
        if frames.shape[-1] != 5 or frames.ndim != 4:
            raise ValueError(
                f"model=association reads detections, and was given images {list(frames.shape)}:"
                " type dataset.detections=FOLDER; for images take its head into a scene model by"
                " init_from=RUN init_parts=[model.identity]"
            )
        boxes, scores = frames[..., :4].float(), frames[..., 4].float()
        exists = (scores >= 0) & ~padding_mask.unsqueeze(-1)
        scores = scores.clamp(min=0) * exists
        # Losses and trackers take tokens without autocast.
        tokens = self.features(detection_features(boxes, scores, exists)).float()
        boxes = torch.cat((boxes[..., :2], boxes[..., 2:].clamp(min=1e-3)), dim=-1)
        scores = scores.unsqueeze(-1)
        predictions = ScenePredictions.bare(boxes, scores, torch.zeros_like(scores), tokens)
        return predictions, AssociationState()
