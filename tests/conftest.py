"""Fixtures for all tests: where things are, and small machines are kept quiet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

# Two test processes with a pool of threads each would fight for two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real footage and reference numbers beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(
            "needs the folder 'shared' (real footage, reference numbers) beside the checkout; it is"
            " not part of the repository, and the small extracts in tests/golden are tested anyway"
        )
    return folder


@pytest.fixture(scope="session")
def tiny_dance(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make ``dataset=synthetic_dance`` a set of three short, small sequences."""
    root = tmp_path_factory.mktemp("dance")
    return [
        f"dataset.root={root}",
        "dataset.source.train_sequences=2",
        "dataset.source.val_sequences=1",
        "dataset.source.test_sequences=1",
        "dataset.source.frames=10",
        "dataset.source.width=96",
        "dataset.source.height=64",
        "dataset.source.max_dancers=4",
        "dataset.source.workers=1",
        "dataset.size=[64,96]",
    ]


@pytest.fixture(scope="session")
def run_folder(tiny_dance: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run of two epochs; not to be written to."""
    from tests.compose import MINIMAL, command

    folder = tmp_path_factory.mktemp("run")
    run = folder / "run"
    done = command(
        "train",
        [*MINIMAL, *tiny_dance, f"hydra.run.dir={run}", "trainer.max_epochs=2"],
        folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run


@pytest.fixture
def composed() -> Iterator[Callable[..., DictConfig]]:
    """Composes a job's configuration as its entry point would: ``composed("evaluate", "clips=1")``.

    So that a job can be called in this process, where starting one takes seconds.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from scene_track.config.paths import config_dir

    def job(name: str, *overrides: str) -> DictConfig:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    yield job
    HydraConfig.instance().cfg = None


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vision transformer of Hugging Face with its image processor, on disk."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("hf") / "vit"
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], size={"height": 32, "width": 48}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_backbone(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Overrides that choose an entry of ``conf/model/backbone`` at a size that costs nothing.

    Its weights are random, and the DINOv3 family is two blocks deep while the test runs: the real
    sizes have tests of their own.
    """
    import dataclasses

    from scene_track.config.paths import config_dir
    from scene_track.models.backbones.dinov3.variants import CONVNEXTS, VITS

    for name, vit in VITS.items():
        small = dataclasses.replace(vit, dim=48, depth=2, heads=3, hidden=64)
        monkeypatch.setitem(VITS, name, small)
    for name, convnext in CONVNEXTS.items():
        small = dataclasses.replace(convnext, dims=(8, 16, 24, 32), depths=(1, 1, 2, 1))
        monkeypatch.setitem(CONVNEXTS, name, small)

    def choose(name: str) -> list[str]:
        text = (Path(config_dir()) / "model" / "backbone" / f"{name}.yaml").read_text()
        weights = ["model.backbone.weights=null"] if "weights:" in text else []
        named = {"hf_auto": str(hf_folder), "timm": "convnext_atto"}.get(name)
        return [
            f"model/backbone={name}",
            *weights,
            *([f"model.backbone.name={named}"] if named else []),
        ]

    return choose
