"""Balls drawn into a clip: picture and coordinate agree, and what is unknown stays so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene_track.data.drawn_ball import draw_balls
from scene_track.data.mot_files import BoxTable, SequenceInfo
from scene_track.data.samples import Sample
from scene_track.data.sequences import Sequence
from scene_track.data.transforms import Clip, ClipAugment


def dark_clip(length: int = 4, size: tuple[int, int] = (48, 64)) -> Sample:
    """A black clip in which the ball is known to be absent."""
    sequence = Sequence(
        name="clip", folder=Path(), files=(), frames=np.arange(length), table=BoxTable.empty(),
        info=SequenceInfo("clip", ".", 30.0, length, size[1], size[0], ".png", 0),
        labels=np.zeros(0, dtype=np.int64), xyz=None, labelled=True,
        points=np.zeros((length, 3)), label_file="Label.csv",
    )  # fmt: skip
    return Sample(
        frames=torch.zeros(length, 3, *size, dtype=torch.uint8),
        boxes=[torch.zeros(0, 4)] * length,
        labels=[torch.zeros(0, dtype=torch.long)] * length,
        track_ids=[torch.zeros(0, dtype=torch.long)] * length,
        confidence=[torch.zeros(0)] * length,
        visibility=[torch.zeros(1, dtype=torch.long)] * length,
        points=sequence.points,
        xyz=None,
        frame_indices=torch.arange(length),
        sequence=sequence,
    )


def test_the_coordinate_is_the_middle_of_the_streak() -> None:
    found = 0
    for seed in range(40):
        drawn = draw_balls(dark_clip(), 1, torch.Generator().manual_seed(seed))
        for t, boxes in enumerate(drawn.boxes):
            light = drawn.frames[t].float().sum(0)
            assert (len(boxes) == 1) == (drawn.visibility[t].tolist() == [1])
            if not len(boxes):
                continue
            x, y = boxes[0, 0] * 64, boxes[0, 1] * 48
            assert boxes[0, 2:].tolist() == [0, 0]
            if 16 < x < 48 and 16 < y < 32:  # the whole streak is on the canvas
                rows, columns = torch.arange(48) + 0.5, torch.arange(64) + 0.5
                assert abs((light.sum(0) * columns).sum() / light.sum() - x) < 0.6
                assert abs((light.sum(1) * rows).sum() / light.sum() - y) < 0.6
                found += 1
    assert found > 5


def test_the_same_generator_draws_the_same_and_the_original_stays() -> None:
    clip = dark_clip()
    first = draw_balls(clip, 3, torch.Generator().manual_seed(3))
    second = draw_balls(clip, 3, torch.Generator().manual_seed(3))
    assert torch.equal(first.frames, second.frames) and not clip.frames.any()
    assert len({int(i) for ids in first.track_ids for i in ids}) >= 1


def test_a_frame_that_nobody_has_looked_at_stays_unknown() -> None:
    clip = dark_clip()
    clip.visibility = [torch.zeros(0, dtype=torch.long)] * 4
    for seed in range(10):
        drawn = draw_balls(clip, 2, torch.Generator().manual_seed(seed))
        assert all(len(v) == 0 for v in drawn.visibility) and all(len(b) == 0 for b in drawn.boxes)


def test_a_marked_pixel_and_its_coordinate_stay_together_in_a_crop() -> None:
    augment = ClipAugment(
        scale=0.4, channel_permutation=0, gain=0, bias=0, crop=[32, 48], crop_near=1.0
    )
    seen = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        frames = torch.zeros(2, 3, 96, 160, dtype=torch.uint8)
        y, x = (int(v) for v in torch.randint(8, 88, (2,), generator=generator))
        frames[:, :, y - 2 : y + 3, x - 2 : x + 3] = 255
        point = torch.tensor([[x + 0.5, y + 0.5] * 2] * 2)
        clip = augment(Clip.of(frames, point), (96, 160), generator)
        assert clip.frames.shape == (2, 3, 32, 48)
        assert clip.keep.all()  # it was laid over the ball
        light = clip.frames[0, 0].float()
        place = clip.boxes[0].tolist()
        if 4 < place[0] < 44 and 4 < place[1] < 28:
            seen += 1
            assert (
                abs((light.sum(0) * (torch.arange(48) + 0.5)).sum() / light.sum() - place[0]) < 0.6
            )
            assert (
                abs((light.sum(1) * (torch.arange(32) + 0.5)).sum() / light.sum() - place[1]) < 0.6
            )
    assert seen > 30
