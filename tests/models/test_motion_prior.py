"""The motion prior against a naive regression, and the stories that a Kalman tracker must know."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scene_track.models.motion_prior import MotionPrior, MotionState, Offset, places_of


def prior_of() -> MotionPrior:
    return MotionPrior(lr_scale=1.0)


def walk(direction: float = 1.0, frames: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that move to the right by half a width per second times ``direction``, newest first."""
    age = torch.arange(frames) / 20
    boxes = torch.tensor([0.5, 0.5, 0.1, 0.3]).repeat(frames, 1)
    boxes[:, 0] -= 0.05 * direction * age
    return places_of(boxes), age, torch.ones(frames, dtype=torch.bool)


def test_the_regression_equals_a_naive_one() -> None:
    torch.manual_seed(0)
    boxes, age = torch.rand(6, 4) * 0.3 + 0.2, torch.rand(6)
    seen = torch.tensor([True, True, False, True, True, False])
    prior = prior_of()
    weights = [math.exp(-a / 0.2) if s else 0.0 for a, s in zip(age.tolist(), seen, strict=True)]
    total = sum(weights)
    mean_age = sum(w * a for w, a in zip(weights, age.tolist(), strict=True)) / total
    spread = sum(w * (a - mean_age) ** 2 for w, a in zip(weights, age.tolist(), strict=True))
    got = MotionState.unpack(prior.fit(places_of(boxes), age, seen))
    z = torch.cat((boxes[:, :2], boxes[:, 2:].log()), dim=1).tolist()
    ridge = [(0.07 / 1.5) ** 2, (0.07 / 0.4) ** 2, (0.08 / 0.4) ** 2, (0.08 / 0.4) ** 2]
    for axis in range(4):
        values = [row[axis] for row in z]
        mean = sum(w * x for w, x in zip(weights, values, strict=True)) / total
        slope = sum(
            w * (a - mean_age) * x for w, a, x in zip(weights, age.tolist(), values, strict=True)
        )
        velocity = -slope / (spread + ridge[axis])
        assert got.velocity[axis].item() == pytest.approx(velocity, rel=1e-4)
        assert got.present[axis].item() == pytest.approx(mean + velocity * mean_age, rel=1e-4)
    assert got.spread.item() == pytest.approx(spread, rel=1e-4)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_straight_walk_goes_on(direction: float) -> None:
    prior = prior_of()
    box = prior.expected(prior.fit(*walk(direction, 40)), torch.tensor(0.2))
    moved = (box[0].item() - 0.5) * direction
    assert 0.007 < moved < 0.0105  # 0.01 but for the ridge and the fading
    sizes = box[2:].exp()
    assert box[1].item() == pytest.approx(0.5, rel=0.01)
    torch.testing.assert_close(sizes, torch.tensor([0.1, 0.3]), rtol=0.01, atol=0)


def test_the_nearer_track_is_likelier_and_a_lost_one_loses_credit() -> None:
    prior = prior_of()
    near, far = walk(), walk()
    far[0][:, 0] += 0.05
    motion = torch.stack([prior.fit(*near), prior.fit(*far)])

    def logits(gap: float) -> Tensor:
        gaps = torch.full((2,), gap)
        offset = Offset.between(near[0][:1].unsqueeze(-2), prior.expected(motion, gaps))
        return prior(motion, offset, gaps)[0]

    assert logits(0.05)[0] > logits(0.05)[1] + 2
    assert logits(0.05)[0] > logits(0.5)[0] + 0.9 > logits(2.0)[0] + 2
    assert logits(0.05)[0] > 5  # sure of itself against "new", which starts at -3


def test_every_noise_figure_learns() -> None:
    torch.manual_seed(0)
    prior = prior_of()
    boxes, age = torch.rand(3, 5, 4) * 0.3 + 0.2, torch.arange(5).repeat(3, 1) / 20
    places = places_of(boxes)
    motion = prior.fit(places, age, torch.ones(3, 5, dtype=torch.bool))
    gap = torch.full((3,), 0.3)
    offset = Offset.between(places[:, :1], prior.expected(motion, gap))
    prior(motion, offset, gap).softmax(-1)[0, 0].log().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
