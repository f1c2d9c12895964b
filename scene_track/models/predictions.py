"""What flows out of the models room.

Shape vocabulary: B clips, T frames, Q queries, C classes, D width, K denoising slots, L decoder
layers, h w cells of the feature map. Boxes are cxcywh, 0-1 of the resized canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class DenoisingQueries:
    """Noised ground truth that enters the decoder beside the matching queries (made by a denoiser).

    Attributes:
        content: ``[N, K, D]`` label embeddings, N = B x T frames in order b * T + t.
        boxes: ``[N, K, 4]`` noised anchors as *logits* of cxcywh.
        valid: ``[N, K]`` bool, False = padding slot: blocked in attention and free of loss.
        attention_mask: ``[K + Q, K + Q]`` bool, True = blocked.
        target_index: ``[N, K]`` int64 index into the padded targets of the frame that the slot was
            made from.
        positive: ``[N, K]`` bool, True = reconstruct the box, False = be background.
    """

    content: Tensor
    boxes: Tensor
    valid: Tensor
    attention_mask: Tensor
    target_index: Tensor
    positive: Tensor


@dataclass
class LayerPredictions:
    """What one decoder layer says of its queries.

    Attributes:
        cls_logits: ``[B, T, Q, C]``.
        exist_logits: ``[B, T, Q, 1]``; their sigmoid is ``exist_conf``.
        boxes: ``[B, T, Q, 4]`` cxcywh in (0, 1), sizes >= 1e-3.
    """

    cls_logits: Tensor
    exist_logits: Tensor
    boxes: Tensor


@dataclass
class DensePredictions:
    """Per-cell proposals.

    Attributes:
        heat_logits: ``[B, T, C, h, w]`` centre heat.
        boxes: ``[B, T, 4, h, w]`` the box that each cell would propose.
    """

    heat_logits: Tensor
    boxes: Tensor


@dataclass
class ScenePredictions:
    """Everything a scene model says of a clip.

    Attributes:
        bbox_center: ``[B, T, Q, 2]``.
        bbox_size: ``[B, T, Q, 2]``, >= 1e-3.
        exist_conf: ``[B, T, Q, 1]`` probability that the query is an object.
        cls_logits: ``[B, T, Q, C]``.
        tokens: ``[B, T, Q, D]`` last decoder states (what identity reads).
        layers: the L decoder layers, last one last.
        dense: per-cell proposals.
        denoising: the L layers' answers on the denoising slots (Q = K), with their queries.
        extras: further outputs of the chosen head by name, each ``[B, T, Q, ...]``.
        levels: the backbone's maps ``[B * T, D_i, h_i, w_i]``, for a loss that looks at them.
    """

    bbox_center: Tensor
    bbox_size: Tensor
    exist_conf: Tensor
    cls_logits: Tensor
    tokens: Tensor
    layers: list[LayerPredictions]
    dense: DensePredictions
    denoising: list[LayerPredictions] = field(default_factory=list)
    denoising_queries: DenoisingQueries | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    levels: tuple[Tensor, ...] = ()

    @property
    def boxes(self) -> Tensor:
        """``[B, T, Q, 4]`` cxcywh."""
        return torch.cat((self.bbox_center, self.bbox_size), dim=-1)

    @classmethod
    def bare(
        cls, boxes: Tensor, exist_conf: Tensor, cls_logits: Tensor, tokens: Tensor, **extras: Tensor
    ) -> ScenePredictions:
        """Predictions without decoder layers and dense proposals; the arguments as above."""
        nothing = boxes.new_zeros(*boxes.shape[:2], 0, 0, 0)
        return cls(
            bbox_center=boxes[..., :2],
            bbox_size=boxes[..., 2:],
            exist_conf=exist_conf,
            cls_logits=cls_logits,
            tokens=tokens,
            layers=[],
            dense=DensePredictions(nothing, nothing),
            extras=extras,
        )


def join_in_time(parts: list[ScenePredictions]) -> ScenePredictions:
    """Predictions of consecutive stretches of a clip as those of the whole.

    What only trains the detector (earlier layers, denoising, levels) is left out.
    """

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat(values, dim=1)

    return ScenePredictions(
        bbox_center=joined([part.bbox_center for part in parts]),
        bbox_size=joined([part.bbox_size for part in parts]),
        exist_conf=joined([part.exist_conf for part in parts]),
        cls_logits=joined([part.cls_logits for part in parts]),
        tokens=joined([part.tokens for part in parts]),
        layers=[],
        dense=DensePredictions(
            heat_logits=joined([part.dense.heat_logits for part in parts]),
            boxes=joined([part.dense.boxes for part in parts]),
        ),
        extras={name: joined([part.extras[name] for part in parts]) for name in parts[0].extras},
    )


@dataclass
class HeatmapPredictions:
    """Everything a heatmap model says of a clip.

    Attributes:
        heatmap_logits: ``[B, T, 1, Hh, Wh]``; their sigmoid is the heat.
    """

    heatmap_logits: Tensor
