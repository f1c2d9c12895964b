"""Identity by pointing: who of the tracks in memory is this detection, or is it new?

Each track's past detections are encoded causally, with their relative geometry in the attention
bias *and* in the values, so that the last state knows the motion. A small MLP then scores every
detection against every track's last state: from both contents, from where the detection lies
relative to the last box and to the box the track is expected to have by now, and from an appearance
dot product. A softmax over the tracks and "new" gives the answer; cross-entropy trains it over all
frames of a clip at once.

Pointing does not depend on how identities are named, so there is no vocabulary to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.boxes import elementwise_iou

_GEOMETRY = 9


def relative_geometry(boxes: Tensor, reference: Tensor, seconds: Tensor) -> Tensor:
    """How ``boxes`` lie to ``reference``, in units of the reference: ``[..., 9]``.

    Args:
        boxes: ``[..., 4]`` cxcywh.
        reference: ``[..., 4]`` cxcywh.
        seconds: ``[...]`` time between them.

    Returns:
        Shift of the centre in reference sizes (compressed, and clipped raw), log ratios of the
        sizes, IoU, log time and shift per time.
    """
    size = reference[..., 2:].clamp(min=1e-3)
    shift = (boxes[..., :2] - reference[..., :2]) / size
    ratio = (boxes[..., 2:].clamp(min=1e-3) / size).log().clamp(-3, 3)
    compressed = shift.sign() * shift.abs().log1p()
    iou = elementwise_iou(boxes, reference)
    time = (seconds.abs() * 20).log1p()
    speed = (shift.clamp(-3, 3) / (1 + seconds.abs() * 20).unsqueeze(-1)).clamp(-3, 3)
    return torch.cat(
        (compressed, shift.clamp(-1, 1), ratio, iou.unsqueeze(-1), time.unsqueeze(-1),
         speed.norm(dim=-1, keepdim=True)),
        dim=-1,
    )  # fmt: skip


class TrackEncoderLayer(nn.Module):
    """Causal self-attention of one track over its own past."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.geometry = nn.Sequential(nn.Linear(_GEOMETRY, dim), nn.GELU())
        self.bias = nn.Linear(dim, heads)
        self.geometry_value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, x: Tensor, geometry: Tensor, allowed: Tensor) -> Tensor:
        """``x [S, T, D]``, ``geometry [S, T, T, 9]``, ``allowed [S, T, T]`` (True = may see)."""
        s, t, dim = x.shape
        part = dim // self.heads  # written out: without a track there is no -1 to infer
        q, k, v = self.qkv(self.norm(x)).view(s, t, 3, self.heads, part).permute(2, 0, 3, 1, 4)
        relation = self.geometry(geometry)
        logits = (q @ k.transpose(-1, -2)).float() * part**-0.5
        logits = logits + self.bias(relation).permute(0, 3, 1, 2)
        logits = logits.masked_fill(~allowed.unsqueeze(1), -1e4)
        weights = logits.softmax(-1).to(v.dtype)
        value = self.geometry_value(relation).view(s, t, t, self.heads, part).permute(0, 3, 1, 2, 4)
        attended = weights @ v + (weights.unsqueeze(-2) @ value.to(v.dtype)).squeeze(-2)
        x = x + self.project(attended.transpose(1, 2).reshape(s, t, dim))
        return x + self.feed(x)


@dataclass
class TrackMemory:
    """The last state of J tracks, at some moment.

    Attributes:
        state: ``[..., J, D]`` encoded last token.
        box: ``[..., J, 4]`` last box, cxcywh.
        seconds: ``[..., J]`` when that was.
        exists: ``[..., J]`` bool, False = no such track yet.
    """

    state: Tensor
    box: Tensor
    seconds: Tensor
    exists: Tensor


class PointerIdentity(nn.Module):
    """Scores detections against tracks."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)],
        width: Annotated[int, Field(ge=16)],
        heads: Annotated[int, Field(ge=1)],
        depth: Annotated[int, Field(ge=1)],
        appearance: Annotated[int, Field(ge=0)],
        content: bool,
        history: Annotated[int, Field(ge=1)],
        detach: bool,
    ) -> None:
        """Build the head.

        Args:
            dim: width D of the decoder states.
            width: width of the identity tokens.
            heads: attention heads of the track encoder.
            depth: layers of the track encoder.
            appearance: channels of the appearance dot product; 0 leaves it out.
            content: tokens say what the decoder saw; False leaves only boxes and times: tracking
                by learned motion alone.
            history: tokens of a track that are encoded when streaming, the newest ones.
            detach: keep the identity loss out of the detector.

        Raises:
            ValueError: ``width`` is no multiple of ``heads``.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"model.identity.width={width} must be a multiple of heads={heads}")
        self.history, self.detach, self.appearance = history, detach, appearance
        # Stands for "a box was here, its looks are unknown".
        self.blank = nn.Parameter(torch.zeros(width))
        self.token = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width)) if content else None
        self.layers = nn.ModuleList(TrackEncoderLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        # Expected motion in box sizes per second, read off the encoded track.
        self.velocity = nn.Linear(width, 4)
        nn.init.zeros_(self.velocity.weight)
        nn.init.zeros_(self.velocity.bias)
        self.track_side = nn.Linear(width, width)
        self.detection_side = nn.Linear(width, width)
        self.relation = nn.Sequential(
            nn.Linear(2 * _GEOMETRY, width), nn.GELU(), nn.Linear(width, width)
        )
        self.score = nn.Sequential(
            nn.GELU(), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1)
        )
        self.new = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
        if appearance:
            self.track_look = nn.Linear(width, appearance)
            self.detection_look = nn.Linear(width, appearance)
            self.look_scale = nn.Parameter(torch.tensor(1.0))

    def tokens(self, states: Tensor) -> Tensor:
        """Decoder states ``[..., D]`` to identity tokens ``[..., width]``."""
        if self.token is None:
            return self.blank.expand(*states.shape[:-1], -1)
        return self.token(states.detach() if self.detach else states)

    def encode(self, tokens: Tensor, boxes: Tensor, seconds: Tensor, present: Tensor) -> Tensor:
        """Encode tracks causally.

        Args:
            tokens: ``[S, T, width]`` S tracks' tokens over T moments.
            boxes: ``[S, T, 4]``.
            seconds: ``[S, T]``.
            present: ``[S, T]`` bool, False = the track has no token then.

        Returns:
            ``[S, T, width]``; meaningful where ``present``.
        """
        t = tokens.shape[1]
        geometry = relative_geometry(
            boxes.unsqueeze(2).expand(-1, -1, t, -1),
            boxes.unsqueeze(1).expand(-1, t, -1, -1),
            seconds.unsqueeze(2) - seconds.unsqueeze(1),
        )
        causal = torch.ones(t, t, dtype=torch.bool, device=tokens.device).tril()
        itself = torch.eye(t, dtype=torch.bool, device=tokens.device)
        allowed = (causal & present.unsqueeze(1)) | itself
        x = tokens
        for layer in self.layers:
            x = layer(x, geometry, allowed)
        return self.norm(x)

    def expected(self, memory: TrackMemory, seconds: Tensor) -> Tensor:
        """The boxes ``[..., J, 4]`` that the tracks should have at ``seconds [..., 1 or J]``."""
        gap = (seconds - memory.seconds).unsqueeze(-1).clamp(-2, 2)
        motion = self.velocity(memory.state).float() * gap
        size = memory.box[..., 2:].clamp(min=1e-3)
        center = memory.box[..., :2] + motion[..., :2] * size
        return torch.cat((center, size * motion[..., 2:].clamp(-1, 1).exp()), dim=-1)

    def forward(
        self, tokens: Tensor, boxes: Tensor, seconds: Tensor, memory: TrackMemory
    ) -> Tensor:
        """Point from detections to tracks.

        Args:
            tokens: ``[..., N, width]`` identity tokens of the detections of one moment.
            boxes: ``[..., N, 4]``.
            seconds: ``[..., 1]`` that moment.
            memory: J tracks per moment.

        Returns:
            ``[..., N, J + 1]`` logits; the last column is "new", absent tracks are very unlikely.
        """
        expected = self.expected(memory, seconds)
        gap = (seconds - memory.seconds).unsqueeze(-2).expand(*boxes.shape[:-1], -1)
        shape = (*boxes.shape[:-1], memory.box.shape[-2], 4)
        each = boxes.unsqueeze(-2).expand(shape)
        relation = torch.cat(
            (
                relative_geometry(each, memory.box.unsqueeze(-3).expand(shape), gap),
                relative_geometry(each, expected.unsqueeze(-3).expand(shape), gap),
            ),
            dim=-1,
        )
        joint = (
            self.relation(relation)
            + self.track_side(memory.state).unsqueeze(-3)
            + self.detection_side(tokens).unsqueeze(-2)
        )
        logits = self.score(joint).squeeze(-1).float()
        if self.appearance:
            look = F.normalize(self.detection_look(tokens).float(), dim=-1)
            known = F.normalize(self.track_look(memory.state).float(), dim=-1)
            logits = logits + 5 * self.look_scale * (look @ known.transpose(-1, -2))
        logits = logits.masked_fill(~memory.exists.unsqueeze(-2), -1e4)
        return torch.cat((logits, self.new(tokens).float()), dim=-1)
