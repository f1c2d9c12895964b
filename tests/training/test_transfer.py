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
    assert report.matched == ["body.weight", "body.bias"]
    assert report.skipped == [
        "head.weight (5, 3) instead of (4, 3)",
        "head.bias (5,) instead of (4,)",
    ]
    assert report.new == ["new.weight", "new.bias"]
    assert report.unused == ["old.weight", "old.bias"]
    after = target.state_dict()
    assert torch.equal(after["body.weight"], source["body"].weight)
    for key in ("head.weight", "head.bias", "new.weight", "new.bias"):
        assert torch.equal(after[key], before[key])
    assert "2 of 6 weights taken" in caplog.text
    for line in ("other shape: head.weight (5, 3)", "new: new.bias", "unused: old.weight"):
        assert line in caplog.text


def test_a_run_folder_means_its_best(tmp_path: Path) -> None:
    best, last, target = net(), net(), net()
    saved(tmp_path / "checkpoints" / "best.ckpt", best)
    saved(tmp_path / "checkpoints" / "last.ckpt", last)
    init_from(target, tmp_path)
    assert torch.equal(target["head"].weight, best["head"].weight)


def test_nothing_fits_is_an_error(tmp_path: Path) -> None:
    other = saved(tmp_path / "a.ckpt", nn.ModuleDict({"trunk": nn.Linear(2, 3)}))
    with pytest.raises(ValueError, match=r"none of its 2 weights fits.*trunk.weight.*body.weight"):
        init_from(net(), other)


def test_torn_and_missing_files_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", net())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"a\.ckpt is torn"):
        init_from(net(), path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        init_from(net(), tmp_path / "b")
