"""What surrounds the code: the wheel, the pins, the Makefile, the submodules."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())


def _copy_setup(repo_root: Path, folder: Path) -> None:
    """Copies what `make` needs to set a checkout up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repo_root / name, folder)
    shutil.copytree(repo_root / "requirements", folder / "requirements")


def _make(repo_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    # `make test` runs these tests: its own flags must not reach the make that is tested.
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", *arguments], cwd=repo_root, env=clean, capture_output=True, text=True
    )


def test_the_wheel_carries_the_configuration_and_nothing_else(
    repo_root: Path, tmp_path: Path
) -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = builders.WheelBuilder(str(repo_root)).build(
        directory=str(tmp_path), versions=["standard"]
    )
    files = zipfile.ZipFile(wheel).namelist()
    carried = {name for name in files if name.startswith("scene_track/conf/")}
    conf = repo_root / "conf"
    assert carried == {
        f"scene_track/conf/{file.relative_to(conf).as_posix()}" for file in conf.rglob("*.yaml")
    }
    assert "scene_track/config/check.py" in files
    tops = {name.split("/")[0] for name in files}
    assert tops == {"scene_track", "scene_track-0.2.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert not any("__pycache__" in name for name in files)

    # As installed: the configuration is found, from any folder.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from scene_track.config.paths import config_dir; print(config_dir())"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == str(tmp_path / "site" / "scene_track" / "conf"), shown.stderr


def test_constraints_are_plain_pins_that_cover_the_dependencies(
    repo_root: Path, project: dict
) -> None:
    lines = (repo_root / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    names = {_normalised(pin.split("==")[0]) for pin in pins}
    assert len(names) == len(pins), "a package is pinned twice"
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["dev"] + extras["cluster"]
    missing = [w for w in wanted if _normalised(re.split(r"[\[=<>~!; ]", w)[0]) not in names]
    assert not missing


def test_installs_are_locked_by_hash_to_the_pinned_versions(repo_root: Path, project: dict) -> None:
    pins = dict(
        line.split("==")
        for line in (repo_root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    pins = {_normalised(name): version for name, version in pins.items()}
    locked: dict[str, str] = {}
    for file in ("dev", "headless"):
        text = (repo_root / "requirements" / f"{file}.txt").read_text()
        assert "://" not in text, "an address"
        for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
            if not entry.strip():
                continue
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ]+)", entry)
            assert match is not None and "--hash=sha256:" in entry, entry[:80]
            locked[_normalised(match[1])] = match[2]
    differing = {n for n in locked.keys() & pins.keys() if locked[n] != pins[n]}
    assert not differing, "type make lock"
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["dev"] + extras["pretrained"]
    missing = [w for w in wanted if _normalised(re.split(r"[\[=<>~!; ]", w)[0]) not in locked]
    assert not missing, "type make lock"


def test_installed_versions_are_the_pinned_ones_that_matter(repo_root: Path) -> None:
    from importlib.metadata import version

    pins = dict(
        line.split("==")
        for line in (repo_root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    for name in ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "hydra-optuna-sweeper"):
        assert version(name).split("+")[0] == pins[name], name


def test_every_target_of_the_makefile_is_in_its_help(repo_root: Path) -> None:
    text = (repo_root / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))
    wanted = {
        "train",
        "test",
        "check",
        "setup",
        "data",
        "sweep",
        "evaluate",
        "compare",
        "submit",
        "tensorboard",
        "lint",
    }
    assert targets >= wanted | {"third-party", "clean"}
    shown = _make(repo_root, "help").stdout
    listed = set(re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE))
    assert listed == targets


def test_make_train_and_test_set_everything_up_first(repo_root: Path, tmp_path: Path) -> None:
    # A checkout without .venv; -n prints what would be run.
    _copy_setup(repo_root, tmp_path)
    for target, last in (("train", "scene_track.train seed=3"), ("test", "bin/pytest")):
        shown = _make(tmp_path, "-n", target, "ARGS=seed=3").stdout
        steps = [
            "-m venv",
            "pip install",
            "--require-hashes -r requirements/dev.txt",
            "-e .",
            "touch",
            last,
        ]
        places = [shown.find(step) for step in steps]
        assert -1 not in places and places == sorted(places), shown
    shown = _make(tmp_path, "-n", "test").stdout
    steps = ["ruff format --check", "ruff check", "pyright", "bin/pytest"]
    places = [shown.find(step) for step in steps]
    assert -1 not in places and places == sorted(places)


def test_make_skips_the_set_up_that_is_done_and_repeats_it_for_new_pins(
    repo_root: Path, tmp_path: Path
) -> None:
    _copy_setup(repo_root, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in _make(tmp_path, "-n", "train").stdout
    shown = _make(tmp_path, "-n", "-W", "requirements/dev.txt", "train").stdout
    assert "pip install" in shown


def test_make_says_what_to_do_without_a_python(repo_root: Path, tmp_path: Path) -> None:
    _copy_setup(repo_root, tmp_path)
    for python in ("", "/no/such/python"):
        result = _make(tmp_path, "setup", f"PYTHON={python}")
        assert result.returncode != 0
        assert "make setup PYTHON=/path/to/python3.11" in result.stderr
        assert not (tmp_path / ".venv").exists()


@pytest.fixture
def recorder(repo_root: Path, tmp_path: Path) -> Path:
    """A checkout that is set up, with a Python that only writes down what it is asked to do."""
    _copy_setup(repo_root, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> calls\ntest ! -e fail\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def test_make_compare_compares_the_run_that_it_trained(recorder: Path) -> None:
    done = _make(recorder, "compare", "ARGS=seed=3")
    assert done.returncode == 0, done.stderr
    train, compare = (recorder / "calls").read_text().splitlines()
    made = re.fullmatch(
        r"-m scene_track.train trainer.max_epochs=3 hydra.run.dir=(\S+) seed=3", train
    )
    assert made and compare == f"-m scene_track.compare checkpoint={made[1]}"
    assert list((recorder / made[1]).iterdir()) == []  # a folder of its own, nobody else's


def test_make_compare_takes_a_checkpoint_and_trains_nothing(recorder: Path) -> None:
    assert _make(recorder, "compare", "CHECKPOINT=a run/x", "ARGS=split=test").returncode == 0
    (call,) = (recorder / "calls").read_text().splitlines()
    assert call == "-m scene_track.compare checkpoint=a run/x split=test"


def test_make_compare_stops_where_training_failed(recorder: Path) -> None:
    (recorder / "fail").touch()
    assert _make(recorder, "compare").returncode != 0
    assert len((recorder / "calls").read_text().splitlines()) == 1


def test_make_clean_keeps_runs_and_data(repo_root: Path, tmp_path: Path) -> None:
    shutil.copy(repo_root / "Makefile", tmp_path)
    for name in ("outputs", "data", "dist", "scene_track/__pycache__", "tests", "benchmarks"):
        (tmp_path / name).mkdir(parents=True)
    assert _make(tmp_path, "clean").returncode == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert {"outputs", "data"} <= left and "dist" not in left
    assert not (tmp_path / "scene_track" / "__pycache__").exists()
    refused = _make(tmp_path, "clean-all")
    assert refused.returncode != 0 and "CONFIRM=1" in refused.stderr
    assert (tmp_path / "outputs").exists()


def test_submodules_and_their_readme(repo_root: Path) -> None:
    modules = configparser.ConfigParser()
    # git indents the values, which the parser would read as continuation lines
    text = (repo_root / ".gitmodules").read_text()
    modules.read_string(re.sub(r"^\s+", "", text, flags=re.MULTILINE))
    paths = {modules[section]["path"] for section in modules.sections()}
    assert paths == {"third_party/DanceTrack", "third_party/dinov3", "third_party/DINO"}
    readme = (repo_root / "third_party" / "README.md").read_text()
    for path in paths:
        name = path.split("/")[1]
        assert f"`{name}`" in readme
    for commit in (
        "44057dcc07e4bf6bcad2e6888c9d83ec63d4b1a3",
        "6876159a11b4df116f30f667f8c9888617df0751",
        "faa8520fe9604c23ad65a48bc583550a44c0e3ab",
    ):
        assert commit in readme


def test_ignored_folders_do_not_swallow_the_sources(repo_root: Path) -> None:
    probes = [
        "scene_track/data/batch.py",
        "conf/dataset/mot.yaml",
        "outputs/run/summary.json",
        "data/x",
    ]
    result = subprocess.run(
        ["git", "check-ignore", *probes], cwd=repo_root, capture_output=True, text=True
    )
    if result.returncode not in (0, 1):
        pytest.skip("needs a git checkout")
    assert result.stdout.split() == ["outputs/run/summary.json", "data/x"]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
