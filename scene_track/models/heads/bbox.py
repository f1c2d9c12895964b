"""Boxes: a class, an existence probability and the decoder's box for each query.

Class logits are trained by focal loss, which ranks well and is not calibrated; existence is trained
by plain cross-entropy, so that 0.5 means what it says and a tracker's threshold can be stated once.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from scene_track.models.heads.base import SceneHead
from scene_track.models.predictions import LayerPredictions


class BoxHead(SceneHead):
    """Class and existence per query and layer."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)],
        num_layers: Annotated[int, Field(ge=1)],
        num_classes: Annotated[int, Field(ge=1)],
    ) -> None:
        """Build the head, a read-out per decoder layer. Options: see ``conf/head/bbox.yaml``."""
        super().__init__()
        self.num_classes = num_classes
        self.classify = nn.ModuleList(nn.Linear(dim, num_classes) for _ in range(num_layers))
        self.exist = nn.ModuleList(nn.Linear(dim, 1) for _ in range(num_layers))
        for linear in self.classify:
            assert isinstance(linear, nn.Linear)
            nn.init.constant_(linear.bias, -math.log(99.0))
        for linear in self.exist:
            assert isinstance(linear, nn.Linear)
            nn.init.constant_(linear.bias, -1.0)

    def forward(self, hidden: Tensor, boxes: Tensor, layer: int) -> LayerPredictions:
        """See ``SceneHead.forward``."""
        return LayerPredictions(
            cls_logits=self.classify[layer](hidden).float(),
            exist_logits=self.exist[layer](hidden).float(),
            boxes=boxes,
        )
