"""The synthetic dance: a DanceTrack folder, tight boxes, and as hard as it should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scene_track.synthetic.choreography import choreograph
from scene_track.synthetic.dance_drawing import body_boxes, draw_costumes, draw_dancer
from scene_track.synthetic.dance_stage import SCALE
from scene_track.synthetic.folder import DrawnDataset


@pytest.fixture
def dance(tiny_sets: dict[str, DrawnDataset]) -> DrawnDataset:
    return tiny_sets["synthetic_dance"]


def test_it_is_a_dancetrack_folder(dance: DrawnDataset) -> None:
    folder = dance.folder
    names = sorted(str(p.relative_to(folder)) for p in folder.glob("*/*"))
    assert names == ["test/dance0001", "train/dance0001", "train/dance0002", "val/dance0001"]
    assert len(list((folder / "val" / "dance0001" / "img1").iterdir())) == 4
    with Image.open(folder / "train" / "dance0002" / "img1" / "00000004.jpg") as image:
        assert image.size == (128, 64)
    assert not (folder / "test" / "dance0001" / "gt").exists()


def test_the_reader_of_dancetrack_reads_it(dance: DrawnDataset) -> None:
    sequences = dance.sequences("train")
    assert [s.name for s in sequences] == ["dance0001", "dance0002"]
    for sequence in sequences:
        table = sequence.table
        assert len(table) > 0
        assert sequence.xyz is not None
        assert np.isfinite(sequence.xyz).all()
        assert (table.boxes[:, :2] >= 0).all()
        assert ((table.boxes[:, :2] + table.boxes[:, 2:]) <= (128.01, 64.01)).all()
        assert (table.boxes[:, 2:] >= 2.99).all()
    assert not dance.sequences("test")[0].labelled


def test_impossible_numbers_of_dancers(dance: DrawnDataset) -> None:
    with pytest.raises(ValueError, match=r"min_dancers=9 .*max_dancers=7"):
        replace(dance, min_dancers=9)


def test_boxes_are_tight_around_the_drawn_body() -> None:
    rng = np.random.default_rng(4)
    dance = choreograph(rng, np.arange(8) / 20, 5, 448, 256)
    costumes = draw_costumes(rng, 5)
    boxes = body_boxes(dance, np.arange(8))
    compared = 0
    for s in range(8):
        for n in range(5):
            box = boxes[s, n]
            if box[0] < 2 or box[2] > 446 or box[3] > 254:
                continue
            canvas = Image.new("RGB", (448 * SCALE, 256 * SCALE))
            draw_dancer(ImageDraw.Draw(canvas), dance, costumes[n], s, n)
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
