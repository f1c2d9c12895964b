"""From a weights file or folder to a checked state dict with the official names.

Whatever the loader, weights come this way: read, compared with every key and shape of the size
that was chosen, and only then renamed for a network. So a wrong file is the same error everywhere.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from scene_track.models.backbones.dinov3 import huggingface
from scene_track.models.backbones.dinov3.variants import (
    LICENCE_PAGE,
    Variant,
    VitVariant,
    identify,
)
from scene_track.models.weights import compare_state_dicts, load_state_dict_file

_MARKS = {"storage_tokens": "DINOv3 ViT", "downsample_layers.0.0.weight": "DINOv3 ConvNeXt"}


def read_official_state(path: str | Path, variant: Variant) -> dict[str, Tensor]:
    """Read and check the weights of one size.

    Args:
        path: an official ``.pth`` file, a ``.safetensors`` file with the names of either side, or a
            folder that Hugging Face's ``save_pretrained`` wrote.
        variant: the size that is expected.

    Returns:
        Tensors by official key, every one of the size and nothing else.

    Raises:
        FileNotFoundError: there is no such file; says how to obtain it.
        ValueError: it is damaged, or of another model or size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no DINOv3 weights at {path}: accept the licence at {LICENCE_PAGE}, download the file"
            " and put it there, or name it by model.backbone.weights=PATH;"
            " model.backbone.weights=null starts from random weights"
        )
    if path.is_dir():
        state = huggingface.read_folder(path, variant)
    else:
        state = load_state_dict_file(path)
        if not any(mark in state for mark in _MARKS) and any(
            key.startswith(("embeddings.", "layer_norm.")) for key in state
        ):
            state = huggingface.to_official(state, variant, path)
    check_official_state(state, variant, path)
    return state


def check_official_state(state: dict[str, Tensor], variant: Variant, source: str | Path) -> None:
    """Refuse tensors that are not exactly those of the size.

    Beyond keys and shapes: rotary periods and bias masks, which other implementations leave out,
    must be what those assume.

    Raises:
        ValueError: naming the size the tensors seem to be of, or the first differences.
    """
    comparison = compare_state_dicts(variant.official_shapes(), state)
    if not comparison.exact:
        seems = identify(state)
        if seems not in (None, variant.name):
            raise ValueError(
                f"{source} holds DINOv3 {seems}, expected {variant.name}: take the other file, or"
                f" type model/backbone=dinov3_{seems}"
            )
        kind = "ViT" if isinstance(variant, VitVariant) else "ConvNeXt"
        if f"DINOv3 {kind}" not in {_MARKS[mark] for mark in _MARKS if mark in state}:
            some = ", ".join(list(state)[:3])
            raise ValueError(
                f"{source} is not an official DINOv3 {kind}: none of its {len(state)} keys"
                f" ({some}, ...) says so"
            )
        raise ValueError(f"{source} does not fit DINOv3 {variant.name}: {comparison}")
    if isinstance(variant, VitVariant):
        _check_constants(state, source)
    elif not torch.equal(state["norm.weight"], state["norms.3.weight"]) or not torch.equal(
        state["norm.bias"], state["norms.3.bias"]
    ):
        raise ValueError(f"{source}: norm and norms.3 are one layer but differ; it is damaged")


def _check_constants(state: dict[str, Tensor], source: str | Path) -> None:
    periods = state["rope_embed.periods"].float()
    expected = huggingface.ROPE_BASE ** (torch.arange(len(periods)) / len(periods))
    # files may store the buffer in bfloat16 (3 digits)
    if not torch.allclose(periods, expected, rtol=1e-2):
        raise ValueError(
            f"{source} has rotary periods from {periods.min():.4g} to {periods.max():.4g}, expected"
            f" 1 to {expected[-1]:.4g}: not a model this class can run"
        )
    for key, mask in state.items():
        if not key.endswith("qkv.bias_mask"):
            continue
        query, middle, value = mask.chunk(3)
        if bool((query != 1).any() or (middle != 0).any() or (value != 1).any()):
            raise ValueError(
                f"{source}: {key} must be 1 for queries and values and 0 for keys; this"
                " file is damaged or of a model that this class cannot run"
            )
