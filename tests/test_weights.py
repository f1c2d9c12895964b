"""``make weights``: where the licence is accepted, where a file goes, whether it is sound."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from scene_track.models.backbones.dinov3.variants import VITS, official_file
from scene_track.weights import main
from tests.models.official_weights import official_state


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A size of two small blocks, and the name that its file would have."""
    small = dataclasses.replace(VITS["vits16"], dim=48, depth=2, heads=3, hidden=64)
    torch.save(official_state(small), tmp_path / "x.pth")
    sha = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(VITS, "vits16", dataclasses.replace(small, sha=sha[:8]))
    return official_file(VITS["vits16"])


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path / "weights")]) == 0
    text = capsys.readouterr().out
    assert "licence at https://ai.meta.com/" in text and f"{tmp_path / 'weights'}/" in text
    assert text.count("absent ") == 7
    assert "weights/dinov3_vits16_pretrain_lvd1689m-08c60483.pth" in text


def test_a_sound_file_and_a_damaged_one(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / size
    content = (tmp_path / "x.pth").read_bytes()
    path.write_bytes(content)
    assert main(["--folder", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.split("\n") if line.startswith("OK")]
    assert hashlib.sha256(content).hexdigest() in line and "dinov3_vits16" in line
    path.write_bytes(content[:-10])
    assert main(["--folder", str(tmp_path)]) == 1
    assert "DAMAGED " in (text := capsys.readouterr().out) and "download it again" in text


def test_any_file_is_told_its_size(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "x.pth")]) == 0
    assert "DINOv3 vits16, " in capsys.readouterr().out
    (tmp_path / "page.pth").write_text("<!doctype html>")
    assert main([str(tmp_path / "page.pth"), str(tmp_path / "none.pth")]) == 1
    text = capsys.readouterr().out
    assert "web page" in text and "ABSENT " in text
