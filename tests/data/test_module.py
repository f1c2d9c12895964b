"""The data module, built from the shipped configuration."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scene_track.data import module as data_module
from scene_track.data.module import TrackingDataModule
from tests.compose import compose_run, shipped

TINY: dict[str, Any] = {
    "train_sequences": 2,
    "val_sequences": 3,
    "test_sequences": 1,
    "frames": 10,
    "width": 128,
    "height": 64,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dance")
    shipped("dataset.source", root=str(root), **TINY).prepare()
    return root


@cache
def _shipped(name: str) -> DictConfig:
    return compose_run([f"dataset={name}"])


def build(name: str, **options: Any) -> TrackingDataModule:
    config = OmegaConf.merge(_shipped(name), {"seed": 3, "dataset": options})
    return instantiate(config.dataset)


def synthetic(root: Path, **options: Any) -> TrackingDataModule:
    settings = {"root": str(root), "source": TINY, "size": [32, 64]} | options
    module = build("synthetic_dance", **settings)
    module.prepare_data()
    module.setup("fit")
    return module


def test_the_shipped_default(drawn: Path) -> None:
    module = synthetic(drawn)
    assert module.class_names == ["dancer"]
    assert module.num_classes == 1
    assert module.seed == 3  # the run's seed
    loader = module.train_dataloader()
    batch = next(iter(loader))
    assert batch.frames.shape == (2, 12, 3, 32, 64)
    assert batch.frames.dtype == torch.uint8
    assert batch.valid.any()
    inside = batch.boxes[batch.valid]
    corners = torch.cat((inside[:, :2] - inside[:, 2:] / 2, inside[:, :2] + inside[:, 2:] / 2), 1)
    assert corners.min() >= -1e-6
    assert corners.max() <= 1 + 1e-6
    assert batch.xyz is not None
    assert module.train_dataloader() is loader


def test_validation_streams_whole_sequences(drawn: Path) -> None:
    module = synthetic(drawn, eval_window={"length": 4})
    seen: dict[str, list[int]] = {}
    for batch in module.val_dataloader():
        assert batch.frames.shape == (1, 4, 3, 32, 64)
        numbers = batch.frame_indices[0, ~batch.padding_mask[0]].tolist()
        seen.setdefault(batch.sequence_ids[0], []).extend(numbers)
    assert seen == {f"dance{i:04d}": list(range(1, 11)) for i in (1, 2, 3)}
    # Exact ground truth for the evaluation, in original pixels, is at hand.
    assert all(s.table.boxes.dtype.name == "float64" for s in module.sequences("val"))


def test_ranks_share_whole_sequences(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = synthetic(drawn)
    seen = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        seen.append({b.sequence_ids[0] for b in module.val_dataloader()})
    assert seen == [{"dance0001", "dance0003"}, {"dance0002"}]
    # A process too many gets something to go through, and nothing to see.
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    (batch,) = module.val_dataloader()
    assert batch.padding_mask.all() and not batch.valid.any()


def test_a_cached_run_sees_the_same_as_an_uncached_one(drawn: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache_dir": str(tmp_path), "base_scale": 1.25}
    batches = [
        next(iter(synthetic(drawn, cache=cache, **options).train_dataloader()))
        for cache in (False, True, True)
    ]
    assert list(tmp_path.glob("frames/*-40x80-*.frames"))  # 1.25 times the size
    assert list(tmp_path.glob("metadata/*.json"))
    for batch in batches[1:]:
        assert torch.equal(batch.frames, batches[0].frames)
        assert torch.equal(batch.boxes, batches[0].boxes)


def test_a_root_that_cannot_be_written_to(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module.os, "access", lambda *_: False)
    module = synthetic(drawn)
    with pytest.raises(ValueError, match=r"dataset.cache_dir=FOLDER or dataset.cache=false"):
        module.train_dataloader()
    next(iter(synthetic(drawn, cache=False).train_dataloader()))


def mot(root: Path, **options: Any) -> TrackingDataModule:
    settings = {"root": str(root), "size": [32, 48], "cache_dir": str(root / "cache")}
    return build("mot", **(settings | options))


def test_training_without_ground_truth_is_refused(make_sequence) -> None:
    root = make_sequence("A", gt=None).parents[1]
    module = mot(root, train="train", val="train", test="train")
    with pytest.raises(FileNotFoundError, match=r"dataset\.train have no gt/gt.txt, first A"):
        module.setup("fit")
    module.setup("test")  # a test split has none
    assert len(list(module.test_dataloader())) == 1


def test_a_split_that_is_not_there(make_sequence) -> None:
    root = make_sequence("A").parents[1]
    module = mot(root, train="train", val="val")
    with pytest.raises(FileNotFoundError, match="dataset.root="):
        module.setup("fit")
    with pytest.raises(ValueError, match="there is no test split: type dataset.test="):
        module.setup("test")


def tracknet(root: Path, **options: Any) -> TrackingDataModule:
    settings = {
        "root": str(root),
        "size": [36, 64],
        "cache_dir": str(root / "cache"),
        "eval_window": {"length": 3},
    }
    return build("tracknet", **(settings | options))


def test_a_ball_through_the_same_module(make_clip, flight, caplog) -> None:
    root = make_clip(balls=flight).parents[1]
    make_clip("game2/Clip1", balls=flight)
    module = tracknet(root, train=["game1"], val=["game2/Clip1:0-4"], batch_size=2)
    with caplog.at_level("INFO"):
        module.setup("fit")
    assert "absent 1, visible 3, hard 1, occluded 1" in caplog.text
    assert module.class_names == ["ball"]
    assert module.visibility_counts("val") == [1, 2, 1, 1]
    batch = next(iter(module.train_dataloader()))
    assert batch.frames.shape == (2, 5, 3, 36, 64) and batch.visibility.shape == (2, 5, 1)
    chunks = list(module.val_dataloader())
    assert [c.frame_indices.tolist() for c in chunks] == [[[0, 1, 2]], [[3, 4, 4]]]
    assert chunks[1].points is not None and chunks[1].points[0, :, 2].tolist() == [2, 3, -1]
    # The exact truth, by frame.
    (clip,) = module.sequences("val")
    assert clip.points is not None and clip.points[3].tolist() == [29, 13, 2]


def test_training_on_clips_without_labels_is_refused(make_clip, flight) -> None:
    root = make_clip(balls=flight, labels="").parents[1]
    module = tracknet(root, train=["game1"], val=["game1"])
    with pytest.raises(FileNotFoundError, match="have no Label.csv, first game1_Clip1"):
        module.setup("fit")
