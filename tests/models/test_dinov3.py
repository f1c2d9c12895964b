"""DINOv3 against numbers of the official code, and what must never load silently."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scene_track.models.backbones.dinov3 import DinoV3, load_official_weights

DIM, DEPTH = 384, 12


def official_shapes() -> dict[str, tuple[int, ...]]:
    """The 188 keys of the official ViT-S/16 file."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "storage_tokens": (1, 4, DIM),
        "mask_token": (1, DIM),
        "patch_embed.proj.weight": (DIM, 3, 16, 16),
        "patch_embed.proj.bias": (DIM,),
        "rope_embed.periods": (16,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    block = {
        "norm1.weight": (DIM,),
        "norm1.bias": (DIM,),
        "attn.qkv.weight": (3 * DIM, DIM),
        "attn.qkv.bias": (3 * DIM,),
        "attn.qkv.bias_mask": (3 * DIM,),
        "attn.proj.weight": (DIM, DIM),
        "attn.proj.bias": (DIM,),
        "ls1.gamma": (DIM,),
        "norm2.weight": (DIM,),
        "norm2.bias": (DIM,),
        "mlp.fc1.weight": (4 * DIM, DIM),
        "mlp.fc1.bias": (4 * DIM,),
        "mlp.fc2.weight": (DIM, 4 * DIM),
        "mlp.fc2.bias": (DIM,),
        "ls2.gamma": (DIM,),
    }
    for index in range(DEPTH):
        shapes.update({f"blocks.{index}.{key}": shape for key, shape in block.items()})
    return shapes


def deterministic_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """The weights for which the golden numbers were computed: drawn by the key's own hash."""
    if key == "rope_embed.periods":
        return torch.tensor([100 ** (2 * i / 32) for i in range(16)], dtype=torch.float32)
    if key.endswith("bias_mask"):
        mask = torch.ones(shape)
        mask[DIM : 2 * DIM] = 0
        return mask
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    if key.endswith(".gamma"):
        x = 0.3 + 0.05 * x
    elif "norm" in key:
        x = 1 + 0.1 * x if key.endswith(".weight") else 0.1 * x
    elif key.endswith(".bias"):
        x = 0.05 * x
    elif "token" in key:
        x = 0.5 * x
    elif key == "patch_embed.proj.weight":
        x = 0.04 * x
    else:
        x = 1.2 * x.astype(np.float64) / np.sqrt(shape[-1])
    return torch.from_numpy(np.asarray(x, np.float32))


@pytest.fixture(scope="session")
def official_state() -> dict[str, Tensor]:
    state = {key: deterministic_value(key, shape) for key, shape in official_shapes().items()}
    assert len(state) == 188
    return state


@pytest.fixture(scope="session")
def weights_file(official_state: dict[str, Tensor], tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dinov3_vits16.pth"
    torch.save(official_state, path)
    return path


@pytest.fixture(scope="session")
def pretrained(weights_file: Path) -> DinoV3:
    return DinoV3(weights=weights_file).eval()


def frames_of(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def test_against_official_extract(pretrained: DinoV3, repo_root: Path) -> None:
    golden = np.load(repo_root / "tests/golden/dinov3_vits16_224.npz")
    with torch.no_grad():
        features = pretrained(frames_of(golden["image_u8"][None]))
    cells = golden["cells"]
    found = features.levels[0][0, :, cells[:, 0], cells[:, 1]].T.numpy()
    np.testing.assert_allclose(found, golden["feat"], atol=1e-4)
    np.testing.assert_allclose(features.cls[0].numpy(), golden["cls"], atol=1e-4)


@pytest.mark.parametrize("name", ["224", "256x448"])
def test_against_official(pretrained: DinoV3, shared: Path, name: str) -> None:
    golden = np.load(shared / f"golden/dinov3_vits16_{name}.npz")
    with torch.no_grad():
        features = pretrained(frames_of(golden["image_u8"]))
    np.testing.assert_allclose(features.levels[0].numpy(), golden["feat"], atol=1e-4)
    np.testing.assert_allclose(features.cls.numpy(), golden["cls"], atol=1e-4)


def test_frozen_is_the_same_in_training_mode_and_without_graph(weights_file: Path) -> None:
    model = DinoV3(weights=weights_file, freeze=True)
    model.set_frozen(model.frozen_at(epoch=5))
    frames = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    model.eval()
    quiet = model(frames)
    model.train()
    training = model(frames)
    assert not any(module.training for module in model.modules())
    assert torch.equal(quiet.levels[0], training.levels[0])
    assert not training.levels[0].requires_grad and not training.cls.requires_grad


def test_training_mode_does_not_shake_positions(pretrained: DinoV3) -> None:
    # the official code rescales its rotary coordinates at random here
    frames = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        quiet = pretrained(frames).levels[0]
        shaken = pretrained.train()(frames).levels[0]
    pretrained.eval()
    assert torch.equal(quiet, shaken)


def test_random_weights_train_in_every_block() -> None:
    torch.manual_seed(0)
    model = DinoV3(weights=None)
    assert (model.dims, model.cls_dim, model.strides, model.size_multiple) == (
        (384,),
        384,
        (16,),
        16,
    )
    model.set_frozen(False)
    model.train()
    frames = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    features = model(frames)
    assert features.levels[0].shape == (2, 384, 2, 4)
    assert features.cls.shape == (2, 384)
    target = torch.randn_like(features.levels[0])
    ((features.levels[0] - target).pow(2).mean() + features.cls.pow(3).mean()).backward()
    norms = {}
    for name, parameter in model.vit.named_parameters():
        assert parameter.grad is not None, name
        norms[name] = parameter.grad.norm().item()
    # with timm's LayerScale of 1e-5 the first block would learn 1e5 times slower than the last norm
    first = norms["blocks.0.mlp.fc1.weight"]
    assert first > 1e-2 * norms["norm.weight"]


def test_random_but_frozen_is_called_out() -> None:
    with pytest.warns(UserWarning, match="never learns"):
        DinoV3(weights=None, freeze=True)


def test_size_must_be_a_multiple(pretrained: DinoV3) -> None:
    with pytest.raises(ValueError, match="30x48.*multiples of 16"):
        pretrained(torch.zeros(1, 3, 30, 48, dtype=torch.uint8))


def test_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        DinoV3(weights=tmp_path / "dinov3_vits16.pth")
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
        ({"norm__weight": torch.ones(768)}, r"1 reshaped .norm.weight .file .768,., model .384,"),
        ({"storage_tokens": None}, "not an official DINOv3 ViT"),
        ({"rope_embed__periods": torch.ones(16)}, "rotary periods from 1 to 1"),
        ({"blocks__0__attn__qkv__bias_mask": torch.full((1152,), torch.nan)}, "bias_mask"),
        ({"blocks__0__attn__qkv__bias_mask": torch.ones(1152)}, "0 for keys"),
        ({"blocks__0__attn__qkv__bias_mask": None}, "0 for keys"),
        ({"blocks__7__norm1__weight": torch.full((384,), torch.nan)}, "NaN.*blocks.7.norm1.weight"),
    ],
)
def test_wrong_files_do_not_load(
    pretrained: DinoV3,
    official_state: dict[str, Tensor],
    tmp_path: Path,
    changes: dict,
    message: str,
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(changed(official_state, **changes), path)
    with pytest.raises(ValueError, match=message) as error:
        load_official_weights(pretrained.vit, path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_weights_of_another_size_do_not_load(weights_file: Path) -> None:
    with pytest.raises(ValueError, match="reshaped"):
        DinoV3(weights=weights_file, variant="vitb16")
