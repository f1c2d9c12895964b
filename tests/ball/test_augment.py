"""Balls that are drawn into clips: the target is where the ball is, and the rest is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from scene_track.ball import augment
from scene_track.data.samples import Sample
from scene_track.data.visibility import Visibility
from tests.data.augment import OFF

HEIGHT, WIDTH, FRAMES = 90, 160, 5


def clip(visibility: Sequence[Sequence[int]] | None = None) -> Sample:
    """A black clip; by default the ball is known to be absent from every frame."""
    seen = visibility or [[Visibility.ABSENT]] * FRAMES
    real = [[v for v in frame if v > 0] for frame in seen]
    return Sample(
        frames=torch.zeros(FRAMES, 3, HEIGHT, WIDTH, dtype=torch.uint8),
        boxes=[torch.tensor([[0.5, 0.5, 0.0, 0.0]] * len(r)).reshape(-1, 4) for r in real],
        labels=[torch.zeros(len(r), dtype=torch.long) for r in real],
        track_ids=[torch.zeros(len(r), dtype=torch.long) for r in real],
        confidence=[torch.ones(len(r)) for r in real],
        visibility=[torch.tensor(frame, dtype=torch.long) for frame in seen],
        points=np.zeros((FRAMES, 3)),
        xyz=None,
        frame_indices=torch.arange(FRAMES),
        sequence=None,  # type: ignore[arg-type]
    )


def paste(sample: Sample, seed: int, most: int = 20) -> Sample:
    drawing = augment.BallAugment(**OFF, drawn_balls=most)
    return drawing.add_objects(sample, torch.Generator().manual_seed(seed))


def paste_one(seed: int) -> Sample:
    """A black clip with exactly one drawn ball; other seeds draw none."""
    for further in range(50):
        result = paste(clip(), 100 * seed + further, most=1)
        if result.frames.max() > 0:
            return result
    raise AssertionError("50 clips without a ball")


@pytest.mark.parametrize("seed", range(8))
def test_light_is_where_the_target_says(seed: int) -> None:
    """On black, the centre of all light is the target, to a fraction of a pixel."""
    result = paste_one(seed)
    for frame, boxes in zip(result.frames, result.boxes, strict=True):
        if not len(boxes):
            continue
        x, y = boxes[0, 0] * WIDTH, boxes[0, 1] * HEIGHT
        if not (12 < x < WIDTH - 12 and 12 < y < HEIGHT - 12):
            continue  # cut off by the border
        light = frame.float().sum(0)
        ys = torch.arange(HEIGHT).float().view(-1, 1) + 0.5
        xs = torch.arange(WIDTH).float().view(1, -1) + 0.5
        assert abs((light * xs).sum() / light.sum() - x) < 0.4
        assert abs((light * ys).sum() / light.sum() - y) < 0.4


def test_every_frame_with_light_has_a_target_or_is_cut() -> None:
    resting = 0
    for seed in range(20):
        result = paste_one(seed)
        if not any(len(boxes) for boxes in result.boxes):  # one that lies still is no target
            resting += 1
            assert (result.frames == result.frames[:1]).all()
            assert all(seen.tolist() == [Visibility.ABSENT] for seen in result.visibility)
            continue
        for frame, boxes, seen in zip(result.frames, result.boxes, result.visibility, strict=True):
            if len(boxes):
                assert frame.max() > 10
                assert seen.tolist() == [Visibility.VISIBLE]
            else:
                inner = frame[:, 16:-16, 16:-16]
                assert inner.max() == 0, "a ball well inside the picture without a target"
                assert seen.tolist() == [Visibility.ABSENT]
    assert 0 < resting < 12


def test_the_real_ball_stays_and_the_clip_that_was_given_too() -> None:
    sample = clip([[Visibility.HARD]] * FRAMES)
    result = paste(sample, 3)
    assert int(sample.frames.max()) == 0 and all(len(b) == 1 for b in sample.boxes)
    for boxes, ids, seen in zip(result.boxes, result.track_ids, result.visibility, strict=True):
        assert boxes[0].tolist() == [0.5, 0.5, 0.0, 0.0] and int(seen[0]) == Visibility.HARD
        assert len(set(ids.tolist())) == len(ids) == len(boxes) == len(seen)


def test_a_frame_nobody_looked_at_stays_without_annotation() -> None:
    sample = clip([[], [Visibility.ABSENT], [], [Visibility.ABSENT], []])
    result = paste(sample, 1)
    assert [len(v) > 0 for v in result.visibility] == [False, True, False, True, False]
    assert [len(b) > 0 for b in result.boxes][0::2] == [False, False, False]


def test_a_patch_around_the_ball_gives_what_the_whole_frame_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = clip()
    noise = torch.Generator().manual_seed(3)
    sample.frames.random_(0, 256, generator=noise)
    seeds = range(6)
    near = [paste(sample, seed).frames for seed in seeds]
    monkeypatch.setattr(augment, "_around", lambda *_: (slice(0, HEIGHT), slice(0, WIDTH)))
    for seed, frames in zip(seeds, near, strict=True):
        assert torch.equal(paste(sample, seed).frames, frames)


def test_the_same_generator_draws_the_same() -> None:
    first, second = paste(clip(), 5), paste(clip(), 5)
    assert torch.equal(first.frames, second.frames)
    assert any(not torch.equal(paste(clip(), seed).frames, first.frames) for seed in range(6, 9))
