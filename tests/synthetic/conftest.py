"""Tiny drawn datasets, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scene_track.synthetic.folder import DrawnDataset
from tests.compose import shipped

TINY: dict[str, dict[str, Any]] = {
    "synthetic_dance": {
        "train_sequences": 2, "val_sequences": 1, "test_sequences": 1,
        "frames": 4, "width": 128, "height": 64,
    },
    "synthetic_tennis": {
        "train_games": 2, "val_games": 1, "test_games": 1, "clips_per_game": 2,
        "frames": 5, "width": 160, "height": 88,
    },
}  # fmt: skip


def tiny(name: str, root: Path, **options: Any) -> DrawnDataset:
    """A shipped dataset at a tiny size; nothing is drawn yet."""
    return shipped(
        "dataset.source", f"dataset={name}", **{"root": str(root)} | TINY[name] | options
    )


@pytest.fixture(scope="session")
def tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DrawnDataset]:
    """Both datasets, drawn; not to be written to."""
    drawn = {name: tiny(name, tmp_path_factory.mktemp(name)) for name in TINY}
    for dataset in drawn.values():
        dataset.prepare()
    return drawn
