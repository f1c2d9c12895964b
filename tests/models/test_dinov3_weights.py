"""What must never load into a DINOv3 network, and the folder of Hugging Face, which must."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scene_track.models.backbones.base import Backbone
from scene_track.models.backbones.dinov3 import DinoV3, DinoV3ConvNeXt
from scene_track.models.backbones.dinov3.hf_networks import HfConvNeXt, HfVit
from scene_track.models.backbones.dinov3.state import read_official_state
from scene_track.models.backbones.dinov3.variants import CONVNEXTS, VITS
from tests.compose import arguments
from tests.models.official_weights import official_state

pytestmark = pytest.mark.slow

VARIANTS = {"vits16": VITS["vits16"], "convnext_tiny": CONVNEXTS["convnext_tiny"]}


@pytest.fixture(scope="module")
def vits16() -> dict[str, Tensor]:
    state = official_state(VITS["vits16"])
    assert len(state) == 188
    return state


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What ``save_pretrained`` writes, per size."""
    from transformers import DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

    result = {}
    for name, variant in VARIANTS.items():
        state = official_state(variant)
        loader: Any = HfVit() if name == "vits16" else HfConvNeXt()
        net: Any = loader.build(variant)
        net.load_state_dict(loader.convert(state, net))
        if name == "vits16":  # with the mask token that ours leaves out
            whole = DINOv3ViTModel(DINOv3ViTConfig(**net.config.to_diff_dict()))
            token = state["mask_token"].unsqueeze(0)
            whole.load_state_dict({**net.state_dict(), "embeddings.mask_token": token})
            net = whole
        assert isinstance(net, DINOv3ViTModel | DINOv3ConvNextModel)
        result[name] = tmp_path_factory.mktemp("hf") / name
        net.save_pretrained(result[name])
    return result


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_of_hugging_face_holds_the_official_tensors(
    folders: dict[str, Path], name: str
) -> None:
    found = read_official_state(folders[name], VARIANTS[name])
    single = read_official_state(folders[name] / "model.safetensors", VARIANTS[name])
    for key, value in official_state(VARIANTS[name]).items():
        if key.endswith("qkv.bias"):  # the key third is multiplied by 0 and not stored there
            value = value * official_state_mask(value)
        assert torch.equal(found[key], value), key
        assert torch.equal(single[key], value), key


def official_state_mask(bias: Tensor) -> Tensor:
    query, middle, value = torch.ones_like(bias).chunk(3)
    return torch.cat((query, 0 * middle, value))


@pytest.mark.parametrize("loader", ["timm", "hf", "hub"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_is_the_same_network(
    folders: dict[str, Path],
    loaded: Callable[[str, str], Backbone],
    name: str,
    loader: str,
) -> None:
    reference: Any = loaded(name, loader)
    family = DinoV3 if name == "vits16" else DinoV3ConvNeXt
    options = arguments("model.backbone", f"model/backbone=dinov3_{name}", loader=loader)
    options["repository"] = getattr(reference.loader, "_repository", Path())
    options["weights"] = folders[name]
    model = family(**options)
    wanted = reference.state_dict()
    for key, value in model.state_dict().items():
        if key.endswith("qkv.bias") and loader == "hub":
            continue
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 768}, "is not DINOv3 vits16: .*hidden_size 768 instead of 384"),
        ({"model_type": "vit"}, "model_type 'vit' instead of 'dinov3_vit'"),
        ({"rope_theta": 10000.0}, "rope_theta 10000.0 instead of 100.0"),
        (None, "a folder without config.json"),
    ],
)
def test_a_folder_of_another_model(
    folders: dict[str, Path], tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    (tmp_path / "model.safetensors").symlink_to(folders["vits16"] / "model.safetensors")
    if change is not None:
        config = json.loads((folders["vits16"] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    refused(tmp_path, message)


def test_a_tensor_too_many_and_a_truncated_file(folders: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(folders["vits16"] / "model.safetensors")
    path = tmp_path / "model.safetensors"
    save_file({**state, "classifier.weight": torch.zeros(2)}, path)
    refused(path, "1 tensors that are not of .*classifier.weight")
    path.write_bytes((folders["vits16"] / "model.safetensors").read_bytes()[:-1000])
    refused(path, "truncated")
    save_file({key: value for key, value in state.items() if key != "norm.bias"}, path)
    refused(path, r"187 keys match; 1 missing \(norm.bias\)")


def refused(path: Path, message: str, variant: str = "vits16") -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_official_state(path, (VITS | CONVNEXTS)[variant])
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    options: dict[str, Any] = arguments("model.backbone", "model/backbone=dinov3_vits16")
    options["weights"] = tmp_path / "dinov3_vits16.pth"
    with pytest.raises(FileNotFoundError) as error:
        DinoV3(**options)
    text = str(error.value)
    assert "\n" not in text
    for part in ("dinov3_vits16.pth", "licence", "ai.meta.com", "model.backbone.weights=null"):
        assert part in text


def changed(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    """The state with tensors replaced, or left out where ``None``; ``__`` stands for a dot."""
    renamed = {key.replace("__", "."): value for key, value in changes.items()}
    assert set(renamed) - {"extra.weight"} <= set(state)
    merged = {**state, **renamed}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks__3__mlp__fc1__bias": None}, "1 missing .blocks.3.mlp.fc1.bias"),
        ({"extra__weight": torch.zeros(1)}, "1 unexpected .extra.weight"),
        ({"norm__weight": torch.ones(768)}, r"norm.weight .768,. instead of .384,"),
        ({"storage_tokens": None}, "not an official DINOv3 ViT"),
        ({"rope_embed__periods": torch.ones(16)}, "rotary periods from 1 to 1"),
        ({"blocks__0__attn__qkv__bias_mask": torch.full((1152,), torch.nan)}, "bias_mask"),
        ({"blocks__0__attn__qkv__bias_mask": torch.ones(1152)}, "0 for keys"),
        ({"blocks__0__attn__qkv__bias_mask": None}, "1 missing .blocks.0.attn.qkv.bias_mask"),
        ({"blocks__7__norm1__weight": torch.full((384,), torch.nan)}, "NaN.*blocks.7.norm1.weight"),
    ],
)
def test_wrong_files_do_not_load(
    vits16: dict[str, Tensor], tmp_path: Path, changes: dict, message: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(changed(vits16, **changes), path)
    refused(path, message)


def test_the_other_size_is_called_by_its_name(
    weights_file: Callable[[str], Path], tmp_path: Path
) -> None:
    path = weights_file("vits16")
    refused(path, "holds DINOv3 vits16, expected vitb16.*model/backbone=dinov3_vits16", "vitb16")
    refused(path, "holds DINOv3 vits16, expected convnext_base", "convnext_base")
    refused(weights_file("convnext_tiny"), "holds DINOv3 convnext_tiny, expected vits16")
    other = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, other)
    refused(other, r"not an official DINOv3 ConvNeXt: .*conv1.weight", "convnext_tiny")


def test_the_two_names_of_the_last_norm_must_agree(tmp_path: Path) -> None:
    state = official_state(CONVNEXTS["convnext_tiny"])
    state["norms.3.bias"] = state["norms.3.bias"] + 1
    torch.save(state, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "norm and norms.3", "convnext_tiny")
