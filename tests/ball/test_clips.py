"""A ball on its way from the file to the batch: it and its picture never part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from scene_track.ball.tracknet import TrackNetFolder
from scene_track.data.clips import ClipDataset, StreamDataset
from scene_track.data.collate import collate
from scene_track.data.samples import mix
from scene_track.data.transforms import Clip
from scene_track.data.video import Video
from tests.data.augment import augment

SIZE = (36, 64)


def read(folder: Path) -> Video:
    return TrackNetFolder(root=folder.parents[1], class_name="ball", frame_rate=30.0).read_clip(
        folder
    )


def training(clips: list[Video], **options: Any) -> ClipDataset:
    settings: dict[str, Any] = {
        "size": SIZE, "length": 6, "stride": 6, "max_interval": 1, "seed": 0,
        "augment": augment(**options.pop("augment", {})),
    }  # fmt: skip
    return ClipDataset(clips, **(settings | options))


def centre_of_light(picture: Tensor) -> tuple[float, float]:
    """x, y in pixels, 0 at the edge, of what is brighter than the background."""
    light = picture.float().sum(0)
    light = light - light.min()
    y, x = torch.meshgrid(
        torch.arange(light.shape[0]) + 0.5, torch.arange(light.shape[1]) + 0.5, indexing="ij"
    )
    return float((light * x).sum() / light.sum()), float((light * y).sum() / light.sum())


def blob(size: tuple[int, int], x: float, y: float, radius: float) -> Tensor:
    """``[1, 3, H, W]`` a soft spot around (x, y), integers being centres of pixels."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    spot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return (200 * spot).to(torch.uint8).expand(1, 3, -1, -1).clone()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    target=st.tuples(st.integers(40, 120), st.integers(40, 120)),
    x=st.floats(0.25, 0.75),
    y=st.floats(0.25, 0.75),
    scale=st.floats(0, 0.4),
    shift=st.floats(0, 0.3),
    flip=st.sampled_from((0.0, 1.0)),
    looks=st.booleans(),
    crop=st.sampled_from((None, None, [44, 52])),
)
def test_a_marked_spot_and_its_coordinate_never_part(
    seed, height, width, target, x, y, scale, shift, flip, looks, crop
) -> None:
    """Resize, crop, flip and looks move the picture and the point alike, to a part of a pixel."""
    x, y = x * width, y * height
    transforms = augment(
        flip=flip, scale=scale, shift=shift, channel_permutation=float(looks), gain=0.2 * looks,
        crop=crop,
    )  # fmt: skip
    point = torch.tensor([[x + 0.5, y + 0.5] * 2])
    clip = Clip.of(blob((height, width), x, y, 2.0), point)
    moved = transforms(clip, target, torch.Generator().manual_seed(seed))
    found = moved.boxes.as_subclass(Tensor)[0]
    assert torch.equal(found[:2], found[2:])  # a point stays a point
    room = 9 * max(target[0] / height, target[1] / width)
    inside = [
        room < v < limit - room
        for v, limit in zip(found[:2].tolist(), transforms.canvas(target)[::-1], strict=True)
    ]
    assume(all(inside))
    assert bool(moved.keep[0])
    at = centre_of_light(moved.frames.as_subclass(Tensor)[0])
    # Enlarged, a pixel of the original is several: the same part of one of those.
    allowed = 0.12 * max(1.0, target[0] / height, target[1] / width)
    assert at == pytest.approx(found[:2].tolist(), abs=allowed)


def test_the_way_through_store_and_data_set(make_clip, flight) -> None:
    """A white pixel in the file, a coordinate in the batch: at every size, and mirrored."""
    clip = read(make_clip(balls=flight))
    for size, base in (((36, 64), 1.0), ((72, 128), 1.0), ((54, 80), 1.3)):
        for options in ({}, {"flip": 1.0}, {"scale": 0.2, "shift": 0.05, "flip": 0.5}):
            for epoch in range(3):
                data = training([clip], size=size, base_scale=base, augment=options)
                batch = collate([data[epoch, 0]], 6)
                for t in range(6):
                    if batch.visibility[0, t, 0] < 1:
                        continue
                    found = batch.boxes[0, t, 0, :2] * torch.tensor((size[1], size[0]))
                    at = centre_of_light(batch.frames[0, t])
                    assert at == pytest.approx(found.tolist(), abs=0.3), (size, options, t)


def test_what_a_batch_says_of_a_ball(make_clip, flight) -> None:
    batch = collate([training([read(make_clip(balls=flight))])[0, 0]], 8)
    assert batch.frames.shape == (1, 8, 3, *SIZE) and batch.visibility.shape == (1, 8, 1)
    assert batch.visibility.dtype == torch.int64
    assert batch.visibility[0, :, 0].tolist() == [1, 1, 0, 2, 3, 1, -1, -1]
    assert batch.valid[0, :, 0].tolist() == [True, True, False, True, True, True, False, False]
    assert batch.annotated[0].tolist() == [True] * 6 + [False] * 2
    assert batch.track_ids[0, :, 0].tolist() == [1, 1, -1, 1, 1, 1, -1, -1]
    assert batch.boxes[0, 4, 0].tolist() == pytest.approx([37.5 / 64, 16.5 / 36, 0, 0])
    assert batch.boxes[0, 2].eq(0).all() and batch.confidence[0, :, 0].tolist()[:3] == [1, 1, 0]
    assert batch.frame_indices[0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5]
    assert batch.valid[0, :, 0].tolist()[2:4] == [False, True]
    # The truth for scoring is exact, and stays where it is.
    assert batch.points is not None and batch.points.dtype == np.float64
    assert batch.points[0, 4].tolist() == [37, 16, 3] and batch.points[0, 7, 2] == -1
    part = batch.to("cpu").between(2, 5)
    assert part.points is not None and part.points[0, :, 2].tolist() == [0, 2, 3]
    assert part.visibility[0, :, 0].tolist() == [0, 2, 3]


def test_single_frames_and_streams(make_clip, flight) -> None:
    clip = read(make_clip(balls=flight))
    single = training([clip], length=1, stride=1)
    assert len(single) == 6
    assert [int(collate([single[0, i]], 1).visibility) for i in range(6)] == [1, 1, 0, 2, 3, 1]
    stream = StreamDataset([clip], size=SIZE, length=4)
    first, second = (collate([stream[i]], 4) for i in range(2))
    assert first.frame_indices.tolist() == [[0, 1, 2, 3]]
    assert second.visibility[0, :, 0].tolist() == [3, 1, -1, -1]
    assert second.sequence_ids == ["game1_Clip1"] and second.original_size.tolist() == [[36, 64]]


def test_a_ball_off_the_canvas_is_absent(make_clip) -> None:
    clip = read(make_clip(balls={0: (1, 1, 1), 1: (2, 62, 34)}))
    data = training([clip], length=2, augment={"scale": 1.0})
    seen = [collate([data[epoch, 0]], 2) for epoch in range(30)]
    frames = [
        (b.visibility[0, t, 0], b.valid[0, t, 0], b.frames[0, t]) for b in seen for t in (0, 1)
    ]
    gone = [picture for visibility, _, picture in frames if visibility == 0]
    assert 10 < len(gone) < 50  # enlarged about the middle, both corners leave it
    assert all(picture.float().mean() < 0.2 for picture in gone)
    for visibility, valid, picture in frames:
        assert bool(valid) == bool(visibility > 0)
        assert not valid or picture.max() > 10


def test_frames_that_nobody_annotated_stay_unknown(make_clip, flight) -> None:
    rows = "file name,visibility,x-coordinate,y-coordinate,status\n0001.png,1,13,7,0\n"
    clip = read(make_clip(balls=flight, labels=rows))
    batch = collate([training([clip])[0, 0]], 6)
    assert batch.visibility[0, :, 0].tolist() == [-1, 1, -1, -1, -1, -1]
    assert batch.annotated[0].tolist() == [False, True, False, False, False, False]


def test_a_ball_and_boxes_in_one_loader(make_clip, make_sequence, flight, walking_gt) -> None:
    from scene_track.data.video import read_sequence

    boxes = read_sequence(make_sequence(gt=walking_gt, size=(36, 64)), classes={1: "person"})
    batch = collate([training([c])[0, 0] for c in (read(make_clip(balls=flight)), boxes)], 6)
    assert batch.visibility[1, :, 0].tolist() == [1] * 6
    assert batch.points is None


class TestMixedClips:
    """Two clips in one: pictures and targets of both."""

    def test_both_balls_are_in_the_batch(self, make_clip, flight) -> None:
        other = {n: (1, 60, 30) for n in range(6)}
        clips = [read(make_clip(balls=flight)), read(make_clip("game1/Clip2", balls=other))]
        first, second = (training([clip])[0, 0] for clip in clips)
        batch = collate([mix(first, second, 0.75)], 6)
        assert batch.visibility[0].tolist() == [[1, 1], [1, 1], [1, -1], [2, 1], [3, 1], [1, 1]]
        assert batch.track_ids[0, 0].tolist() == [1, 3]
        assert batch.confidence[0, 0].tolist() == [0.75, 0.25]
        assert batch.confidence[0, 2].tolist() == [0.25, 0]  # the first ball is absent
        x, y = (int(v) for v in batch.boxes[0, 0, 1, :2] * torch.tensor((64, 36)))
        assert (x, y) == (60, 30)
        assert batch.frames[0, 0, :, 30, 60].tolist() == [64] * 3  # a quarter of white
        assert batch.frames[0, 0, :, 4, 5].tolist() == [191] * 3

    def test_absent_twice_is_absent_and_unknown_once_is_unknown(self, make_clip) -> None:
        clip = read(make_clip(balls={0: (0, 0, 0), 1: (1, 9, 9)}))
        sample = training([clip], length=2)[0, 0]
        assert collate([mix(sample, sample, 0.5)], 2).visibility[0].tolist() == [[0, -1], [1, 1]]
        rows = "file name,visibility,x-coordinate,y-coordinate,status\n0000.png,1,4,4,0\n"
        partly = read(make_clip("game1/Clip2", balls={0: (1, 4, 4), 1: (1, 4, 4)}, labels=rows))
        other = training([partly], length=2)[0, 0]
        for pair in ((sample, other), (other, sample)):
            batch = collate([mix(*pair, 0.5)], 2)
            assert batch.visibility[0, :, 0].tolist() == [1, -1]
            assert batch.valid[0].sum(-1).tolist() == [1, 0]

    def test_a_shorter_clip_leaves_the_rest_alone(self, make_clip, flight) -> None:
        long = training([read(make_clip(balls=flight))])[0, 0]
        short = training([read(make_clip("game1/Clip2", balls={0: (1, 9, 9), 1: (1, 9, 9)}))])[0, 0]
        mixed = mix(long, short, 0.6)
        assert [len(v) for v in mixed.visibility] == [2, 2, 1, 1, 1, 1]
        assert torch.equal(mixed.frames[2:], long.frames[2:])
        assert [len(v) for v in mix(short, long, 0.6).visibility] == [2, 2]
        assert len(long.visibility[0]) == 1  # nothing happened to the first

    def test_it_is_drawn_once_per_clip_and_again_the_same(self, make_clip, flight) -> None:
        clips = [read(make_clip(balls=flight)), read(make_clip("game1/Clip2", balls=flight))]
        data = training(clips, augment={"mix": 0.5})
        counts = [collate([data[epoch, 0]], 6).visibility.shape[-1] for epoch in range(40)]
        assert 8 < counts.count(2) < 32
        for epoch in (0, 7):
            a, b = data[epoch, 1], training(clips, augment={"mix": 0.5})[epoch, 1]
            assert torch.equal(a.frames, b.frames)
        # Off, it moves no other draw.
        alone = training(clips, augment={"flip": 0.5})
        never = training(clips, augment={"flip": 0.5, "mix": 0.0, "mix_alpha": 3.0})
        assert torch.equal(alone[3, 0].frames, never[3, 0].frames)
