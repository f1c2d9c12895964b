"""Hugging Face's names for the tensors of DINOv3, and the way back to the official ones.

transformers ships no conversion, and on disk its names differ from those in memory: a file has
``layer.0...`` and ``stages.0...`` where the module has ``model.`` before it. Left out on that side
is what the official code stores but does not learn: the rotary periods, the key third of each
query-key-value bias and the mask that multiplies it by 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene_track.models.backbones.dinov3.variants import ConvNeXtVariant, Variant, VitVariant
from scene_track.models.weights import load_state_dict_file

ROPE_BASE = 100.0

_VIT_NAMES = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.proj": "embeddings.patch_embeddings",
    "norm": "norm",
}
_VIT_BLOCK = {
    "norm1": "norm1",
    "attn.proj": "attention.o_proj",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.up_proj",
    "mlp.w3": "mlp.down_proj",
    "ls2.gamma": "layer_scale2.lambda1",
}
_CONVNEXT_BLOCK = {
    "gamma": "gamma",
    "dwconv": "depthwise_conv",
    "norm": "layer_norm",
    "pwconv1": "pointwise_conv1",
    "pwconv2": "pointwise_conv2",
}
_QKV = ("q_proj", "k_proj", "v_proj")


def _renamed(key: str, table: Mapping[str, str]) -> str | None:
    for ours, theirs in table.items():
        if key == ours or key.startswith(f"{ours}."):
            return theirs + key[len(ours) :]
    return None


def name_of(key: str) -> str | None:
    """Hugging Face's name of an official key; None where it has none of its own."""
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
        name = _renamed(match[2], _VIT_BLOCK)
        return name and f"model.layer.{match[1]}.{name}"
    if match := re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", key):
        name = _renamed(match[3], _CONVNEXT_BLOCK)
        return name and f"model.stages.{match[1]}.layers.{match[2]}.{name}"
    if match := re.fullmatch(r"downsample_layers\.(\d+)\.(.+)", key):
        return f"model.stages.{match[1]}.downsample_layers.{match[2]}"
    return _renamed(key, _VIT_NAMES)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by official key to tensors by the names of Hugging Face's modules."""
    convnext = "downsample_layers.0.0.weight" in state
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        if convnext and key.startswith("norm."):
            result[f"layer_norm.{key[5:]}"] = value
        elif match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            for part, third in zip(_QKV, value.chunk(3), strict=True):
                if (part, match[2]) != ("k_proj", "bias"):
                    result[f"model.layer.{match[1]}.attention.{part}.{match[2]}"] = third
        elif (name := name_of(key)) is not None:
            result[name] = value
    return result


def to_official(
    state: Mapping[str, Tensor], variant: Variant, source: str | Path
) -> dict[str, Tensor]:
    """The way back; what Hugging Face does not store is filled in with the constants it stands for.

    Args:
        state: tensors by the names of a file or a module of Hugging Face.
        variant: the size that is expected.
        source: where the tensors come from, for the error.

    Raises:
        ValueError: tensors that have no place in this size, or fewer than it needs.
    """
    given = {re.sub(r"^(layer|stages)\.", r"model.\1.", key): value for key, value in state.items()}
    shapes = variant.official_shapes()
    names: dict[str, str] = {}
    for key in shapes:
        if isinstance(variant, ConvNeXtVariant) and key.startswith(("norm.", "norms.3.")):
            names[key] = f"layer_norm.{key.rpartition('.')[2]}"
        elif (name := name_of(key)) is not None:
            names[key] = name
    result = {key: given[name] for key, name in names.items() if name in given}
    used = set(names.values()) | {"embeddings.mask_token"}
    if isinstance(variant, VitVariant):
        dim, quarter = variant.dim, variant.dim // variant.heads // 4
        # it plays no part in features, and a network saved by this project's hf loader lacks it
        token = given.get("embeddings.mask_token", torch.zeros(1, 1, dim))
        result["mask_token"] = token.flatten(0, 1)
        result["rope_embed.periods"] = ROPE_BASE ** (torch.arange(quarter) / quarter)
        mask = torch.ones(3 * dim)
        mask[dim : 2 * dim] = 0
        for index in range(variant.depth):
            at, there = f"blocks.{index}.attn.qkv", f"model.layer.{index}.attention"
            weights = [f"{there}.{part}.weight" for part in _QKV]
            biases = [f"{there}.{part}.bias" for part in ("q_proj", "v_proj")]
            used.update(weights, biases)
            if all(name in given for name in weights):
                result[f"{at}.weight"] = torch.cat([given[name] for name in weights])
            if all(name in given for name in biases):
                query, value = (given[name] for name in biases)
                result[f"{at}.bias"] = torch.cat((query, torch.zeros_like(query), value))
            result[f"{at}.bias_mask"] = mask
    if unknown := [key for key in given if key not in used]:
        raise ValueError(
            f"{source} holds {len(unknown)} tensors that are not of Hugging Face's DINOv3"
            f" {variant.name}, the first is {unknown[0]}"
        )
    return result


def settings(variant: Variant) -> dict[str, Any]:
    """The configuration values under which Hugging Face's module is the official network."""
    if isinstance(variant, VitVariant):
        return {
            "hidden_size": variant.dim,
            "num_hidden_layers": variant.depth,
            "num_attention_heads": variant.heads,
            "intermediate_size": variant.hidden,
            "use_gated_mlp": variant.gated,
            "num_register_tokens": 4,
            "patch_size": 16,
            "layer_norm_eps": 1e-5,
            "rope_theta": ROPE_BASE,
            "hidden_act": "silu" if variant.gated else "gelu",
            "key_bias": False,
        }
    return {
        "hidden_sizes": list(variant.dims),
        "depths": list(variant.depths),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }


def read_folder(folder: Path, variant: Variant) -> dict[str, Tensor]:
    """Tensors by official key of a folder that ``save_pretrained`` wrote.

    Args:
        folder: holds ``config.json`` and one or more ``.safetensors`` files.
        variant: the size that is expected; the folder's configuration is compared with it.

    Raises:
        ValueError: no such folder, of another model or size, or its files are damaged.
    """
    config, files = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not files:
        raise ValueError(
            f"{folder} is a folder without {'config.json' if files else '*.safetensors'}: expected"
            " a weights file, or a folder that Hugging Face's save_pretrained wrote"
        )
    found = json.loads(config.read_text(encoding="utf-8"))
    kind = "dinov3_vit" if isinstance(variant, VitVariant) else "dinov3_convnext"
    wanted = {"model_type": kind, **settings(variant)}
    differ = [
        f"{key} {found[key]!r} instead of {value!r}"
        for key, value in wanted.items()
        if key in found and found[key] != value
    ]
    if differ or "model_type" not in found:
        raise ValueError(
            f"{folder} is not DINOv3 {variant.name}: its config.json says"
            f" {', '.join(differ[:3]) or 'no model_type'}"
        )
    state: dict[str, Tensor] = {}
    for file in files:
        state |= load_state_dict_file(file)
    return to_official(state, variant, folder)
