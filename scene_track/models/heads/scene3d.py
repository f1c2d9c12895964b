"""The 3-D scene head: who a query is, where it stands in metres, and the pose of its body.

An image tells directions well and distances badly, so the network answers with the logarithm of
the depth and the two slopes of the viewing ray; x and y follow.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.models.heads.bbox import BoxHead

ROLES = ("player", "ball")


class Scene3dHead(BoxHead):
    """Boxes, and ``role_logits``, ``player_xyz``, ``ball_xyz``, ``smpl`` as extras."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)],
        smpl_dim: Annotated[int, Field(ge=1)],
        initial_depth: Annotated[float, Field(gt=0)],
        **boxes: Any,
    ) -> None:
        """Build the head. Options: see ``conf/head/scene3d.yaml``; ``boxes``: see ``BoxHead``.

        Body parameters are those of SMPL (Loper et al., 2015).
        """
        super().__init__(dim=dim, **boxes)
        self.initial_depth = initial_depth
        self.role = nn.Linear(dim, len(ROLES))
        self.player = self._mlp(dim, 3)
        self.ball = self._mlp(dim, 3)
        self.body = self._mlp(dim, smpl_dim)

    @staticmethod
    def _mlp(dim: int, outputs: int) -> nn.Sequential:
        mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, outputs))
        last = mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        return mlp

    def extras(self, hidden: Tensor) -> dict[str, Tensor]:
        """Outputs of the last layer.

        Returns:
            ``role_logits [B, T, Q, 2]`` (player, ball), ``player_xyz`` and ``ball_xyz [B, T, Q,
            3]`` metres in the camera frame (z forward), ``smpl [B, T, Q, P]``.
        """
        return {
            "role_logits": self.role(hidden).float(),
            "player_xyz": self._position(self.player(hidden).float()),
            "ball_xyz": self._position(self.ball(hidden).float()),
            "smpl": self.body(hidden).float(),
        }

    def _position(self, raw: Tensor) -> Tensor:
        depth = self.initial_depth * raw[..., 2:].clamp(-4, 4).exp()
        # Lateral shifts grow with distance: predicted as slopes of the ray.
        return torch.cat((raw[..., :2] * depth, depth), dim=-1)
