"""The recurrent temporal-deformable decoder.

Frame after frame: queries start from the frame's proposals, mixed with what the queries of the
previous frame came to know, then pass L layers of self-attention (under the denoising mask),
temporal-deformable cross-attention and a feed-forward net; each layer moves its anchor boxes
(iterative refinement, Deformable DETR section 4, in logit space with detached references).

The mix is softmax-convex: every query distributes a weight of one over the previous queries and a
learned one, so a query that continues a dancer takes over that dancer's state and one born on a
newcomer takes over nothing. With ``recurrent=false`` frames do not see each other here and are
decoded in one parallel pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.attention import attend
from scene_track.models.deformable import TemporalDeformableAttention
from scene_track.models.positional import sincos
from scene_track.models.predictions import DenoisingQueries
from scene_track.models.proposals import (
    ScoreEmbedding,
    SelectedProposals,
    box_logits,
    sample_at,
)


@dataclass
class QueryState:
    """What one frame hands to the next.

    Attributes:
        content: ``[B, Q, D]`` last decoder states.
        boxes: ``[B, Q, 4]`` their boxes.
    """

    content: Tensor
    boxes: Tensor

    def detach(self) -> QueryState:
        """The same state without its graph."""
        return QueryState(content=self.content.detach(), boxes=self.boxes.detach())


@dataclass
class DecodedFrames:
    """Decoder output for N frames, per layer.

    Attributes:
        hidden: L tensors ``[N, K + Q, D]``, denoising slots first.
        boxes: L tensors ``[N, K + Q, 4]`` cxcywh.
    """

    hidden: list[Tensor]
    boxes: list[Tensor]


class QueryMix(nn.Module):
    """What a frame's queries take over from the previous frame's.

    Each query distributes a weight of one over the previous queries and a learned one ("nobody was
    here"), by content and by the distance of the boxes. The mix is *added* to what the query knows
    from its own frame: where it took its place, the model learned within minutes to keep it out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.norm_previous = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.learned = nn.Parameter(torch.zeros(dim))
        self.learned_logit = nn.Parameter(torch.tensor(0.0))
        self.distance = nn.Parameter(torch.tensor(4.0))
        self.project = nn.Linear(dim, dim)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, content: Tensor, boxes: Tensor, previous: QueryState) -> Tensor:
        """``content [B, Q, D]`` at ``boxes [B, Q, 4]``, with its share of ``previous`` added."""
        past = self.norm_previous(previous.content)
        query = self.query(self.norm(content))
        logits = (query @ self.key(past).transpose(1, 2)).float() / math.sqrt(content.shape[-1])
        gap = boxes[:, :, None, :2] - previous.boxes[:, None, :, :2]
        reach = (boxes[:, :, None, 2:] + previous.boxes[:, None, :, 2:]) / 2
        distance = (gap / reach.clamp(min=1e-3)).square().sum(-1).clamp(max=25.0)
        logits = logits - self.distance.clamp(min=0) * distance
        nobody = self.learned_logit.expand(*logits.shape[:2], 1)
        weights = torch.cat((nobody, logits), dim=-1).softmax(-1)
        mix = weights[..., :1] * self.learned + weights[..., 1:] @ past.float()
        return content + self.project(mix)


class DecoderLayer(nn.Module):
    """Self-attention, temporal-deformable cross-attention, feed-forward; pre-norm."""

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        points: int,
        radius: int,
        decay: float,
        fps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_self = nn.LayerNorm(dim)
        self.query_key = nn.Linear(dim, 2 * dim)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.norm_cross = nn.LayerNorm(dim)
        self.cross = TemporalDeformableAttention(
            dim=dim, heads=heads, points=points, radius=radius, decay=decay, fps=fps
        )
        self.norm_feed = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        values: Tensor,
        seconds: Tensor | None,
        present: Tensor | None,
        allowed: Tensor | None,
    ) -> Tensor:
        """One layer over ``x [N, L, D]``; ``allowed [N, 1, L, L]`` bool, True = may attend."""
        n, length, dim = x.shape
        normed = self.norm_self(x)
        q, k = self.query_key(normed + position).chunk(2, dim=-1)
        v = self.value(normed)
        q, k, v = (
            y.view(n, length, self.heads, dim // self.heads).transpose(1, 2) for y in (q, k, v)
        )
        attended = attend(q, k, v, allowed, self.dropout if self.training else 0.0)
        x = x + self.drop(self.project(attended.transpose(1, 2).reshape(n, length, dim)))
        sampled = self.cross(self.norm_cross(x) + position, boxes, values, seconds, present)
        x = x + self.drop(sampled)
        return x + self.drop(self.feed(self.norm_feed(x)))


class SceneDecoder(nn.Module):
    """Recurrent temporal-deformable decoder over the frames of a clip."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=16)],
        num_layers: Annotated[int, Field(ge=1)],
        num_queries: Annotated[int, Field(ge=1)],
        heads: Annotated[int, Field(ge=1)],
        points: Annotated[int, Field(ge=1)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        temporal_radius: Annotated[int, Field(ge=0)],
        temporal_decay: Annotated[float, Field(ge=0)],
        fps: Annotated[float, Field(gt=0)],
        recurrent: bool,
        tbptt_detach: bool,
    ) -> None:
        """Build the decoder. Options: see ``model.decoder`` in ``conf/model/scene.yaml``.

        Raises:
            ValueError: ``dim`` is no multiple of ``heads``.
        """
        super().__init__()
        if dim % heads:
            raise ValueError(f"model.dim={dim} must be a multiple of model.decoder.heads={heads}")
        self.dim, self.num_layers, self.num_queries = dim, num_layers, num_queries
        self.radius, self.recurrent, self.tbptt_detach = temporal_radius, recurrent, tbptt_detach
        self.value = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(num_layers))
        self.learned = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.learned, std=0.02)
        self.content = nn.Linear(dim, dim)
        self.score = ScoreEmbedding(dim)
        self.position = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.mix = QueryMix(dim) if recurrent else None
        self.layers = nn.ModuleList(
            DecoderLayer(
                dim=dim,
                heads=heads,
                points=points,
                radius=temporal_radius,
                decay=temporal_decay,
                fps=fps,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers))
        self.bbox_delta = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 4))
            for _ in range(num_layers)
        )
        for delta in self.bbox_delta:
            # Refinement starts as the identity: the first answer is the anchor itself.
            assert isinstance(delta, nn.Sequential)
            last = delta[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        features: Tensor,
        proposals: SelectedProposals,
        z: Tensor,
        seconds: Tensor,
        present: Tensor,
        denoising: DenoisingQueries | None = None,
        state: QueryState | None = None,
    ) -> tuple[DecodedFrames, QueryState | None]:
        """Decode B clips of T frames.

        Args:
            features: ``[B, T, D, h, w]`` with positions added.
            proposals: of the B x T frames.
            z: ``[B, T, D]`` clip context added to every query of a frame.
            seconds: ``[B, T]`` time of each frame.
            present: ``[B, T]`` bool, False = padding frame.
            denoising: noised ground truth of the B x T frames.
            state: the last frame before this clip, when a video is streamed.

        Returns:
            Output of the B x T frames, and the state after the last frame (None if not recurrent).
        """
        b, t = features.shape[:2]
        flat = features.flatten(0, 1)
        values = [value(flat).unflatten(0, (b, t)) for value in self.value]
        own = sample_at(flat, proposals.boxes[..., :2])
        content = self.content(own) + self.score(proposals.logits) + self.learned
        content = content + z.flatten(0, 1).unsqueeze(1)
        allowed = self._allowed(denoising)
        neighbours = self._neighbours(seconds, present)
        if self.mix is None:
            frames = self._decode(
                content, proposals.boxes, [self._stack(v, neighbours) for v in values],
                neighbours.seconds, neighbours.present, denoising, allowed, slice(None),
            )  # fmt: skip
            return frames, None

        def by_frame(x: Tensor) -> tuple[Tensor, ...]:
            # All at once: the gradient of an index is as large as what it is an index of.
            return x.unflatten(0, (b, t)).unbind(1)

        contents, boxes = by_frame(content), by_frame(proposals.boxes)
        stacked = list(zip(*(by_frame(self._stack(v, neighbours)) for v in values), strict=True))
        gaps, exist = by_frame(neighbours.seconds), by_frame(neighbours.present)
        masks = (None,) * t if allowed is None else by_frame(allowed)
        steps: list[DecodedFrames] = []
        for step, start in enumerate(contents):
            if state is not None:
                start = self.mix(start, boxes[step], state)
            decoded = self._decode(
                start,
                boxes[step],
                stacked[step],
                gaps[step],
                exist[step],
                denoising,
                masks[step],
                slice(step, None, t),
            )
            hidden = decoded.hidden[-1][:, -self.num_queries :]
            new = QueryState(
                content=(hidden.detach() if self.tbptt_detach else hidden).float(),
                boxes=decoded.boxes[-1][:, -self.num_queries :].detach(),
            )
            state = new if state is None else _keep_padding(new, state, present[:, step])
            steps.append(decoded)
        hidden = [
            torch.stack([s.hidden[i] for s in steps], dim=1).flatten(0, 1)
            for i in range(self.num_layers)
        ]
        refined = [
            torch.stack([s.boxes[i] for s in steps], dim=1).flatten(0, 1)
            for i in range(self.num_layers)
        ]
        return DecodedFrames(hidden=hidden, boxes=refined), state

    def _decode(
        self,
        content: Tensor,
        boxes: Tensor,
        values: Sequence[Tensor],
        seconds: Tensor,
        present: Tensor,
        denoising: DenoisingQueries | None,
        allowed: Tensor | None,
        frames: slice,
    ) -> DecodedFrames:
        """The L layers over N frames; ``frames`` picks them out of the denoising queries."""
        reference = box_logits(boxes)
        if denoising is not None:
            content = torch.cat((denoising.content[frames].to(content.dtype), content), dim=1)
            reference = torch.cat((denoising.boxes[frames].to(reference.dtype), reference), dim=1)
        decoded = DecodedFrames(hidden=[], boxes=[])
        for layer, norm, delta, value in zip(
            self.layers, self.norms, self.bbox_delta, values, strict=True
        ):
            anchors = reference.sigmoid()
            position = self.position(sincos(anchors, self.dim // 2))
            content = layer(content, position, anchors, value, seconds, present, allowed)
            hidden = norm(content)
            refined = reference + delta(hidden).float()
            box = refined.sigmoid()
            decoded.hidden.append(hidden)
            decoded.boxes.append(torch.cat((box[..., :2], box[..., 2:].clamp(min=1e-3)), dim=-1))
            reference = refined.detach()
        return decoded

    def _allowed(self, denoising: DenoisingQueries | None) -> Tensor | None:
        """``[N, 1, L, L]`` bool: who may attend to whom."""
        if denoising is None:
            return None
        length = denoising.attention_mask.shape[0]
        keys = F.pad(denoising.valid, (0, self.num_queries), value=True)
        allowed = ~denoising.attention_mask & keys[:, None, :]
        # A padding slot sees itself, so that no row of the softmax is empty.
        itself = torch.eye(length, dtype=torch.bool, device=allowed.device)
        return (allowed | itself).unsqueeze(1)

    @dataclass
    class _Neighbours:
        index: Tensor  # [T, R] frame to read
        seconds: Tensor  # [B * T, R]
        present: Tensor  # [B * T, R]

    def _neighbours(self, seconds: Tensor, present: Tensor) -> _Neighbours:
        """Which frames each frame's cross-attention reads."""
        t = seconds.shape[1]
        shift = torch.arange(-self.radius, self.radius + 1, device=seconds.device)
        wanted = torch.arange(t, device=seconds.device)[:, None] + shift
        index = wanted.clamp(0, t - 1)
        relative = seconds[:, index] - seconds[:, :, None]
        exists = present[:, index] & (wanted == index)
        # The frame itself is always there, also where it is padding: no row may be empty.
        exists = exists | (shift == 0)
        return self._Neighbours(index, relative.flatten(0, 1), exists.flatten(0, 1))

    def _stack(self, values: Tensor, neighbours: _Neighbours) -> Tensor:
        """``[B, T, D, h, w]`` to ``[B * T, R, D, h, w]``."""
        if self.radius == 0:
            return values.flatten(0, 1).unsqueeze(1)
        return values[:, neighbours.index].flatten(0, 1)


def _keep_padding(new: QueryState, old: QueryState, present: Tensor) -> QueryState:
    """A padding frame hands on the state it was given."""
    keep = present.view(-1, 1, 1)
    return QueryState(
        content=torch.where(keep, new.content, old.content),
        boxes=torch.where(keep, new.boxes, old.boxes),
    )
