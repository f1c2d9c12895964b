"""What a classical tracker knows: people keep moving, and far from the expected box is unlikely.

The past of a track is summed up by a weighted linear regression of its boxes on time: newer boxes
count more, and a ridge pulls the velocity towards rest while little is known. A detection is then
scored by the logarithm of a Student t density around the box that the regression expects, whose
width grows with the noise of the regression and with time; a lost track loses credit besides. So an
untrained head tracks like a Kalman filter with gating, and learning can only add to it.

All noise figures are learned, as logarithms: they stay positive, and one rate fits all of them.
Time is the absolute distance between two frames: a clip may run backwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

MOTION = 11  # numbers of a packed MotionState
_LONGEST = 3.0  # s; a track is expected to move no longer than this
_START = {
    "sigma": (0.07, 0.07, 0.08, 0.08),  # of a box: centre in sizes, logarithms of the sizes
    "speed": (1.5, 0.4, 0.4, 0.4),  # usual velocities, per second
    "drift": (0.5, 0.2, 0.2, 0.2),  # what the expectation errs by, per second ahead
    "tau": 0.2,  # s after which a past box counts a third
    "damping": 2.0,  # s in which a velocity fades
    "freedom": 8.0,  # degrees of freedom of the t distribution; smaller = heavier tails
    "scale": 1.0,  # of the log-likelihood
    "exit": 2.0,  # nats that a lost track loses per second
}


class MotionState(NamedTuple):
    """The regression of tracks, seen from their newest box; positions are (cx, cy, log w, log h).

    Attributes:
        present: ``[..., 4]`` the smoothed newest position.
        velocity: ``[..., 4]`` per second.
        weight: ``[..., 1]`` sum of the weights of the boxes, >= 1 where there is one.
        age: ``[..., 1]`` weighted mean age of the boxes in s.
        spread: ``[..., 1]`` weighted sum of squares of the ages around their mean, s².
    """

    present: Tensor
    velocity: Tensor
    weight: Tensor
    age: Tensor
    spread: Tensor

    def pack(self) -> Tensor:
        """All numbers side by side, ``[..., 11]``."""
        return torch.cat(self, dim=-1)

    @classmethod
    def unpack(cls, packed: Tensor) -> MotionState:
        """The parts of ``[..., 11]``."""
        return cls(*packed.split((4, 4, 1, 1, 1), dim=-1))


class MotionPrior(nn.Module):
    """Expected boxes of tracks, and how likely a detection is theirs by motion alone."""

    def __init__(self, *, lr_scale: float) -> None:
        """Start from figures that track people well at 7-30 frames per second.

        Args:
            lr_scale: factor on the learning rate of the logarithms, >= 0 (``parameter_groups``
                reads it).
        """
        super().__init__()
        self.lr_scale = lr_scale
        for name, value in _START.items():
            self.register_parameter(f"log_{name}", nn.Parameter(torch.tensor(value).log()))

    def _get(self, name: str) -> Tensor:
        return getattr(self, f"log_{name}").exp()

    @property
    def _ridge(self) -> Tensor:
        """``[4]`` s²: a regression with this much spread halves its velocity."""
        return (self._get("sigma") / self._get("speed")).square()

    def _lasting(self, gap: Tensor) -> Tensor:
        """Seconds that the velocity is good for after ``gap`` seconds, for it fades."""
        damping = self._get("damping")
        return damping * -torch.expm1(-gap.clamp(max=_LONGEST) / damping)

    def fit(self, boxes: Tensor, age: Tensor, seen: Tensor) -> Tensor:
        """Regress the past boxes of tracks on time.

        Args:
            boxes: ``[..., K, 4]`` cxcywh.
            age: ``[..., K]`` s before the newest one, >= 0.
            seen: ``[..., K]`` bool, False = no box.

        Returns:
            ``[..., 11]``, a packed ``MotionState``; meaningful where a box is seen.
        """
        weight = torch.where(seen, (-age / self._get("tau")).exp(), 0.0)
        total = weight.sum(-1, keepdim=True)
        share = weight / total.clamp(min=1e-6)
        mean_age = (share * age).sum(-1, keepdim=True)
        ago = age - mean_age
        z = torch.cat((boxes[..., :2], boxes[..., 2:].clamp(min=1e-3).log()), dim=-1)
        # No matrix product: under autocast that would round positions to 8 bits.
        mean = (share.unsqueeze(-1) * z).sum(-2)
        slope = ((weight * ago).unsqueeze(-1) * (z - mean.unsqueeze(-2))).sum(-2)
        spread = (weight * ago.square()).sum(-1, keepdim=True)
        velocity = -slope / (spread + self._ridge)
        present = mean + velocity * mean_age
        return MotionState(present, velocity, total, mean_age, spread).pack()

    def expected(self, motion: Tensor, gap: Tensor) -> Tensor:
        """The boxes ``[..., 4]`` cxcywh of tracks ``[..., 11]`` after ``gap [...]`` s, >= 0."""
        state = MotionState.unpack(motion)
        z = state.present + state.velocity * self._lasting(gap).unsqueeze(-1)
        # Sizes stay within what a box may be, whatever a regression over two noisy boxes says.
        return torch.cat((z[..., :2], z[..., 2:].clamp(-7, 1).exp()), dim=-1)

    def forward(self, motion: Tensor, expected: Tensor, boxes: Tensor, gap: Tensor) -> Tensor:
        """Log-likelihood of every detection under every track.

        Args:
            motion: ``[..., J, 11]`` of the tracks.
            expected: ``[..., J, 4]`` their boxes by now, cxcywh.
            boxes: ``[..., N, 4]`` detections, cxcywh.
            gap: ``[..., J]`` s since the tracks were seen, >= 0.

        Returns:
            ``[..., N, J]``; about 9 for a perfect match one frame later.
        """
        state = MotionState.unpack(motion)
        sigma, gap = self._get("sigma"), gap.unsqueeze(-1)
        ahead = self._lasting(gap) + state.age
        variance = (
            sigma.square()
            * (1 + 1 / state.weight.clamp(min=1e-6) + ahead.square() / (state.spread + self._ridge))
            + (self._get("drift") * gap).square()
        )  # [..., J, 4]
        size = boxes[..., 2:].clamp(min=1e-3).unsqueeze(-2)
        known = expected[..., 2:].clamp(min=1e-3).unsqueeze(-3)
        center = (boxes[..., :2].unsqueeze(-2) - expected[..., :2].unsqueeze(-3)).square()
        square = torch.cat((center / (size * known), (size / known).log().square()), dim=-1)
        distance = (square / variance.unsqueeze(-3)).sum(-1)  # [..., N, J]
        freedom = self._get("freedom")
        likelihood = -(freedom + 4) / 2 * (distance / freedom).log1p()
        # sum(log s) of each track
        width = variance.log().sum(-1) / 2
        credit = self._get("scale") * width + self._get("exit") * gap.squeeze(-1)
        return self._get("scale") * likelihood - credit.unsqueeze(-2)
