"""Augmentation: boxes follow their pixels, one draw per clip, strengths that are off are off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scene_track.data.transforms import Clip, clip_boxes
from tests.data.augment import STRONG, augment

SIZE = (96, 160)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(frames: int = 2) -> Tensor:
    picture = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8, generator=generator(0))
    return picture.expand(frames, -1, -1, -1).clone()


def augmented(options: dict[str, Any], frames: Tensor, boxes: Tensor, seed: int) -> Clip:
    return augment(**options)(Clip.of(frames, boxes), SIZE, generator(seed))


def test_everything_off_changes_nothing() -> None:
    boxes = torch.tensor([[3.0, 4.0, 50.0, 60.0]])
    clip = augmented({}, noise(), boxes, 0)
    assert torch.equal(clip.frames, noise())
    assert torch.equal(clip.boxes.as_subclass(Tensor), boxes)
    assert clip.keep.all()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_their_pixels(seed: int) -> None:
    # A white box on grey; what is outside the picture becomes black.
    frames = torch.full((1, 3, *SIZE), 100, dtype=torch.uint8)
    frames[..., 40:60, 70:100] = 255
    options = {"flip": 0.5, "scale": 0.3, "shift": 0.15}
    clip = augmented(options, frames, torch.tensor([[70.0, 40.0, 100.0, 60.0]]), seed)
    assert clip.frames.shape[-2:] == SIZE
    rows, columns = torch.nonzero(clip.frames[0, 0] > 177, as_tuple=True)
    seen = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert (clip.boxes.as_subclass(Tensor)[0] - seen).abs().max() < 1.0


def test_draws_vary_and_repeat() -> None:
    options = {"flip": 0.5, "scale": 0.3, "shift": 0.15, "gain": 0.3, "bias": 20}
    options |= {"channel_permutation": 1}
    boxes = torch.tensor([[30.0, 30.0, 60.0, 60.0]])
    a, b, c = (augmented(options, noise(), boxes, seed) for seed in (1, 1, 2))
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.boxes, b.boxes)
    assert not torch.equal(a.frames, c.frames)
    assert not torch.equal(a.boxes, c.boxes)


@pytest.mark.parametrize("seed", range(5))
def test_one_draw_for_all_frames(seed: int) -> None:
    options = {"flip": 0.5, "scale": 0.3, "shift": 0.15, "gain": 0.3, "bias": 20}
    options |= {"channel_permutation": 1}
    boxes = torch.tensor([[30.0, 30.0, 60.0, 60.0]]).expand(3, 4)  # one box in each frame
    clip = augmented(options, noise(3), boxes, seed)
    assert torch.equal(clip.frames[0], clip.frames[1])
    assert torch.equal(clip.frames[0], clip.frames[2])
    assert torch.equal(clip.boxes[0], clip.boxes[2])


def test_an_option_that_is_off_moves_no_other_draw() -> None:
    boxes = torch.tensor([[30.0, 30.0, 60.0, 60.0]])
    geometry = {"scale": 0.3, "shift": 0.1}
    alone = augmented(geometry, noise(), boxes, 5)
    with_more = augmented(geometry | {"channel_permutation": 1, "gain": 0.2}, noise(), boxes, 5)
    assert torch.equal(alone.boxes, with_more.boxes)


def test_flip() -> None:
    clip = augmented({"flip": 1}, noise(), torch.tensor([[10.0, 5.0, 30.0, 25.0]]), 0)
    assert torch.equal(clip.frames, noise().flip(-1))
    assert clip.boxes.tolist() == [[130, 5, 150, 25]]
    assert clip.mirrored


def test_channels_are_permuted_not_mixed() -> None:
    frames = torch.stack([torch.full(SIZE, v, dtype=torch.uint8) for v in (10, 20, 30)])[None]
    orders = set()
    for seed in range(40):
        clip = augmented({"channel_permutation": 1}, frames, torch.zeros(0, 4), seed)
        orders.add(tuple(clip.frames[0, :, 0, 0].tolist()))
    assert len(orders) == 6
    assert all(sorted(order) == [10, 20, 30] for order in orders)


def test_light_is_clamped_not_wrapped() -> None:
    frames = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)
    frames[..., 80:] = 255
    for seed in range(10):
        clip = augmented({"gain": 0.5, "bias": 60}, frames, torch.zeros(0, 4), seed)
        assert clip.frames.dtype == torch.uint8
        assert clip.frames[..., :80].max() <= 60
        assert clip.frames[..., 80:].min() >= round(255 * 0.6) - 60
    plain = augmented({"gain": 1e-9}, noise(), torch.zeros(0, 4), 0)
    assert torch.equal(plain.frames, noise())  # rounded, not cut off


def test_resizes_without_jitter() -> None:
    frames = torch.zeros(2, 3, 48, 80, dtype=torch.uint8)
    clip = augmented({}, frames, torch.tensor([[10.0, 12.0, 20.0, 24.0]]), 0)
    assert clip.frames.shape == (2, 3, *SIZE)
    assert clip.boxes.tolist() == [[20, 24, 40, 48]]


def test_boxes_at_the_border() -> None:
    boxes = torch.tensor(
        [
            [10.0, 10.0, 20.0, 20.0],  # inside
            [-10.0, 0.0, 10.0, 10.0],  # half outside
            [-30.0, 0.0, 10.0, 10.0],  # a quarter remains
            [-31.0, 0.0, 10.0, 10.0],  # less than a quarter remains
            [200.0, 10.0, 220.0, 20.0],  # outside
            [159.5, 10.0, 160.5, 40.0],  # half remains, thinner than a pixel
        ]
    )
    clipped, keep = clip_boxes(boxes, SIZE, 0.25)
    assert keep.tolist() == [True, True, True, False, False, False]
    assert clipped[:3].tolist() == [[10, 10, 20, 20], [0, 0, 10, 10], [0, 0, 10, 10]]
    _, keep = clip_boxes(boxes, SIZE, 0.0)
    assert keep.tolist() == [True, True, True, True, False, False]


def test_reversal_has_its_probability() -> None:
    shared = generator(0)
    some = augment(reverse=0.25)
    share = sum(some.draw_reversed(shared) for _ in range(2000)) / 2000
    assert 0.2 < share < 0.3
    assert not any(augment().draw_reversed(shared) for _ in range(50))


def test_a_marked_pixel_and_its_coordinate_stay_together_in_a_crop() -> None:
    cropped = augment(**STRONG | {"channel_permutation": 0, "gain": 0, "bias": 0, "scale": 0.4,
                                  "crop": [32, 48], "crop_near": 1.0})  # fmt: skip
    seen = 0
    for seed in range(60):
        draws = generator(seed)
        frames = torch.zeros(2, 3, 96, 160, dtype=torch.uint8)
        y, x = (int(v) for v in torch.randint(8, 88, (2,), generator=draws))
        frames[:, :, y - 2 : y + 3, x - 2 : x + 3] = 255
        point = torch.tensor([[x + 0.5, y + 0.5] * 2] * 2)
        clip = cropped(Clip.of(frames, point), SIZE, draws)
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
