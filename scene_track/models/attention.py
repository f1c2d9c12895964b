"""Scaled dot-product attention that is fast on both kinds of machine.

PyTorch's fused kernel is the choice everywhere but in half precision on a CPU, where its backward
pass takes three times as long as two plain matrix products (112 tokens, 4 heads of 32, bf16: 5.7 ms
against 1.9 ms).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Attention of ``q [N, heads, L, d]`` over ``k, v [N, heads, S, d]``.

    Args:
        q: queries.
        k: keys.
        v: values.
        allowed: bool, broadcastable to ``[N, heads, L, S]``, True = may attend; no row may be
            empty.
        dropout: probability of dropping a weight.

    Returns:
        ``[N, heads, L, d]``.
    """
    half = q.dtype in (torch.bfloat16, torch.float16)
    if q.device.type != "cpu" or not half:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf"))
    weights = logits.float().softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights.to(v.dtype) @ v
