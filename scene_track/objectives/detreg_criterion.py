"""The set criterion of pretraining without labels: regions, and what the backbone sees in them.

Class and existence say that a query is a region, of any kind; the boxes are those of the regions;
and the query regresses the backbone's own embedding of its region (DETReg, Bar et al., CVPR 2022,
L1, last layer). The backbone is frozen: a target that learned too would end up the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torchvision.ops as vision  # pyright: ignore[reportMissingTypeStubs]
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from scene_track.data.batch import SceneBatch
from scene_track.models.boxes import cxcywh_to_xyxy
from scene_track.models.predictions import ScenePredictions
from scene_track.objectives.losses import pick
from scene_track.objectives.scene_criterion import SceneCriterion


def region_embeddings(levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """What feature maps hold inside boxes, each level pooled and brought to mean 0, deviation 1.

    Without that, the loss would be that of the few loudest channels.

    Args:
        levels: ``[N, D_i, h_i, w_i]`` maps of N images.
        boxes: ``[N, M, 4]`` cxcywh, 0-1.

    Returns:
        ``[N, M, sum of D_i]`` float32.
    """
    parts: list[Tensor] = []
    corners = cxcywh_to_xyxy(boxes.float()).clamp(0, 1)
    for level in levels:
        h, w = level.shape[-2:]
        cells = corners * corners.new_tensor((w, h, w, h))
        pooled: Tensor = vision.roi_align(  # pyright: ignore[reportUnknownMemberType]
            level.float(), list(cells), output_size=1, aligned=True
        )
        parts.append(F.layer_norm(pooled.flatten(1), pooled.shape[1:2]))
    return torch.cat(parts, dim=-1).view(*boxes.shape[:2], -1)


class DetregCriterion(SceneCriterion):
    """``SceneCriterion`` plus ``embedding``."""

    def __init__(
        self,
        *,
        weight_embedding: Annotated[float, Field(ge=0)],
        levels: Annotated[list[Annotated[int, Field(le=-1)]], Field(min_length=1)],
        frozen: Literal[True],
        thawed: None,
        **scene: Any,
    ) -> None:
        """Store the weights. Options: see ``conf/head/detreg.yaml`` and ``SceneCriterion``."""
        super().__init__(**scene)
        self.levels = list(levels)
        self.weights["embedding"] = weight_embedding

    def extra_terms(
        self, predictions: ScenePredictions, batch: SceneBatch, matches: Tensor
    ) -> dict[str, Tensor]:
        """See ``SceneCriterion.extra_terms``.

        Raises:
            ValueError: the backbone has fewer levels, or others than the head was built for.
        """
        answer = pick(predictions.extras["embedding"], matches.clamp(min=0))
        if -min(self.levels) > len(predictions.levels):
            raise ValueError(
                f"head.criterion.levels={self.levels}: the backbone has levels"
                f" {-len(predictions.levels)} to -1"
            )
        with torch.no_grad():
            chosen = [predictions.levels[index].detach() for index in self.levels]
            target = region_embeddings(chosen, batch.boxes.flatten(0, 1))
        if target.shape[-1] != answer.shape[-1]:
            raise ValueError(
                f"head.module.embedding={answer.shape[-1]}: levels {self.levels} of the backbone"
                f" have {target.shape[-1]} channels; type head.module.embedding={target.shape[-1]}"
            )
        error = (answer - target.view_as(answer)).abs().mean(-1)
        return {"embedding": (error * (matches >= 0)).sum()}
