"""DINOv3 against numbers of the official code: every loader, sizes and resolutions.

``tests/golden/dinov3_official.npz`` was computed by facebookresearch/dinov3 at commit 6876159 with
the weights and pictures of ``official_weights``: a few cells of every level, and the class token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scene_track.models.backbones.base import Backbone
from scene_track.models.backbones.dinov3.hf_networks import HfConvNeXt, HfVit
from scene_track.models.backbones.dinov3.hub_networks import (
    HubConvNeXt,
    HubVit,
    official_factories,
)
from scene_track.models.backbones.dinov3.loader import Loader
from scene_track.models.backbones.dinov3.timm_networks import TimmConvNeXt, TimmVit
from scene_track.models.backbones.dinov3.variants import CONVNEXTS, VITS, identify
from scene_track.models.weights import compare_state_dicts
from tests.compose import shipped
from tests.models.conftest import official_code
from tests.models.official_weights import picture

pytestmark = pytest.mark.slow

LOADERS = ["timm", "hf", "hub"]
Loaded = Callable[[str, str], Backbone]


def frames_of(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("variant", "size"),
    [("vits16", (96, 160)), ("vits16plus", (64, 96)), ("convnext_tiny", (64, 96))],
)
def test_against_the_official_code(
    loaded: Loaded, repo_root: Path, variant: str, size: tuple[int, int], loader: str
) -> None:
    golden = np.load(repo_root / "tests/golden/dinov3_official.npz")
    with torch.no_grad():
        features = loaded(variant, loader)(picture(*size))
    np.testing.assert_allclose(features.cls[0], golden[f"{variant}.cls"], atol=1e-4)
    assert len(features.levels) == sum(f"{variant}.level" in key for key in golden)
    for index, level in enumerate(features.levels):
        cells = golden[f"{variant}.cells{index}"]
        found = level[0, :, cells[:, 0], cells[:, 1]].T
        np.testing.assert_allclose(found, golden[f"{variant}.level{index}"], atol=1e-4)


@pytest.mark.parametrize("loader", LOADERS)
def test_against_the_extract_of_a_square_picture(
    loaded: Loaded, repo_root: Path, loader: str
) -> None:
    golden = np.load(repo_root / "tests/golden/dinov3_vits16_224.npz")
    with torch.no_grad():
        features = loaded("vits16", loader)(frames_of(golden["image_u8"][None]))
    cells = golden["cells"]
    found = features.levels[0][0, :, cells[:, 0], cells[:, 1]].T
    np.testing.assert_allclose(found, golden["feat"], atol=1e-4)
    np.testing.assert_allclose(features.cls[0], golden["cls"], atol=1e-4)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", ["224", "256x448"])
def test_against_every_patch(loaded: Loaded, shared: Path, name: str, loader: str) -> None:
    golden = np.load(shared / f"golden/dinov3_vits16_{name}.npz")
    with torch.no_grad():
        features = loaded("vits16", loader)(frames_of(golden["image_u8"]))
    np.testing.assert_allclose(features.levels[0], golden["feat"], atol=1e-4)
    np.testing.assert_allclose(features.cls, golden["cls"], atol=1e-4)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("variant", ["vits16", "convnext_tiny"])
def test_the_mode_changes_nothing(loaded: Loaded, variant: str, loader: str) -> None:
    """Two of the libraries rescale rotary coordinates at random in training mode."""
    model = loaded(variant, loader)
    with torch.no_grad():
        quiet, training = model(picture(32, 64)), model.train()(picture(32, 64))
    model.eval()
    assert torch.equal(quiet.levels[-1], training.levels[-1])
    assert torch.equal(quiet.cls, training.cls)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("variant", ["vits16", "convnext_tiny"])
def test_stages_go_from_the_input_to_the_output(loaded: Loaded, variant: str, loader: str) -> None:
    model = loaded(variant, loader)
    stages = model.stages()
    blocks = {"vits16": 12, "convnext_tiny": 18}[variant]
    assert [s.name for s in stages] == ["embedding", *(f"block {i}" for i in range(blocks))]
    staged = [id(p) for stage in stages for p in stage.parameters()]
    assert sorted(staged) == sorted(id(p) for p in model.parameters())
    # a change in a late stage leaves what an early stage computes: autograd says what depends on it
    features = model(picture(32, 64))
    early = features.levels[0] if variant != "vits16" else features.cls
    early.sum().backward()
    touched = [any(p.grad is not None for p in stage.parameters()) for stage in stages]
    expected = [True] * (4 if variant != "vits16" else len(stages))
    assert touched == expected + [False] * (len(stages) - len(expected))
    model.zero_grad(set_to_none=True)


def built(loader: Loader, variant: str) -> torch.nn.Module:
    with torch.device("meta"):
        return loader.build((VITS | CONVNEXTS)[variant])


@pytest.mark.parametrize("variant", [*VITS, *CONVNEXTS])
@pytest.mark.parametrize("library", LOADERS)
def test_every_size_takes_every_tensor_of_its_official_file(
    variant: str, library: str, repo_root: Path
) -> None:
    """On the meta device, so that the large ones cost nothing."""
    vit = variant in VITS
    loader: Loader
    if library == "hub":
        code = official_code(repo_root)
        if code is None:
            pytest.skip("loader=hub was NOT compared: the official code is not here")
        loader = HubVit(code) if vit else HubConvNeXt(code)
    elif library == "hf":
        loader = HfVit() if vit else HfConvNeXt()
    else:
        loader = TimmVit() if vit else TimmConvNeXt()
    shapes = (VITS | CONVNEXTS)[variant].official_shapes()
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert identify(state) == variant
    net = built(loader, variant)
    comparison = compare_state_dicts(net.state_dict(), loader.convert(state, net))
    assert comparison.exact, str(comparison)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    expected = {"vits16": 21.6, "vits16plus": 28.7, "vitb16": 85.7, "vitl16": 303.1}
    expected |= {"convnext_tiny": 27.8, "convnext_small": 49.5, "convnext_base": 87.6}
    assert millions == pytest.approx(expected[variant], abs=0.1)


@pytest.mark.parametrize("size", ["vits16", "convnext_tiny"])
def test_random_weights_are_ready_to_train(size: str) -> None:
    torch.manual_seed(0)
    model = shipped(
        "model.backbone", f"model/backbone=dinov3_{size}", "model.backbone.weights=null"
    )
    model.set_frozen(False)
    features = model.train()(torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8))
    target = torch.randn_like(features.levels[-1])
    ((features.levels[-1] - target).pow(2).mean() + features.cls.pow(3).mean()).backward()
    norms = []
    for stage in model.stages():
        gradients = [p.grad for p in stage.parameters()]
        assert all(gradient is not None for gradient in gradients), stage.name
        norms.append(max(float(g.norm()) for g in gradients if g is not None and g.ndim > 1))
    # with the published LayerScale of 1e-5 or less the first block would as good as stand still
    assert norms[1] > 1e-2 * norms[-1]


def test_without_the_official_code_the_error_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make third-party") as error:
        official_factories(tmp_path / "dinov3")
    assert "\n" not in str(error.value) and "model.backbone.repository" in str(error.value)
