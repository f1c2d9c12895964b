"""Weights of the DINOv3 family that follow from their names, as the golden numbers were made."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from scene_track.models.backbones.dinov3.variants import Variant


def deterministic_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor, drawn by the key's own hash."""
    if key == "rope_embed.periods":
        return torch.tensor([100 ** (i / shape[0]) for i in range(shape[0])], dtype=torch.float32)
    if key.endswith("bias_mask"):
        query, key_third, value = torch.ones(shape).chunk(3)
        return torch.cat((query, 0 * key_third, value))
    key = key.replace("norms.3.", "norm.")  # one layer of the ConvNeXts under two names
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    if key.endswith("gamma"):
        x = 0.3 + 0.05 * x
    elif "norm" in key or key.startswith(("downsample_layers.0.1.",)) or len(shape) == 1:
        norm = key.endswith(".weight")
        x = 1 + 0.1 * x if norm else (0.1 if "norm" in key else 0.05) * x
    elif "token" in key:
        x = 0.5 * x
    elif key == "patch_embed.proj.weight":
        x = 0.04 * x
    else:
        x = 1.2 * x.astype(np.float64) / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x, np.float32))


def official_state(variant: Variant) -> dict[str, Tensor]:
    """A whole official state dict."""
    return {
        key: deterministic_value(key, shape) for key, shape in variant.official_shapes().items()
    }


def picture(height: int, width: int) -> Tensor:
    """A ``[1, 3, height, width]`` uint8 picture of noise, always the same."""
    values = np.random.default_rng(3).integers(0, 256, (1, 3, height, width), np.uint8)
    return torch.from_numpy(values)
