"""Fixtures for all tests: where things are, and small machines are kept quiet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
    """The folder of one finished run of two epochs; to be read only."""
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
