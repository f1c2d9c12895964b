"""The synthetic data set: what it writes, again the same, and no half of it after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scene_track.synthetic.choreography import PELVIS, choreograph
from scene_track.synthetic.dance import SyntheticDance
from scene_track.synthetic.dance_drawing import SCALE, _draw_dancer, body_boxes, draw_costumes

TINY: dict[str, Any] = {
    "train_sequences": 2,
    "val_sequences": 1,
    "test_sequences": 1,
    "frames": 4,
    "width": 128,
    "height": 64,
}
PREPARE = (
    "import sys; from scene_track.synthetic.dance import SyntheticDance;"
    f"SyntheticDance(root=sys.argv[1], frames=int(sys.argv[2]),"
    f"**{ {k: v for k, v in TINY.items() if k != 'frames'} }).prepare()"
)


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SyntheticDance(root=str(tmp_path_factory.mktemp("dance")), **TINY).prepare()


def test_it_is_a_dancetrack_folder(tiny: Path) -> None:
    names = sorted(str(p.relative_to(tiny)) for p in tiny.glob("*/*"))
    assert names == ["test/dance0001", "train/dance0001", "train/dance0002", "val/dance0001"]
    assert len(list((tiny / "val" / "dance0001" / "img1").iterdir())) == 4
    with Image.open(tiny / "train" / "dance0002" / "img1" / "00000004.jpg") as image:
        assert image.size == (128, 64)
    assert not (tiny / "test" / "dance0001" / "gt").exists()


def test_the_same_reader_reads_it(tiny: Path) -> None:
    source = SyntheticDance(root=str(tiny.parent), **TINY)
    sequences = source.sequences("train")
    assert [s.name for s in sequences] == ["dance0001", "dance0002"]
    for sequence in sequences:
        table = sequence.table
        assert len(table) > 0
        assert sequence.xyz is not None
        assert np.isfinite(sequence.xyz).all()
        assert (table.boxes[:, :2] >= 0).all()
        assert ((table.boxes[:, :2] + table.boxes[:, 2:]) <= (128.01, 64.01)).all()
        assert (table.boxes[:, 2:] >= 2.99).all()
    assert not source.sequences("test")[0].labelled


def test_the_same_again_and_other_parameters_elsewhere(tiny: Path, tmp_path: Path) -> None:
    again = SyntheticDance(root=str(tmp_path), workers=1, **TINY).prepare()
    assert again.name == tiny.name  # the number of workers is no parameter of the pictures
    assert content(again) == content(tiny)
    other = SyntheticDance(root=str(tmp_path), seed=1, **TINY).prepare()
    assert other.name != again.name
    frame = "train/dance0001/img1/00000001.jpg"
    assert content(other)[frame] != content(again)[frame]
    assert content(again) == content(tiny)


def test_sequences_do_not_depend_on_how_many_there_are(tiny: Path, tmp_path: Path) -> None:
    fewer = SyntheticDance(root=str(tmp_path), **(TINY | {"train_sequences": 1})).prepare()
    for name, data in content(fewer).items():
        if name != "manifest.json":
            assert content(tiny)[name] == data


def test_it_is_written_once(tiny: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in tiny.rglob("*")}
    SyntheticDance(root=str(tiny.parent), **TINY).prepare()
    assert {f: f.stat().st_mtime_ns for f in tiny.rglob("*")} == before


def test_processes_that_start_together_draw_once(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARE, str(tmp_path), "4"]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(60) == 0
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == [tiny.name]
    assert content(tmp_path / tiny.name) == content(tiny)


def test_a_kill_leaves_no_half_data_set(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PREPARE, str(tmp_path), "400"])
    deadline = time.monotonic() + 30
    while not any(tmp_path.glob(".v*.tmp-*/*/*/img1/*.jpg")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(tmp_path.glob("v*"))
    # Its painters notice and stop, so that nothing is written into what the next run removes.
    while True:
        before = len(list(tmp_path.glob(".v*.tmp-*/*/*/img1/*.jpg")))
        time.sleep(0.25)
        if len(list(tmp_path.glob(".v*.tmp-*/*/*/img1/*.jpg"))) == before:
            break
        assert time.monotonic() < deadline
    leftover = next(tmp_path.glob(".v*.tmp-*"))
    source = SyntheticDance(root=str(tmp_path), **TINY)
    half = tmp_path / f".{source.folder.name}.tmp-1"
    leftover.rename(half)  # as if the killed run had been this one
    assert source.prepare().is_dir()
    assert not half.exists()


def test_impossible_numbers_of_dancers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="min_dancers=9 is more than max_dancers=7"):
        SyntheticDance(root=str(tmp_path), min_dancers=9)


def test_reading_before_drawing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare"):
        SyntheticDance(root=str(tmp_path), **TINY).sequences("train")


def test_boxes_are_tight_around_the_drawn_body() -> None:
    rng = np.random.default_rng(4)
    dance = choreograph(rng, np.arange(8) / 20, 5, 448, 256)
    costumes = draw_costumes(rng, 5)
    boxes = body_boxes(dance, np.arange(8))
    points = dance.stage.project(dance.joints)
    compared = 0
    for s in range(8):
        for n in range(5):
            box = boxes[s, n]
            if box[0] < 2 or box[2] > 446 or box[3] > 254:
                continue
            canvas = Image.new("L", (448 * SCALE, 256 * SCALE), 0).convert("RGB")
            unit = float(dance.stage.focal * SCALE / dance.joints[s, n, PELVIS, 2])
            _draw_dancer(
                ImageDraw.Draw(canvas), points[s, n] * SCALE, dance.joints[s, n], unit, costumes[n]
            )
            drawn = canvas.getbbox()
            assert drawn is not None
            assert np.abs(np.array(drawn) / SCALE - box).max() < 2.5
            compared += 1
    assert compared > 20


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)


def test_it_is_as_hard_as_it_should_be() -> None:
    """Large motion, look-alikes that overlap, and people who leave and come back."""
    steps, overlaps, heights, returns = [], [], [], 0
    for seed in range(16):
        rng = np.random.default_rng((9, seed))
        count = int(rng.integers(4, 8))
        dance = choreograph(rng, np.arange(60) / 20, count, 448, 256)
        boxes = body_boxes(dance, np.arange(60)).clip(0, (448, 256, 448, 256))
        seen = (boxes[..., 2] - boxes[..., 0]) > 8
        steps.append(_iou(boxes[1:], boxes[:-1])[seen[1:] & seen[:-1]])
        pairs = _iou(boxes[:, :, None], boxes[:, None]) * seen[:, None, :]
        pairs[:, np.arange(count), np.arange(count)] = 0
        overlaps.append((pairs.max(-1) > 0.3)[seen])
        heights.append((boxes[..., 3] - boxes[..., 1])[seen])
        for dancer in range(count):
            changes = np.diff(seen[:, dancer].astype(int))
            gone = np.flatnonzero(changes == -1)
            returns += bool(len(gone) and (changes[gone[0] :] == 1).any())
    assert 0.55 < np.concatenate(steps).mean() < 0.75
    assert 0.2 < np.concatenate(overlaps).mean() < 0.4
    low, high = np.percentile(np.concatenate(heights), (5, 95))
    assert 65 < low < 90
    assert 100 < high < 130
    assert returns >= 2
