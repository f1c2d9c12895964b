"""Still images as clips: boxes follow the camera, ignored regions travel, sources mix by weight."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.config.check import check
from scene_track.data.collate import collate
from scene_track.data.export_coco import main as export_coco
from scene_track.data.samples import Sample, mix
from scene_track.data.stills import CameraPath, covered_share, moved_boxes, render, resolution
from scene_track.data.visibility import Visibility
from tests.compose import compose_run, shipped
from tests.data.still_folders import SIZE, draw, write_coco


@functools.cache
def wild() -> CameraPath:
    """A camera that moves more than the shipped one."""
    changes = {"pan": 0.8, "roll": 20.0, "zoom": 1.0, "zoom_change": 0.5, "occluders": 4}
    return shipped("dataset.camera_path", "dataset=coco", **changes)


@given(
    seed=st.integers(0, 10**6),
    image=st.tuples(st.integers(40, 90), st.integers(40, 90)),
    canvas=st.tuples(st.integers(40, 80), st.integers(40, 80)),
)
@settings(max_examples=25, deadline=None)
def test_a_marked_pixel_and_its_box_never_part(
    seed: int, image: tuple[int, int], canvas: tuple[int, int]
) -> None:
    """A block of one colour is painted; whatever of it is rendered lies in the moved box."""
    generator = torch.Generator().manual_seed(seed)
    h, w = image
    left, top = (int(torch.randint(0, side - 8, (), generator=generator)) for side in (w, h))
    picture = torch.zeros(3, h, w, dtype=torch.uint8)
    picture[0, top : top + 8, left : left + 8] = 255
    seconds = torch.arange(5) / 5
    maps = wild().draw(seconds, image, canvas, generator)
    frames = render(picture, maps, image, canvas)
    box = torch.tensor([[float(left), float(top), 8.0, 8.0]], dtype=torch.float64).expand(5, 4)
    corners = moved_boxes(maps, box)
    for frame, (x1, y1, x2, y2) in zip(frames[:, 0], corners.tolist(), strict=True):
        ys, xs = torch.nonzero(frame > 128, as_tuple=True)
        if len(xs):
            # bilinear sampling: half of the light is half a pixel of the image away at most
            assert x1 - 1 <= xs.min() + 0.5 and xs.max() + 0.5 <= x2 + 1
            assert y1 - 1 <= ys.min() + 0.5 and ys.max() + 0.5 <= y2 + 1
        inside = min(x1, y1) >= 0 and x2 <= canvas[1] and y2 <= canvas[0]
        assert len(xs) or not inside or (x2 - x1) * (y2 - y1) < 16, "a box without its pixels"
    assert 0 < resolution(maps) <= 1


def test_a_camera_at_rest_shows_the_image() -> None:
    off = {name: 0.0 for name in ("zoom", "zoom_change", "pan", "roll")}
    camera = shipped("dataset.camera_path", "dataset=coco", **off)
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    maps = camera.draw(torch.arange(3) / 20, (20, 30), (20, 30), torch.Generator())
    assert torch.equal(render(image, maps, (20, 30), (20, 30)), image.expand(3, -1, -1, -1))


def test_a_path_is_smooth_and_has_its_speed_in_seconds() -> None:
    def places(rate: int) -> torch.Tensor:
        times = torch.arange(2 * rate) / rate
        camera = wild()
        return camera.draw(times, SIZE, SIZE, torch.Generator().manual_seed(1))

    fine, coarse = places(40), places(20)
    torch.testing.assert_close(fine[::2], coarse)
    assert fine.diff(dim=0).abs().amax() < 0.6 * coarse.diff(dim=0).abs().amax()


def test_how_much_of_a_box_is_covered() -> None:
    covered = torch.zeros(2, 10, 10, dtype=torch.bool)
    covered[1, :, :5] = True
    corners = torch.tensor([(0.0, 0, 10, 10), (0, 0, 10, 10), (4, 2, 6, 4), (20, 20, 30, 30)])
    shares = covered_share(covered, torch.tensor([0, 1, 1, 1]), corners)
    assert shares.tolist() == [0, 0.5, 0.5, 0]


def coco(root: Path, *overrides: str):
    cfg = compose_run(
        [
            "dataset=coco",
            f"dataset.root={root}",
            "dataset.train=train",
            "dataset.val=train",
            "dataset.size=[64,96]",
            *overrides,
        ]
    )
    check(cfg)
    data = instantiate(cfg.dataset)
    data.trainer = None
    return data


def test_clips_of_stills(tmp_path: Path) -> None:
    """Identities hold, times follow the camera's rate, the crowd region is no object."""
    data = coco(write_coco(tmp_path), "dataset.camera_path.zoom=0", "dataset.camera_path.pan=0.05")
    clips = data._training_clips(False)
    samples = [clips[0, index] for index in range(len(clips))]
    again = clips[0, 2]
    assert torch.equal(again.frames, samples[2].frames)
    assert not torch.equal(clips[1, 2].frames, samples[2].frames)
    batch = collate(samples, 4)
    first, other = batch.valid[0], batch.valid[1]
    assert batch.ignored[0].any() and not batch.ignored[1:].any()
    assert not (batch.ignored & batch.valid).any() and (batch.visibility[batch.ignored] == -1).all()
    assert set(batch.track_ids[0][first].tolist()) <= {1, 2}
    assert other.any() and (batch.labels[batch.valid] == 0).all()
    steps = batch.seconds.diff(dim=1) * 20
    assert torch.allclose(steps, steps[:, :1]) and (steps > 0.99).all()
    data.camera_path = None
    with pytest.raises(ValueError, match="dataset=coco"):
        data._training_clips(False)


def test_objects_leave_and_return(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    strong = {"pan": 1.5, "period": 0.5, "zoom": 1}
    moves = [f"dataset.camera_path.{key}={value}" for key, value in strong.items()]
    data = coco(root, "dataset.window.length=12", "dataset.window.max_interval=2", *moves)
    clips = data._training_clips(False)
    returned = 0
    for epoch in range(4):
        batch = collate([clips[epoch, index] for index in range(4)], 12)
        for ids in (1, 2):
            there = ((batch.track_ids == ids) & batch.valid).any(-1).int()
            returned += int(((there.diff(dim=1) == 1).any(1) & (there[:, 0] == 1)).sum())
    assert returned


def test_hidden_objects_are_gone_while_they_are_hidden() -> None:
    camera = shipped("dataset.camera_path", "dataset=coco", occluders=20, hidden=0.5)
    frames = torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)
    corners = torch.tensor([(40.0, 20, 50, 30)]).expand(6, 4)
    kept = [
        camera.occlude(frames, corners, [1] * 6, torch.Generator().manual_seed(seed))[1]
        for seed in range(8)
    ]
    assert not torch.stack(kept).all() and torch.stack(kept).any()


def mot_folder(root: Path) -> Path:
    """A sequence of five frames with one walker, and one dog of class 2."""
    folder = root / "A"
    rows = []
    for frame in range(1, 6):
        draw(folder / "img1" / f"{frame:06d}.png", [[10 + 2 * frame, 20, 12, 30]])
        rows += [f"{frame},1,{10 + 2 * frame},20,12,30,1,1,1", f"{frame},2,60,40,20,15,1,2,1"]
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text("\n".join(rows))
    (folder / "seqinfo.ini").write_text(
        "[Sequence]\nname=A\nimDir=img1\nframeRate=20\nseqLength=5\nimWidth=96\nimHeight=64\n"
        "imExt=.png\n"
    )
    return root


def test_mixed_sources_have_their_own_roots_and_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mot, stills = mot_folder(tmp_path / "mot"), write_coco(tmp_path / "coco")
    part = "dataset.source.parts"
    still = {
        "_target_": "scene_track.data.mixed.Part",
        "weight": 1.0,
        "train": "train",
        "val": None,
        "test": None,
        "source": {
            "_target_": "scene_track.data.coco.CocoFolder",
            "root": str(stills),
            "annotations": "annotations/instances_{split}.json",
            "images": "{split}",
            "classes": ["dog", "person"],
        },
    }
    cfg = compose_run(
        [
            "dataset=mixed",
            f"dataset.root={mot}",
            f"dataset.cache_dir={tmp_path / 'cache'}",
            f"{part}.videos.train=[A:1-4]",
            f"{part}.videos.val=[A:5-5]",
            "dataset.size=[64,96]",
            "dataset.clips_per_epoch=12",
        ]
    )
    cfg.dataset.source.parts.stills = still
    check(cfg)
    data = instantiate(cfg.dataset)
    data.trainer = None
    with caplog.at_level("INFO"):
        batches = list(data.train_dataloader())
    assert data.class_names == ["person", "dog"]
    assert "8 of 12 clips" in caplog.text and "4 of 12 clips" in caplog.text
    assert {tuple(batch.frames.shape) for batch in batches} == {(2, 4, 3, 64, 96)}
    origins = [name for batch in batches for name in batch.sequence_ids]
    assert origins.count("A_1-4") == 8
    stills_read = [v for v in data.sequences("train") if v.origin == "stills"]
    assert {label for v in stills_read for label in v.labels.tolist()} == {0, 1}
    assert [v.name for v in data.sequences("val")] == ["A_5-5"]
    with pytest.raises(ValueError, match="no test split"):
        data.sequences("test")


def test_exported_frames_are_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mot, out = mot_folder(tmp_path / "mot"), tmp_path / "out"
    words = [str(mot), str(out), "--sequences", "A", "--every", "2", "--classes", "2:dog"]
    assert export_coco(words) == 0
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert [a["bbox"] for a in content["annotations"]] == [[60, 40, 20, 15]] * 3
    assert {a["track_id"] for a in content["annotations"]} == {2}
    videos = coco(out, "dataset.source.classes=[dog]").sequences("train")
    assert [v.name for v in videos] == ["A_000001", "A_000003", "A_000005"]
    assert all(np.array_equal(v.table.boxes, [[60, 40, 20, 15]]) for v in videos)
    capsys.readouterr()
    assert export_coco([str(mot), str(out)]) == 2
    assert export_coco([str(mot), str(out), "--sequences", "B"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_still_without_anybody_is_a_clip_without_objects(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    video = coco(root).sequences("train")[1]
    nobody = dataclasses.replace(
        video, table=video.table.select(np.zeros(2, bool)), labels=video.labels[:0]
    )
    clips = coco(root)._clips([nobody], None, True)
    batch = collate([clips[0, 0]], 4)
    assert not batch.valid.any() and not batch.padding_mask.any()


def test_ignored_regions_of_a_mixed_clip_stay_nobody() -> None:
    def sample(number: int) -> Sample:
        two = torch.tensor((int(Visibility.VISIBLE), int(Visibility.UNKNOWN)))
        return Sample(
            frames=torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
            boxes=[torch.rand(2, 4)], labels=[torch.tensor((0, -1))],
            track_ids=[torch.tensor((number, -1))], confidence=[torch.ones(2)],
            visibility=[two], points=None, xyz=None, frame_indices=torch.ones(1, dtype=torch.long),
            sequence=None,  # type: ignore[arg-type]
        )  # fmt: skip

    mixed = mix(sample(1), sample(1), 0.5)
    assert mixed.track_ids[0].tolist() == [1, -1, 3, -1]
    assert len(mixed.visibility[0]) == len(mixed.boxes[0]) == 4
