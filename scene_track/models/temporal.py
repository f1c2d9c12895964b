"""Self-attention over time on the backbone's global token, the same offline and frame by frame.

Attention is causal and banded: a frame sees itself and the ``history - 1`` frames before it. Each
layer caches the (already turned) keys and values of those frames, so a video fed in chunks of any
size gives what one pass over the whole gives: the model that is validated streaming is the model
that was trained on clips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from scene_track.models.positional import RotaryEmbedding1d


@dataclass
class TemporalState:
    """What a stream remembers between chunks: the last S <= ``history - 1`` frames.

    Attributes:
        keys: one ``[B, heads, S, dim / heads]`` per layer, turned by their positions.
        values: one ``[B, heads, S, dim / heads]`` per layer.
        padding_mask: ``[B, S]`` bool, True = that frame was padding.
    """

    keys: list[Tensor]
    values: list[Tensor]
    padding_mask: Tensor

    def detach(self) -> TemporalState:
        """The same state without its graph (cuts back-propagation through time)."""
        return replace(
            self,
            keys=[key.detach() for key in self.keys],
            values=[value.detach() for value in self.values],
        )


class TemporalBlock(nn.Module):
    """One pre-norm transformer layer over time: causal banded attention, then an MLP."""

    def __init__(self, dim: int, heads: int, dropout: float, mlp_ratio: float, base: float) -> None:
        """Build the layer; arguments as in ``TemporalEncoder``."""
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.rotary = RotaryEmbedding1d(dim // heads, base)
        self.out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, positions: Tensor, allowed: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer.

        Args:
            x: ``[B, T, D]``.
            positions: ``[B, T]``.
            allowed: ``[B, 1, T, S + T]`` bool, True = may look.
            past: keys and values ``[B, heads, S, D / heads]`` of the S frames before.

        Returns:
            ``x``, and the keys and values of all S + T frames.
        """
        qkv = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = self.rotary(query, positions), self.rotary(key, positions)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, dropout_p=self.dropout if self.training else 0.0
        )
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.drop(self.mlp(self.norm_mlp(x))), key, value


class TemporalEncoder(nn.Module):
    """Turns the global token of each frame into a summary of the recent past, z."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=2)],
        input_dim: Annotated[int, Field(ge=1)],
        depth: Annotated[int, Field(ge=0)],
        heads: Annotated[int, Field(ge=1)],
        history: Annotated[int, Field(ge=1)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        mlp_ratio: Annotated[float, Field(gt=0)],
        rope_base: Annotated[float, Field(gt=1)],
    ) -> None:
        """Build the encoder. Options: see ``model.temporal_encoder`` in ``conf/model/scene.yaml``.

        ``input_dim`` is the channels of the backbone's global token. Through ``depth`` layers the
        past reaches ``depth * (history - 1)`` frames back.

        Raises:
            ValueError: ``dim`` is no multiple of ``2 * heads``.
        """
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(
                f"temporal encoder: dim must be a multiple of 2 x heads = {2 * heads}, not {dim}"
            )
        self.history = history
        self.project = nn.Linear(input_dim, dim)
        self.blocks = nn.ModuleList(
            TemporalBlock(dim, heads, dropout, mlp_ratio, rope_base) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        cls: Tensor,
        positions: Tensor,
        padding_mask: Tensor | None = None,
        state: TemporalState | None = None,
    ) -> tuple[Tensor, TemporalState]:
        """Encode one clip, or the next chunk of a stream.

        Args:
            cls: ``[B, T, C_cls]`` global tokens, T >= 1.
            positions: ``[B, T]`` frame numbers (or seconds times a fixed rate); gaps allowed, only
                differences matter. The band counts frames as they are given, not positions.
            padding_mask: ``[B, T]`` bool, True = padding: seen by nobody, and z is 0 there.
            state: what the previous chunk returned; ``None`` at the start of a video.

        Returns:
            z ``[B, T, D]`` and the state for the next chunk. The state carries its graph: see
            ``TemporalState.detach``.

        Raises:
            ValueError: the state belongs to another batch size.
        """
        batch, length = cls.shape[:2]
        if padding_mask is None:
            padding_mask = torch.zeros(batch, length, dtype=torch.bool, device=cls.device)
        if state is not None and state.padding_mask.shape[0] != batch:
            raise ValueError(
                f"the temporal state holds {state.padding_mask.shape[0]} streams, the chunk"
                f" {batch}: start each video with state=None"
            )
        seen = (
            padding_mask if state is None else torch.cat((state.padding_mask, padding_mask), dim=1)
        )
        allowed = self._allowed(seen, length)
        hidden = padding_mask[..., None]
        # whatever a padding frame holds (NaN included) must not reach anything: 0 * NaN is NaN
        x = self.project(cls.masked_fill(hidden, 0.0))
        kept = min(self.history - 1, seen.shape[1])
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            past = None if state is None else (state.keys[index], state.values[index])
            x, key, value = block(x, positions, allowed, past)
            keys.append(key[:, :, key.shape[2] - kept :])
            values.append(value[:, :, value.shape[2] - kept :])
        z = self.norm(x).masked_fill(hidden, 0.0)
        return z, TemporalState(keys, values, seen[:, seen.shape[1] - kept :])

    def _allowed(self, seen: Tensor, length: int) -> Tensor:
        """``[B, 1, T, S + T]`` bool, True = may look: the causal band without padding."""
        total = seen.shape[1]
        frame = torch.arange(total, device=seen.device)
        distance = frame[total - length :, None] - frame
        band = (distance >= 0) & (distance < self.history)
        # a padding frame looks at itself: a row without any key would be NaN
        return ((band & ~seen[:, None]) | (distance == 0))[:, None]
