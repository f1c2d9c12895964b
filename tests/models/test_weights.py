"""Reading weights files: everything that is not a complete state dict ends in one clear line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from scene_track.models.weights import (
    compare_state_dicts,
    load_state_dict_file,
    load_strictly,
)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_state_dict_file(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_round_trip(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    path = saved(tmp_path / "linear.pth", source.state_dict())
    load_strictly(target, load_state_dict_file(path), path)
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.bias, target.bias)


def test_missing_folder_page_pointer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_state_dict_file(tmp_path / "nothing.pth")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", "folder")
    page = tmp_path / "page.pth"
    page.write_text("\n<!DOCTYPE html><html>Access denied</html>")
    refused(page, "web page")
    pointer = tmp_path / "pointer.pth"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(pointer, "LFS")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path / "cut.pth", {"w": torch.randn(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    refused(path, "truncated")


def test_hash_in_the_name_is_checked(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"w": torch.ones(2)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    right = path.rename(tmp_path / f"model-{digest[:8]}.pth")
    assert torch.equal(load_state_dict_file(right)["w"], torch.ones(2))
    wrong = right.rename(tmp_path / "model-0123abcd.pth")
    refused(wrong, f"{digest[:8]}.*0123abcd")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    refused(saved(tmp_path / "evil.pth", {"w": Evil()}), "cannot be read")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list"),
        ({}, "expected tensors by key"),
        ({"state_dict": {"w": torch.ones(1)}, "epoch": 3}, "'state_dict' is no tensor"),
        ({"a": torch.ones(1), "b": torch.tensor([1.0, torch.inf])}, "1 of 2 tensors.*is b"),
    ],
)
def test_wrong_content(tmp_path: Path, content: object, message: str) -> None:
    refused(saved(tmp_path / "x.pth", content), message)


def test_comparison_names_every_kind_and_nothing_is_half_loaded() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {
        "0.weight": torch.zeros(2, 2, dtype=torch.float16),
        "1.weight": torch.zeros(9, 2),
        "head": torch.zeros(1),
    }
    comparison = compare_state_dicts(before, state)
    assert comparison.matched == ["0.weight"]
    assert comparison.missing == ["0.bias", "1.bias"]
    assert comparison.unexpected == ["head"]
    assert comparison.reshaped == {"1.weight": "(9, 2) instead of (3, 2)"}
    assert comparison.retyped == {"0.weight": "float16 instead of float32"}
    assert len(comparison.problems) == 5 and not comparison.exact
    with pytest.raises(ValueError, match="1 keys match; 2 missing .*; 1 unexpected .head"):
        load_strictly(module, state, "file.pth")
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
