"""Drawing into a folder: the same again, once, and no half dataset after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from scene_track.synthetic.folder import DrawnDataset, draw_by_hand
from tests.synthetic.conftest import tiny

pytestmark = pytest.mark.slow

PREPARE = (
    "import sys, json; from scene_track.synthetic.dance import SyntheticDance;"
    "SyntheticDance(**json.loads(sys.argv[1])).prepare()"
)


def start(dataset: DrawnDataset) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PREPARE, json.dumps(asdict(dataset))])


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    ("name", "fewer"),
    [
        ("synthetic_dance", {"train_sequences": 1}),
        ("synthetic_tennis", {"train_games": 1, "val_games": 2}),
    ],
)
def test_files_depend_on_the_options_alone(
    name: str, fewer: dict[str, int], tiny_sets: dict[str, DrawnDataset], tmp_path: Path
) -> None:
    first = tiny_sets[name].folder
    again = tiny(name, tmp_path, workers=1).prepare()
    assert again.name == first.name  # the number of workers is no option of the images
    assert content(again) == content(first)
    # One video does not depend on how many others there are.
    common = content(tiny(name, tmp_path, **fewer).prepare())
    same = [file for file in common if file != "manifest.json" and file in content(first)]
    assert len(same) > 4
    assert {file: content(first)[file] for file in same} == {file: common[file] for file in same}
    other = tiny(name, tmp_path, seed=1).prepare()
    assert other.name != first.name and content(other) != content(first)


def test_reading_before_drawing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare"):
        tiny("synthetic_dance", tmp_path).sequences("train")


def test_it_is_written_once(tiny_sets: dict[str, DrawnDataset]) -> None:
    dataset = tiny_sets["synthetic_dance"]
    before = {f: f.stat().st_mtime_ns for f in dataset.folder.rglob("*")}
    dataset.prepare()
    assert {f: f.stat().st_mtime_ns for f in dataset.folder.rglob("*")} == before


def test_processes_that_start_together_draw_once(
    tiny_sets: dict[str, DrawnDataset], tmp_path: Path
) -> None:
    dataset = tiny("synthetic_dance", tmp_path)
    for process in [start(dataset) for _ in range(3)]:
        assert process.wait(60) == 0
    assert [p for p in tmp_path.iterdir() if not p.name.startswith(".")] == [dataset.folder]
    assert content(dataset.folder) == content(tiny_sets["synthetic_dance"].folder)


def test_a_kill_leaves_no_half_dataset(tmp_path: Path) -> None:
    def images() -> int:
        return len(list(tmp_path.glob(".v*.tmp-*/*/*/img1/*.jpg")))

    process = start(tiny("synthetic_dance", tmp_path, frames=400))
    deadline = time.monotonic() + 30
    while not images():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(tmp_path.glob("v*"))
    # Its workers notice and stop, so that nothing is written into what the next run removes.
    before = -1
    while before != images():
        assert time.monotonic() < deadline
        before = images()
        time.sleep(0.25)
    leftover = next(tmp_path.glob(".v*.tmp-*"))
    dataset = tiny("synthetic_dance", tmp_path)
    half = tmp_path / f".{dataset.folder.name}.tmp-1"
    leftover.rename(half)  # as if the killed run had been this one
    assert dataset.prepare().is_dir()
    assert not half.exists()


def test_a_failing_worker_is_reported(tmp_path: Path) -> None:
    dataset = tiny("synthetic_dance", tmp_path)
    object.__setattr__(dataset, "frames", "many")
    with pytest.raises(RuntimeError, match="TypeError"):
        dataset.prepare()
    assert not any(tmp_path.glob("[!.]*"))


def test_by_hand_the_dataset_of_the_yaml_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DrawnDataset, "prepare", lambda dataset: dataset.folder)
    draw_by_hand("synthetic_dance", [f"root={tmp_path}"])
    expected = tiny("synthetic_dance", tmp_path, train_sequences=24, val_sequences=12,
                    test_sequences=2, frames=60, width=448, height=256)  # fmt: skip
    assert capsys.readouterr().out == f"{expected.folder}\n"
    with pytest.raises(SystemExit, match="folder=a"):
        draw_by_hand("synthetic_dance", ["folder=a"])
