"""Fixtures for all tests, and the rule that marks the tests which start processes."""

from __future__ import annotations

import fcntl
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import pytest
from omegaconf import DictConfig

# Two test processes with a thread pool each would compete for two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
_STARTERS = {"subprocess", "multiprocessing"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks with ``process`` each test whose own code or fixtures start another process.

    Tests, their fixtures and the helpers under ``tests`` that they name are searched for the
    modules in ``_STARTERS``. ``make check`` leaves these tests out.
    """
    known: dict[Any, bool] = {}
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        functions = [item.function, *(fixture.func for group in fixtures for fixture in group)]
        if any(_starts_a_process(function, known) for function in functions):
            item.add_marker(pytest.mark.process)


def _starts_a_process(thing: Any, known: dict[Any, bool]) -> bool:
    """Whether a function or class under ``tests`` refers, also indirectly, to a process module."""
    if isinstance(thing, MethodType):
        thing = thing.__func__
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not isinstance(thing, FunctionType | type) or not thing.__module__.startswith("tests"):
        return False
    if thing not in known:
        known[thing] = False  # while it is searched: functions may refer to each other
        known[thing] = any(
            getattr(found, "__name__", None) in _STARTERS or _starts_a_process(found, known)
            for found in _references(thing)
        )
    return known[thing]


def _references(thing: FunctionType | type) -> Iterator[Any]:
    """The global objects that the code of a function, or of a class's methods, names."""
    if isinstance(thing, type):
        yield from (part for part in vars(thing).values() if isinstance(part, FunctionType))
        return
    codes = [thing.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        imported = [sys.modules[name] for name in code.co_names if name in sys.modules]
        yield from imported
        for name in code.co_names:
            for module in imported:  # from tests.compose import command
                yield getattr(module, name, None)
            yield thing.__globals__.get(name)


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
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the worker processes of a parallel test session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "session"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_dance(session_folder: Path) -> list[str]:
    """Overrides that make ``dataset=synthetic_dance`` a set of three short, small sequences."""
    return [
        f"dataset.root={session_folder / 'dance'}",
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
def run_folder(tiny_dance: list[str], session_folder: Path) -> Path:
    """The folder of one finished run of two epochs, which tests only read.

    With several test processes the first one trains it, the others wait and use the same folder.
    """
    from tests.compose import MINIMAL, command

    run = session_folder / "run"
    words = [*MINIMAL, *tiny_dance, f"hydra.run.dir={run}", "trainer.max_epochs=2"]
    with (session_folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / "summary.json").is_file():
            done = command("train", words, session_folder)
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
        named = {
            "hf_auto": str(hf_folder),
            "timm": "convnext_atto",
            "efficientnet_lite2": "mobilenetv2_035",  # timm's EfficientNet too, but small
        }.get(name)
        return [
            f"model/backbone={name}",
            *weights,
            *([f"model.backbone.name={named}"] if named else []),
        ]

    return choose
