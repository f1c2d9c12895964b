"""Features computed once: the same losses, no pictures, and nothing that depends on the store."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from scene_track.data import clips
from scene_track.data.feature_store import FeatureStore, frame_key
from scene_track.evaluate import evaluate
from scene_track.models.backbones.base import BackboneFeatures
from scene_track.models.backbones.hybrid import HybridBackbone
from scene_track.models.backbones.packing import FeatureLayout, fingerprint, name_of, weights_digest
from scene_track.train import train
from tests.compose import MINIMAL, arguments, compose_run, shipped

pytestmark = pytest.mark.slow

REPEATABLE = [
    f"dataset.augment.{name}=0"
    for name in ("scale", "shift", "channel_permutation", "gain", "bias")
]
RUN = [
    *MINIMAL,
    *REPEATABLE,
    "model.backbone.freeze=true",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=4",
    "trainer.limit_val_batches=1.0",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "dataset.window.length=4",
    "dataset.eval_window.length=4",
    "viz.max_frames=2",
]
CACHE = "model.backbone.cache=true"
Compose = Callable[..., DictConfig]


Rows = list[dict[str, str]]


class Runs:
    """Trains in this process, all runs over one cache."""

    def __init__(self, folder: Path, data: list[str]) -> None:
        self.folder = folder
        self.shared = [*RUN, *data, f"dataset.cache_dir={folder / 'cache'}"]

    def __call__(self, name: str, *overrides: str) -> Rows:
        """The rows of the run's ``metrics.csv``."""
        run = self.folder / name
        run.mkdir(exist_ok=True)
        cfg = compose_run([*self.shared, *overrides])
        cfg.run_dir = str(run)
        train(cfg)
        with (run / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        path = self.folder / name / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def runs(tiny_dance: list[str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), tiny_dance)


@pytest.fixture(scope="module")
def filling(runs: Runs) -> Rows:
    """A first run with a cache, in which clips are mirrored and reversed."""
    return runs("first", CACHE)


def values(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


def test_losses_are_those_without_a_cache(runs: Runs, filling: Rows) -> None:
    plain = runs("plain")
    for name in ("train/loss", "val/loss"):
        expected = values(plain, name)
        assert len(expected) >= 2
        assert values(filling, name) == pytest.approx(expected, rel=2e-3)
    assert values(filling, "cache/training_hits")[-1] > 0
    assert values(filling, "cache/validation_hits") == [0.0, 1.0]


def test_the_next_run_computes_nothing_and_is_the_same_to_the_bit(
    runs: Runs, filling: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the next trial of a sweep, which here reads in worker processes."""
    calls: list[int] = []
    extract = HybridBackbone.extract
    monkeypatch.setattr(
        HybridBackbone, "extract", lambda self, x: calls.append(len(x)) or extract(self, x)
    )
    workers = ["dataset.loader.num_workers=2", "dataset.loader.persistent_workers=true"]
    again = runs("again", CACHE, *workers)
    for name in ("train/loss", "val/loss", "val/hota"):
        assert values(again, name) == values(filling, name) != []
    assert values(again, "cache/training_hits") == [1.0, 1.0]
    assert values(again, "cache/validation_hits") == [1.0, 1.0]
    assert sum(calls) <= 2, "the shape of the features, and a padded frame"


def test_a_run_resumed_where_the_backbone_thaws(runs: Runs) -> None:
    """Read while frozen, not read when trained, and the same as if never interrupted."""
    thaw = [CACHE, "model.backbone.freeze=false", "model.backbone.unfreeze_after=1"]
    steady = [*thaw, "scheduler=constant", "trainer.limit_train_batches=2"]
    whole = runs("whole", *steady)
    runs("cut", *steady, "trainer.max_epochs=1")
    frozen = runs.weights("cut")
    rest = runs("cut", *steady, f"resume_from={runs.folder / 'cut'}")
    assert len(values(whole, "cache/training_hits")) == 1, "nothing is read once it trains"
    assert values(rest, "val/loss") == values(whole, "val/loss")
    last = runs.weights("whole")
    assert all(torch.equal(value, last[name]) for name, value in runs.weights("cut").items())
    name = "model.backbone.blocks.0.qkv.weight"
    assert not torch.equal(frozen[name], last[name])


def test_evaluation_reads_what_training_kept(
    runs: Runs,
    composed: Compose,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the precision of the run, whatever the machine would choose."""
    monkeypatch.setattr("scene_track.training.precision.cpu_has_bf16", lambda: True)
    runs("trained", CACHE, "trainer.max_epochs=1")
    caplog.clear()
    with caplog.at_level("INFO"):
        evaluate(composed("evaluate", f"checkpoint={runs.folder / 'trained'}"))
    assert "val: cache: features of 10 frames read, 0 computed" in caplog.text
    assert "frames/s leaves the backbone out" in caplog.text
    scores = json.loads((runs.folder / "trained/evaluation_val/metrics.json").read_text())
    history = json.loads((runs.folder / "trained/summary.json").read_text())
    best = history["metrics"]["val/hota"]["best"]
    assert scores["combined"]["HOTA"] == pytest.approx(best, abs=1e-6)
    assert scores["precision"] == "32-true"


def test_what_cannot_be_kept_is_refused_all_at_once(runs: Runs) -> None:
    options = ("dataset.augment.scale=0.3", "dataset.augment.gain=0.1", "dataset.base_scale=1.5")
    with pytest.raises(ValueError) as caught:
        runs("refused", CACHE, *options)
    for option in options:
        assert option in str(caught.value)
    assert "type dataset.augment.scale=0" in str(caught.value)
    assert "flip" not in str(caught.value) and "reverse" not in str(caught.value)


def test_a_fast_dev_run_writes_nothing(runs: Runs, tmp_path: Path) -> None:
    cfg = compose_run(
        [*runs.shared, CACHE, "trainer.fast_dev_run=true", f"dataset.cache_dir={tmp_path}"]
    )
    cfg.run_dir = str(tmp_path / "run")
    train(cfg)
    assert not (tmp_path / "features").exists()


def backbone(**changes: Any) -> HybridBackbone:
    torch.manual_seed(0)
    return HybridBackbone(
        **arguments("model.backbone", dim=32, depth=1, freeze=True) | changes
    ).eval()


def test_a_row_holds_all_levels(tmp_path: Path) -> None:
    levels = (torch.randn(2, 48, 8, 12), torch.randn(2, 32, 4, 6))
    features = BackboneFeatures(levels=levels, cls=torch.randn(2, 32))
    layout = FeatureLayout.of(features)
    rows = layout.pack(features)
    assert rows.dtype == torch.float16 and rows.shape == (2, layout.values)
    again = layout.unpack(rows)
    for one, other in zip(
        (*again.levels, again.cls), (*features.levels, features.cls), strict=True
    ):
        assert torch.equal(one, other.half().float())
    features.cls[0, 0] = 1e6
    with pytest.raises(ValueError, match="reach 1e.06.*model.backbone.cache=false"):
        layout.pack(features)


def test_the_name_changes_with_whatever_defines_the_features() -> None:
    def name(net: HybridBackbone, size=(32, 48), precision="float32") -> str:
        return name_of(fingerprint(net, size=size, precision=precision))

    first = name(backbone())
    assert first == name(backbone()) == name(backbone(cache=True, checkpointing=True))
    others = [
        name(backbone(), size=(48, 32)),
        name(backbone(), precision="bfloat16"),
        name(backbone(heads=2)),  # the same weights, other features
        name(backbone(dim=48)),
    ]
    moved = backbone()
    moved.std.mul_(1.01)
    trained = backbone()
    with torch.no_grad():
        next(trained.parameters()).view(-1)[0] += 1e-6
    others += [name(moved), name(trained)]
    assert len({first, *others}) == len(others) + 1
    assert weights_digest(backbone()) == weights_digest(
        backbone().to(memory_format=torch.channels_last)
    )  # type: ignore[call-overload]


MINE = """
import helping
from scene_track.models.backbones.hybrid import HybridBackbone

class Mine(HybridBackbone):
    def normalise(self, frames):
        return helping.brighter(super().normalise(frames))
"""
HELPING = "def brighter(images):\n    return images + 0.1\n"


def test_the_name_changes_with_the_code_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own backbone has no version; where its files lie does not matter."""

    def content(folder: str, mine: str = MINE, helping: str = HELPING) -> dict[str, Any]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine_of_a_test.py").write_text(mine)
        (tmp_path / folder / "helping.py").write_text(helping)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / folder)
            kind = importlib.import_module("mine_of_a_test").Mine
            torch.manual_seed(0)
            net = kind(**arguments("model.backbone", dim=32, depth=1, freeze=True)).eval()
            found = fingerprint(net, size=(32, 48), precision="float32")
        for name in ("mine_of_a_test", "helping"):
            del sys.modules[name]
        return found

    first = content("a")
    assert first == content("b")
    assert first != content("c", mine=MINE.replace("super()", "-super()"))
    assert first != content("d", helping=HELPING.replace("0.1", "0.2"))
    packages = {name.partition(".")[0] for name in first["sources"]}
    assert packages == {"scene_track", "mine_of_a_test", "helping"}, "the others have versions"


def test_pictures_stay_where_a_model_looks_at_them(
    composed: Compose, tiny_dance: list[str], tmp_path: Path
) -> None:
    cfg = composed("config", *RUN, *tiny_dance)
    data = instantiate(cfg.dataset)
    data.prepare_data()
    sequence = data.sequences("val")[0]
    data.features.store = FeatureStore(tmp_path, "net", values=7, limit_bytes=10**6)
    for position in range(len(sequence)):
        key = frame_key(sequence, position, mirrored=False)
        data.features.store.write(key, torch.full((7,), position + 1.0).half())
    windows = list(data.stream_dataloader("val"))
    assert [w.frames.shape[-2:] for w in windows] == [(64, 96), (0, 0), (0, 0)]
    assert [w.features[0, 0, 0] for w in windows] == [1, 5, 9]
    assert windows[-1].stored == [[True, True, False, False]]
    data.features.pictures = True
    shown = list(data.stream_dataloader("val"))
    data.features.store = None
    for window, plain in zip(shown, data.stream_dataloader("val"), strict=True):
        assert torch.equal(window.frames, plain.frames) and plain.stored is None
        part = window.between(1, 3)
        assert part.stored == [window.stored[0][1:3]]
        assert torch.equal(part.features, window.features[:, 1:3])


def test_a_mirrored_clip_is_foreseen() -> None:
    augment = shipped("dataset.augment", flip=0.5)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        foreseen = augment.will_mirror(generator)
        clip = clips.Clip.of(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, 4))
        assert augment(clip, (8, 8), generator).mirrored == foreseen
