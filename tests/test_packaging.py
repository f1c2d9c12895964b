"""What surrounds the code: the wheel, the pins, the Makefile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def pins(repo_root: Path) -> dict[str, str]:
    """Versions of ``constraints.txt`` by package."""
    text = (repo_root / "constraints.txt").read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)$", text, re.MULTILINE)
    assert len(found) == sum(1 for line in text.splitlines() if line and line[0] != "#")
    return {_normalised(name): pinned for name, pinned in found}


@pytest.fixture
def checkout(repo_root: Path, tmp_path: Path) -> Path:
    """What `make` needs of a checkout that is not set up yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repo_root / name, tmp_path)
    shutil.copytree(repo_root / "requirements", tmp_path / "requirements")
    return tmp_path


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    # `make test` runs these tests: its own flags must not reach the make that is tested.
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean, capture_output=True, text=True
    )


def test_the_wheel_carries_the_configuration_and_nothing_else(
    repo_root: Path, tmp_path: Path
) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = builders.WheelBuilder(str(repo_root)).build(
        directory=str(tmp_path), versions=["standard"]
    )
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        archive.extractall(tmp_path / "site")
    conf = repo_root / "conf"
    assert {name for name in files if name.startswith("scene_track/conf/")} == {
        f"scene_track/conf/{file.relative_to(conf).as_posix()}" for file in conf.rglob("*.yaml")
    }
    assert {name.split("/")[0] for name in files} == {"scene_track", "scene_track-0.2.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert not any("__pycache__" in name for name in files)
    # As installed: the configuration is found, from any folder.
    code = "from scene_track.config.paths import config_dir; print(config_dir())"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == str(tmp_path / "site" / "scene_track" / "conf"), shown.stderr


def test_every_dependency_is_pinned_and_locked_by_hash(
    repo_root: Path, pins: dict[str, str]
) -> None:
    locked: dict[str, str] = {}
    for file in ("dev", "headless"):
        text = (repo_root / "requirements" / f"{file}.txt").read_text()
        assert "://" not in text, "an address"
        for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ]+)", entry)
            assert match is not None and "--hash=sha256:" in entry, entry[:80]
            locked[_normalised(match[1])] = match[2]
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(*groups: list[str]) -> set[str]:
        return {_normalised(re.split(r"[\[=<>~!; ]", w)[0]) for group in groups for w in group}

    assert names(project["dependencies"], extras["dev"], extras["cluster"]) <= pins.keys()
    assert names(project["dependencies"], extras["dev"], extras["pretrained"]) <= locked.keys(), (
        "type make lock"
    )
    assert not {n for n in locked.keys() & pins.keys() if locked[n] != pins[n]}, "type make lock"


def test_installed_versions_are_the_pinned_ones_that_matter(pins: dict[str, str]) -> None:
    for name in ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "hydra-optuna-sweeper"):
        assert version(name).split("+")[0] == pins[name], name


def test_every_target_of_the_makefile_is_in_its_help(repo_root: Path) -> None:
    text = (repo_root / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))
    assert targets >= {"train", "test", "check", "setup", "sweep", "evaluate", "compare", "submit"}
    shown = _make(repo_root, "help").stdout
    assert set(re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE)) == targets


def test_make_sets_up_first_and_again_for_new_pins(checkout: Path) -> None:
    shown = _make(checkout, "-n", "test").stdout  # prints what would be run
    steps = ["-m venv", "--require-hashes -r requirements/dev.txt", "-e .", "ruff format --check"]
    places = [shown.find(step) for step in [*steps, "ruff check", "pyright", "bin/pytest"]]
    assert -1 not in places and places == sorted(places), shown
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed").touch()
    shown = _make(checkout, "-n", "train", "ARGS=seed=3").stdout
    assert "pip install" not in shown and "scene_track.train seed=3" in shown
    assert "pip install" in _make(checkout, "-n", "-W", "requirements/dev.txt", "train").stdout


def test_make_says_what_to_do_without_a_python(checkout: Path) -> None:
    result = _make(checkout, "setup", "PYTHON=/no/such/python")
    assert result.returncode != 0 and not (checkout / ".venv").exists()
    assert "make setup PYTHON=/path/to/python3.11" in result.stderr


def test_make_compare_compares_the_run_that_it_trained(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"  # only writes down what it is asked to do
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> calls\ntest ! -e fail\n')
    python.chmod(0o755)
    (checkout / ".venv" / ".installed").touch()
    done = _make(checkout, "compare", "ARGS=seed=3")
    assert done.returncode == 0, done.stderr
    train, compare = (checkout / "calls").read_text().splitlines()
    pattern = r"-m scene_track.train trainer.max_epochs=3 hydra.run.dir=(\S+) seed=3"
    made = re.fullmatch(pattern, train)
    assert made and compare == f"-m scene_track.compare checkpoint={made[1]}"
    (checkout / "fail").touch()
    assert _make(checkout, "compare").returncode != 0
    assert (checkout / "calls").read_text().count("scene_track.compare") == 1


def test_make_clean_keeps_runs_and_data(checkout: Path) -> None:
    for name in ("outputs", "data", "dist", "scene_track/__pycache__", "tests", "benchmarks"):
        (checkout / name).mkdir(parents=True)
    assert _make(checkout, "clean").returncode == 0
    left = {path.name for path in checkout.iterdir()}
    assert {"outputs", "data"} <= left and "dist" not in left
    refused = _make(checkout, "clean-all")
    assert refused.returncode != 0 and "CONFIRM=1" in refused.stderr
    assert (checkout / "outputs").exists()


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
