"""Boxes of whatever stands out, and the embedding of what is in them: the head of pretraining.

DETReg (Bar et al., CVPR 2022): a query answers with what the frozen backbone sees in its region,
and so learns to tell things apart before anybody has named them. The head is left behind; decoder,
proposals and projection go on with ``init_from``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from scene_track.models.heads.bbox import BoxHead


class DetregHead(BoxHead):
    """Boxes, and ``embedding`` as the extra output."""

    def __init__(self, *, embedding: Annotated[int, Field(ge=1)], **box: Any) -> None:
        """Build the head.

        Args:
            embedding: channels E of the backbone's levels that the criterion pools, together.
            **box: arguments of ``BoxHead``.
        """
        super().__init__(**box)
        dim = box["dim"]
        self.embed = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, embedding))

    def extras(self, hidden: Tensor) -> dict[str, Tensor]:
        """``embedding [B, T, Q, E]`` of the last layer."""
        return {"embedding": self.embed(hidden).float()}
