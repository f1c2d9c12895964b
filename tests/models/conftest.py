"""Official weights for the DINOv3 tests, and the official code where it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from scene_track.models.backbones.base import Backbone
from scene_track.models.backbones.dinov3 import DinoV3, DinoV3ConvNeXt
from scene_track.models.backbones.dinov3.variants import CONVNEXTS, VITS
from tests.compose import arguments
from tests.models.official_weights import official_state


def official_code(root: Path) -> Path | None:
    """A checkout of Meta's repository, or None."""
    folder = Path(os.environ.get("DINOV3_REPOSITORY", root / "third_party" / "dinov3"))
    return folder if (folder / "hubconf.py").is_file() else None


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An official-looking file of a size, with the deterministic weights."""
    folder = tmp_path_factory.mktemp("weights")

    @cache
    def write(variant: str) -> Path:
        path = folder / f"dinov3_{variant}.pth"
        torch.save(official_state((VITS | CONVNEXTS)[variant]), path)
        return path

    return write


@pytest.fixture(scope="session")
def loaded(weights_file: Callable[[str], Path], repo_root: Path) -> Callable[[str, str], Backbone]:
    """The backbone of a size by a loader, with the deterministic weights; not to be changed."""

    @cache
    def build(variant: str, loader: str) -> Backbone:
        code = official_code(repo_root)
        if loader == "hub" and code is None:
            pytest.skip(
                "loader=hub was NOT compared: the official code is not here; make third-party"
                " brings it, or set DINOV3_REPOSITORY to a checkout"
            )
        kind = DinoV3 if variant in VITS else DinoV3ConvNeXt
        options = arguments("model.backbone", f"model/backbone=dinov3_{variant}")
        options |= {
            "weights": weights_file(variant),
            "loader": loader,
            "repository": code or Path(),
        }
        return kind(**options).eval()

    return build
