"""Training transforms for tests."""

from __future__ import annotations

from typing import Any

from scene_track.data.transforms import ClipAugment

OFF: dict[str, Any] = {
    "flip": 0, "reverse": 0, "scale": 0, "shift": 0, "channel_permutation": 0, "gain": 0, "bias": 0,
    "min_visible": 0, "mix": 0, "mix_alpha": 0.5, "crop": None, "crop_near": 0.8,
}  # fmt: skip
STRONG: dict[str, Any] = {
    "flip": 0.5, "reverse": 0.5, "scale": 0.3, "shift": 0.15, "channel_permutation": 1, "gain": 0.3,
    "bias": 20, "min_visible": 0.25,
}  # fmt: skip


def augment(**changes: Any) -> ClipAugment:
    """Transforms that are off except for what is given."""
    return ClipAugment(**(OFF | changes))
