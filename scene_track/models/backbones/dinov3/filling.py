"""Weights into a DINOv3 network: the step that the family's backbones share."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from scene_track.models.backbones.dinov3.loader import Loader
from scene_track.models.backbones.dinov3.state import read_official_state
from scene_track.models.backbones.dinov3.variants import Variant
from scene_track.models.weights import load_strictly


def fill(
    net: nn.Module,
    loader: Loader,
    weights: str | Path | None,
    variant: Variant,
) -> None:
    """Load weights into a network; on an error it stays as it is.

    Args:
        net: the network.
        loader: what built it.
        weights: file or folder; None keeps the random weights.
        variant: the network's size.

    Raises:
        FileNotFoundError: there is no such file; says how to obtain it.
        ValueError: the file is damaged or of another model.
    """
    if weights is None:
        return
    state = read_official_state(weights, variant)
    load_strictly(net, loader.convert(state, net), weights)
