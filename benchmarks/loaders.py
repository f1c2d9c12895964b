"""The three loaders of DINOv3 against numbers of the official code: largest absolute error.

    python -m benchmarks.loaders
    python -m benchmarks.loaders --golden FOLDER    # every patch of whole pictures too

Weights and pictures are deterministic (`tests/models/official_weights.py`), the numbers of the
official code for some cells are in `tests/golden/`. Those for every patch of ViT-S/16 are not in
the repository: FOLDER holds `dinov3_vits16_224.npz` and `dinov3_vits16_256x448.npz` with
`image_u8 [N, H, W, 3]`, `feat [N, 384, h, w]` and `cls [N, 384]`. `hub` needs `make third-party`,
or a checkout named by the variable DINOV3_REPOSITORY; without it its column says so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene_track.models.backbones.base import Backbone, BackboneFeatures
from scene_track.models.backbones.dinov3 import DinoV3, DinoV3ConvNeXt
from scene_track.models.backbones.dinov3.variants import CONVNEXTS, VITS
from tests.models.conftest import official_code
from tests.models.official_weights import official_state, picture

ROOT = Path(__file__).resolve().parents[1]
LOADERS = ("timm", "hf", "hub")
CASES = {"vits16": (96, 160), "vits16plus": (64, 96), "convnext_tiny": (64, 96)}


def load(variant: str, loader: str, weights: Path) -> Backbone | None:
    """The backbone with these weights; None where the official code is absent."""
    code = official_code(ROOT)
    if loader == "hub" and code is None:
        return None
    options: dict[str, Any] = {"weights": weights, "loader": loader, "repository": code or Path()}
    if variant in VITS:
        return DinoV3(variant=variant, size_multiple=16, **options).eval()  # type: ignore[arg-type]
    size = variant.removeprefix("convnext_")
    return DinoV3ConvNeXt(variant=size, size_multiple=32, **options).eval()  # type: ignore[arg-type]


def error(features: BackboneFeatures, golden: Any, prefix: str) -> float:
    """Largest absolute difference from the cells and the token of a golden file."""
    pairs: list[tuple[Tensor, Any]] = [(features.cls[0], golden[f"{prefix}cls"])]
    for index, level in enumerate(features.levels):
        cells = golden[f"{prefix}cells{index}"]
        pairs.append((level[0, :, cells[:, 0], cells[:, 1]].T, golden[f"{prefix}level{index}"]))
    return max(float(np.abs(found.numpy() - wanted).max()) for found, wanted in pairs)


def whole(features: BackboneFeatures, golden: Any) -> float:
    """The same over every patch."""
    patches = np.abs(features.levels[0].numpy() - golden["feat"]).max()
    return max(float(patches), float(np.abs(features.cls.numpy() - golden["cls"]).max()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Largest error of each loader.")
    parser.add_argument("--golden", type=Path, help="folder of dinov3_vits16_*.npz")
    options = parser.parse_args()
    extract = np.load(ROOT / "tests" / "golden" / "dinov3_official.npz")
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for variant, (height, width) in CASES.items():
            path = Path(folder) / f"{variant}.pth"
            torch.save(official_state((VITS | CONVNEXTS)[variant]), path)
            for loader in LOADERS:
                backbone = load(variant, loader, path)
                found = backbone and error(backbone(picture(height, width)), extract, f"{variant}.")
                cell = "absent" if found is None else f"{found:.1e}"
                rows.setdefault(f"{variant} {height}x{width}, cells", []).append(cell)
                if options.golden is None or variant != "vits16":
                    continue
                for name in ("224", "256x448"):
                    golden = np.load(options.golden / f"dinov3_vits16_{name}.npz")
                    frames = torch.from_numpy(golden["image_u8"]).permute(0, 3, 1, 2)
                    found = backbone and whole(backbone(frames.contiguous()), golden)
                    cell = "absent" if found is None else f"{found:.1e}"
                    rows.setdefault(f"{variant} {name}, every patch", []).append(cell)
    print(f"{'size and picture':<32}" + "".join(f"{loader:>9}" for loader in LOADERS))
    for name, cells in rows.items():
        print(f"{name:<32}" + "".join(f"{cell:>9}" for cell in cells))


if __name__ == "__main__":
    main()
