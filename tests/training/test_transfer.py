"""``init_from``: what fits is taken, the rest is reported, nothing is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scene_track.training.transfer import init_from


def saved(path: Path, module: nn.Module, *, bare: bool = False) -> Path:
    state = module.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state if bare else {"state_dict": state, "epoch": 3}, path)
    return path


def net(width: int = 3, **more: nn.Module) -> Any:
    return nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, width), **more})


@pytest.mark.parametrize("bare", [True, False])
def test_all_four_fates(tmp_path: Path, caplog: pytest.LogCaptureFixture, bare: bool) -> None:
    source = net(5, old=nn.Linear(1, 1))
    target = net(4, new=nn.Linear(1, 2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with caplog.at_level("INFO"):
        report = init_from(target, saved(tmp_path / "a.ckpt", source, bare=bare))
    assert report.columns() == {
        "matched": ["body.weight", "body.bias"],
        "other shape": ["head.weight", "head.bias"],
        "new": ["new.weight", "new.bias"],
        "unused": ["old.weight", "old.bias"],
        "left out": [],
    }
    after = target.state_dict()
    assert torch.equal(after["body.weight"], source["body"].weight)
    for key in ("head.weight", "head.bias", "new.weight", "new.bias"):
        assert torch.equal(after[key], before[key])
    assert "2 of 6 weights taken" in caplog.text
    for line in (
        "other shape: head.weight (5, 3) instead of (4, 3)",
        "new: new.bias",
        "unused: old.weight",
    ):
        assert line in caplog.text


def model(**parts: nn.Module) -> Any:
    return nn.ModuleDict({"model": nn.ModuleDict(parts)})


def layers(*widths: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(3, width) for width in widths))


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_part_that_fits_here_and_there_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "a.ckpt", model(backbone=layers(3, 3), decoder=layers(3, 5)))
    target = model(backbone=layers(3, 3), decoder=layers(3, 4), head=layers(2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        init_from(target, path)
    assert "model.decoder (2 of 4)" in str(caught.value)
    assert "init_parts=[model.backbone]" in str(caught.value)
    assert "init_partial=true" in str(caught.value)
    assert "other shape: model.decoder.1.weight (5, 3)" in caplog.text
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key]), "refused as a whole"
    report = init_from(target, path, partial=True)
    assert [len(keys) for keys in report.columns().values()] == [6, 2, 2, 0, 0]


def test_only_the_parts_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = model(backbone=layers(3), temporal_encoder=layers(2), decoder=layers(3, 5))
    path = saved(tmp_path / "a.ckpt", source)
    target = model(backbone=layers(3), temporal_encoder=layers(2), decoder=layers(3, 4))
    head = {k: v.clone() for k, v in target["model"]["decoder"].state_dict().items()}
    with caplog.at_level("INFO"):
        report = init_from(target, path, parts=["model.backbone", "model.temporal_encoder"])
    assert [len(keys) for keys in report.columns().values()] == [4, 0, 0, 0, 4]
    assert equal(target["model"]["backbone"], source["model"]["backbone"])
    assert equal(target["model"]["temporal_encoder"], source["model"]["temporal_encoder"])
    for key, value in target["model"]["decoder"].state_dict().items():
        assert torch.equal(value, head[key])
    assert "model.decoder" in caplog.text and "left out" in caplog.text


@pytest.mark.parametrize(("part", "lacks"), [("model.back", "the model"), ("model.new", "a.ckpt")])
def test_a_part_in_vain_is_named(tmp_path: Path, part: str, lacks: str) -> None:
    path = saved(tmp_path / "a.ckpt", model(backbone=layers(3)))
    with pytest.raises(ValueError, match=rf"{lacks} has no {part}; it has model.backbone"):
        init_from(model(backbone=layers(3), new=layers(1)), path, parts=[part])


def test_nothing_fits_is_an_error(tmp_path: Path) -> None:
    other = saved(tmp_path / "a.ckpt", nn.ModuleDict({"trunk": nn.Linear(2, 3)}))
    with pytest.raises(ValueError, match=r"none of its 2 weights fits.*trunk.weight.*body.weight"):
        init_from(net(), other)
