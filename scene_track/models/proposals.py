"""Dense per-cell proposals and the choice of a few of them as the decoder's first anchors.

Every cell says how much it is the centre of an object (heat) and which box it would propose. The
hottest cells, thinned by box NMS, become queries (mixed query selection, DINO, ICLR 2023). Two
things are special:

* NMS runs on *boxes*, not on heat peaks: a 3x3 peak test starves people who stand behind one
  another.
* The query carries an embedding of its proposal's score. Once dense boxes are exact, neighbouring
  cells propose the same box, and queries of equal content and position cannot be told apart: the
  class score settles in between for all of them and detection gets *worse* with training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.boxes import inverse_sigmoid, nms_keep
from scene_track.models.sampling import sample_bilinear


def sample_at(features: Tensor, points: Tensor) -> Tensor:
    """Bilinear features ``[N, Q, D]`` of ``[N, D, h, w]`` at points ``[N, Q, 2]`` (x, y)."""
    sampled = sample_bilinear(features.float(), points.float().unsqueeze(2))
    return sampled.squeeze(-1).transpose(1, 2)


@dataclass
class SelectedProposals:
    """The chosen proposals of N frames.

    Attributes:
        boxes: ``[N, Q, 4]`` cxcywh, detached.
        logits: ``[N, Q]`` heat logits of the best class, detached.
    """

    boxes: Tensor
    logits: Tensor


class DenseProposals(nn.Module):
    """Centre heat and box for each cell of the feature map (CenterNet, Zhou et al., 2019)."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)],
        num_classes: Annotated[int, Field(ge=1)],
        candidates: Annotated[int, Field(ge=1)],
        nms_iou: Annotated[float, Field(gt=0, le=1)],
    ) -> None:
        """Build the head. Options: see ``model.proposals`` in ``conf/model/scene.yaml``.

        A cooler candidate that overlaps a hotter one by more than ``nms_iou`` is taken only as a
        filler.
        """
        super().__init__()
        self.candidates, self.nms_iou = candidates, nms_iou
        self.trunk = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GELU())
        self.heat = nn.Conv2d(dim, num_classes, 1)
        self.box = nn.Conv2d(dim, 4, 1)
        # Focal prior: at the start one cell in a hundred is said to be an object (RetinaNet,
        # section 4.1).
        assert self.heat.bias is not None and self.box.bias is not None
        nn.init.constant_(self.heat.bias, -math.log(99.0))
        nn.init.zeros_(self.box.weight)
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor([0.0, 0.0, -2.5, -1.0]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, D, h, w]`` to heat logits ``[N, C, h, w]`` and cxcywh boxes ``[N, 4, h, w]``."""
        h, w = features.shape[-2:]
        trunk = self.trunk(features)
        heat = self.heat(trunk).float()
        raw = self.box(trunk).float()
        xs = (torch.arange(w, device=raw.device) + 0.5) / w
        ys = (torch.arange(h, device=raw.device) + 0.5) / h
        cx = xs.view(1, 1, w) + raw[:, 0] / w
        cy = ys.view(1, h, 1) + raw[:, 1] / h
        size = raw[:, 2:].sigmoid().clamp(min=1e-3)
        return heat, torch.cat((cx.unsqueeze(1), cy.unsqueeze(1), size), dim=1)

    @torch.no_grad()
    def select(self, heat: Tensor, boxes: Tensor, count: int) -> SelectedProposals:
        """The ``count`` best proposals of each frame after box NMS.

        Where NMS leaves fewer than ``count``, the hottest suppressed candidates fill up: their
        score embedding tells the decoder that they are second thoughts.
        """
        best = heat.amax(dim=1).flatten(1)  # [N, h * w]
        k = min(max(self.candidates, count), best.shape[1])
        logits, cells = best.topk(k, dim=1)
        candidates = boxes.flatten(2).transpose(1, 2)
        candidates = candidates.gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))
        kept = nms_keep(candidates, self.nms_iou)
        # Kept ones first, each group still by falling heat.
        rank = (~kept).long() * k + torch.arange(k, device=heat.device)
        order = rank.argsort(dim=1)[:, : min(count, k)]
        if k < count:  # a map with fewer cells than queries: repeat the last
            order = F.pad(order.float(), (0, count - k), mode="replicate").long()
        return SelectedProposals(
            boxes=candidates.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)),
            logits=logits.gather(1, order),
        )


class ScoreEmbedding(nn.Module):
    """A proposal's heat logit ``[N, Q]`` as ``[N, Q, D]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, logits: Tensor) -> Tensor:
        """Embed the logit, which resolves the tails, and its probability, the middle."""
        return self.mlp(torch.stack((logits / 4, logits.sigmoid()), dim=-1))


def box_logits(boxes: Tensor) -> Tensor:
    """Boxes in logit space, where refinement happens."""
    return inverse_sigmoid(boxes.clamp(0, 1), eps=1e-3)
