"""Training clips cut out of the canvas: pixel and coordinate stay together."""

from __future__ import annotations

import torch

from scene_track.data.transforms import Clip, ClipAugment


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
