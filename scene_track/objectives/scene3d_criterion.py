"""The set criterion with the terms of the 3-D head: role, position, body.

Video without 3-D ground truth (``SceneBatch.xyz`` is NaN or None there) trains boxes, existence and
roles; positions do not count.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from scene_track.data.batch import SceneBatch
from scene_track.models.predictions import ScenePredictions
from scene_track.objectives.losses import pick
from scene_track.objectives.scene_criterion import SceneCriterion


class Scene3dCriterion(SceneCriterion):
    """``SceneCriterion`` plus ``role``, ``xyz`` and ``smpl``."""

    def __init__(
        self,
        *,
        weight_role: Annotated[float, Field(ge=0)],
        weight_xyz: Annotated[float, Field(ge=0)],
        weight_smpl: Annotated[float, Field(ge=0)],
        ball_label: Annotated[int, Field(ge=0)] | None,
        **scene: Any,
    ) -> None:
        """Store the weights. Options: see ``conf/head/scene3d.yaml`` and ``SceneCriterion``.

        No dataset here observes body parameters, so they are pulled to the mean body (as the prior
        of HMR, Kanazawa et al., 2018).
        """
        super().__init__(**scene)
        self.ball_label = ball_label
        self.weights |= {"role": weight_role, "xyz": weight_xyz, "smpl": weight_smpl}

    def extra_terms(
        self, predictions: ScenePredictions, batch: SceneBatch, matches: Tensor
    ) -> dict[str, Tensor]:
        """See ``SceneCriterion.extra_terms``."""
        matched = (matches >= 0).float()
        query = matches.clamp(min=0)

        def at_objects(name: str) -> Tensor:
            return pick(predictions.extras[name], query)

        ball = torch.zeros_like(batch.labels)
        if self.ball_label is not None:
            ball = (batch.labels == self.ball_label).long()
        role = F.cross_entropy(
            at_objects("role_logits").flatten(0, 2), ball.flatten(), reduction="none"
        ).view_as(matched)
        xyz = batch.xyz
        if xyz is None:
            xyz = torch.full((*matches.shape, 3), torch.nan, device=matches.device)
        known = xyz.isfinite().all(-1, keepdim=True)
        wanted = torch.where(known, xyz, 0.0)
        answer = torch.where(
            ball.bool().unsqueeze(-1), at_objects("ball_xyz"), at_objects("player_xyz")
        )
        error = F.smooth_l1_loss(answer, wanted, reduction="none").sum(-1)
        return {
            "role": (role * matched).sum(),
            "xyz": (error * matched * known.squeeze(-1)).sum(),
            "smpl": (at_objects("smpl").square().mean(-1) * matched).sum(),
        }
