"""Layers of the identity head: how boxes lie to each other, a track's past, a frame's people.

All of them work on arrays too (``arrays.py``), but for ``newest`` and ``take`` of training.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.arrays import (
    OnArrays,
    at_least,
    at_most,
    attend,
    between,
    float32,
    joined,
    length,
    library,
    mean_there,
    softmax,
    stretched,
    unpadded,
)
from scene_track.models.motion_prior import SMALLEST, Offset

GEOMETRY = 9  # numbers of relative_geometry
NEVER = -1e4  # logit of what is not there


def relative_geometry(offset: Offset, seconds: Tensor) -> Tensor:
    """How boxes lie to reference boxes, in units of the reference: ``[..., 9]``.

    Args:
        offset: ``[..., 2]`` between their places.
        seconds: ``[...]`` time between them, >= 0, broadcastable.

    Returns:
        Shift of the centre in reference sizes (compressed, and clipped raw), log ratios of the
        sizes, IoU, log time and shift per time.
    """
    shift, ratio = offset
    lib, sizes = library(shift), library(shift).exp(ratio)
    # The IoU in the same units, where the reference is a unit square around 0.
    half = sizes / 2
    sides = at_least(at_most(shift + half, 0.5) - at_least(shift - half, -0.5), 0)
    common, area = sides[..., :1] * sides[..., 1:], sizes[..., :1] * sizes[..., 1:]
    wait = (1 + seconds * 20)[..., None]
    parts = (
        lib.copysign(lib.log1p(abs(shift)), shift),
        between(shift, -1, 1),
        between(ratio, -3, 3),
        common / (area + 1 - common),
        stretched(lib.log(wait), common),
        length(between(shift, -3, 3))[..., None] / wait,
    )
    return lib.concatenate(parts, -1)


def newest(present: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The newest tokens at each moment.

    Args:
        present: ``[S, T]`` bool.
        count: K, how many.

    Returns:
        ``[S, T, K]`` moments of the K newest present tokens up to each moment, itself included,
        newest first, and bool whether there are that many.
    """
    s, t = present.shape
    rank = present.long().cumsum(-1)
    order = rank.new_zeros(s, t + 1)  # moment of the r-th present token; what is absent goes to 0
    moments = torch.arange(t, device=present.device).expand(s, t)
    order.scatter_(1, torch.where(present, rank, 0), moments)
    wanted = rank.unsqueeze(-1) - torch.arange(count, device=present.device)
    past = order.gather(1, wanted.clamp(min=0).flatten(1)).view(s, t, count)
    return past, wanted >= 1


def take(values: Tensor, past: Tensor) -> Tensor:
    """``values [S, T, ...]`` at the moments ``past [S, T, K]``: ``[S, T, K, ...]``."""
    s, t = values.shape[:2]
    rows = past + t * torch.arange(s, device=past.device).view(s, 1, 1)
    # The backward pass of an embedding adds whole rows; that of fancy indexing takes ten times it.
    # Written out: where there is no track there is no -1 to infer.
    flat = F.embedding(rows, values.reshape(s * t, math.prod(values.shape[2:])))
    return flat.view(*past.shape, *values.shape[2:])


def _feed(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
    )


class TrackEncoderLayer(OnArrays):
    """Attention of a track's token to the newest tokens of its past."""

    def __init__(self, dim: int, heads: int, relation: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.bias = nn.Linear(relation, heads)
        self.project = nn.Linear(dim, dim)
        self.relation_value = nn.Linear(heads * relation, dim)
        self.feed = _feed(dim)

    @property
    def _query_key_value(self) -> Any:
        return joined(self.query, self.key_value)

    def looks(self, x: Tensor) -> Tensor:
        """What tokens ``x [..., D]`` ask for and what later ones look at: ``[..., 3 D]``."""
        return self._query_key_value(self.norm(x))

    def forward(
        self, x: Tensor, query: Tensor, past: Tensor, relation: Tensor, bias: Tensor
    ) -> Tensor:
        """Look back.

        Args:
            x: ``[..., D]`` the tokens.
            query: ``[..., D]`` what they ask for.
            past: ``[..., K, 2 D]`` what they look at.
            relation: ``[..., K, R]`` how they lie to it.
            bias: ``[..., H, K]`` of the logits.
        """
        *shape, dim = x.shape
        k, h = past.shape[-2], self.heads
        query = query.reshape(*shape, h, 1, dim // h)
        both = past.reshape(*shape, k, 2, h, dim // h)
        key, value = (both[..., part, :, :].swapaxes(-3, -2) for part in (0, 1))
        logits = float32(query @ key.swapaxes(-1, -2))[..., 0, :] * (dim // h) ** -0.5
        weights = softmax(logits + bias)
        content = (weights[..., None, :] @ value).reshape(*shape, dim)
        near = (weights @ relation).reshape(*shape, h * relation.shape[-1])
        x = x + self.project(content) + self.relation_value(near)
        return x + self.feed(x)


class Interaction(OnArrays):
    """Attention of all tracks and detections of one frame to each other, the nearer the more."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Linear(7, dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        # Logits lost per mean object size of distance, one figure per head: some look far.
        self.log_distance = nn.Parameter(torch.linspace(-3.0, 0.0, heads))
        self.project = nn.Linear(dim, dim)
        self.feed = _feed(dim)

    @property
    def nearer(self) -> Tensor:
        """``[H, 1, 1]`` what is added to the logits per mean object size of distance."""
        return -library(self.log_distance).exp(self.log_distance)[:, None, None]

    def forward(self, x: Tensor, places: Tensor, gap: Tensor, there: Tensor) -> Tensor:
        """Let everybody look at everybody.

        Args:
            x: ``[..., E, D]`` tracks and detections.
            places: ``[..., E, 4]`` of expected or seen boxes, see ``places_of``.
            gap: ``[..., E]`` s since a track was seen; -1 = a detection.
            there: ``[..., E]`` bool, False = padding.
        """
        *shape, e, dim = x.shape
        lib = library(places)
        mean = mean_there(lib.concatenate((places[..., :2], lib.exp(places[..., 2:])), -1), there)
        size = at_least(mean[..., 2:], SMALLEST)
        center = between((places[..., :2] - mean[..., :2]) / size, -20, 20)
        place = (
            center / 4,
            between(places[..., 2:] - lib.log(size), -3, 3),
            at_least(gap, 0)[..., None],
            (gap < 0)[..., None],
            places[..., 3:] / 4,
        )
        x = x + self.place(lib.concatenate(place, -1))
        qkv = self.qkv(self.norm(x)).reshape(*shape, e, 3, self.heads, dim // self.heads)
        q, k, v = (qkv[..., part, :, :].swapaxes(-3, -2) for part in range(3))
        # Two differences, not cdist: its gradient is not defined where two boxes are the same.
        apart = abs(center[..., None, :] - center[..., None, :, :])
        apart = (apart[..., 0] + apart[..., 1])[..., None, :, :]
        bias = unpadded(self.nearer * apart, there, -1, NEVER)
        looked = attend(q, k, v, bias).swapaxes(-3, -2).reshape(*shape, e, dim)
        x = x + self.project(looked)
        return x + self.feed(x)
