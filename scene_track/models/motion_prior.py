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

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scene_track.models.arrays import OnArrays, at_least, at_most, library, total

MOTION = 11  # numbers of a packed MotionState
SMALLEST = 1e-3  # of a width or height; what is smaller is taken for this
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


def places_of(boxes: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` cxcywh as (cx, cy, log w, log h), in which motion is linear."""
    lib = library(boxes)
    return lib.concatenate((boxes[..., :2], lib.log(at_least(boxes[..., 2:], SMALLEST))), -1)


class Offset(NamedTuple):
    """How places lie to reference places.

    Attributes:
        shift: ``[..., 2]`` of the centre, in sizes of the reference.
        ratio: ``[..., 2]`` of the sizes, its logarithm.
    """

    shift: Tensor
    ratio: Tensor

    @classmethod
    def between(cls, places: Tensor, reference: Tensor) -> Offset:
        """From ``reference [..., 4]`` to ``places [..., 4]``, broadcast."""
        apart = places - reference
        scale = library(places).exp(-reference[..., 2:])
        return cls(apart[..., :2] * scale, apart[..., 2:])


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
        return library(self.present).concatenate(self, -1)

    @classmethod
    def unpack(cls, packed: Tensor) -> MotionState:
        """The parts of ``[..., 11]``."""
        parts = (slice(0, 4), slice(4, 8), slice(8, 9), slice(9, 10), slice(10, 11))
        return cls(*(packed[..., part] for part in parts))


def _figure(name: str) -> Any:
    """The noise figure of which a prior learns the logarithm."""

    def value(prior: MotionPrior) -> Tensor:
        logarithm = getattr(prior, f"log_{name}")
        return library(logarithm).exp(logarithm)

    return property(value)


class MotionPrior(OnArrays):
    """Expected boxes of tracks, and how likely a detection is theirs by motion alone."""

    sigma, speed, drift, tau = map(_figure, ("sigma", "speed", "drift", "tau"))
    damping, freedom, scale, exit = map(_figure, ("damping", "freedom", "scale", "exit"))

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

    @property
    def ridge(self) -> Tensor:
        """``[4]`` s²: a regression with this much spread halves its velocity."""
        return (self.sigma / self.speed) ** 2

    @property
    def _variance(self) -> Tensor:
        return self.sigma**2

    @property
    def _gain(self) -> Tensor:
        return self.scale * (self.freedom + 4) / -2

    @property
    def _fading(self) -> Tensor:
        return -1 / self.damping

    def _lasting(self, gap: Tensor) -> Tensor:
        """Seconds that the velocity is good for after ``gap`` seconds, for it fades."""
        return library(gap).expm1(at_most(gap, _LONGEST) * self._fading) / self._fading

    def fit(self, places: Tensor, age: Tensor, seen: Tensor) -> Tensor:
        """Regress the past places of tracks on time.

        Args:
            places: ``[..., K, 4]`` of boxes, see ``places_of``.
            age: ``[..., K]`` s before the newest one, >= 0.
            seen: ``[..., K]`` bool, False = no box.

        Returns:
            ``[..., 11]``, a packed ``MotionState``; meaningful where a box is seen.
        """
        lib = library(places)
        weight = lib.where(seen, lib.exp(age / -self.tau), 0.0)
        amount = total(weight, -1)[..., None]
        share = weight / at_least(amount, 1e-6)
        mean_age = total(share * age, -1)[..., None]
        ago = age - mean_age
        # No matrix product: under autocast that would round positions to 8 bits.
        mean = total(share[..., None] * places, -2)
        weighted = weight * ago
        slope = total(weighted[..., None] * (places - mean[..., None, :]), -2)
        spread = total(weighted * ago, -1)[..., None]
        velocity = slope / -(spread + self.ridge)
        present = mean + velocity * mean_age
        return MotionState(present, velocity, amount, mean_age, spread).pack()

    def expected(self, motion: Tensor, gap: Tensor) -> Tensor:
        """The places ``[..., 4]`` of tracks ``[..., 11]`` after ``gap [...]`` s, >= 0."""
        state = MotionState.unpack(motion)
        return state.present + state.velocity * self._lasting(gap)[..., None]

    def forward(self, motion: Tensor, offset: Offset, gap: Tensor) -> Tensor:
        """Log-likelihood of every detection under every track.

        Args:
            motion: ``[..., J, 11]`` of the tracks.
            offset: ``[..., N, J, 2]`` of the detections from the tracks' expected places.
            gap: ``[..., J]`` s since the tracks were seen, >= 0.

        Returns:
            ``[..., N, J]``; about 9 for a perfect match one frame later.
        """
        lib, state = library(motion), MotionState.unpack(motion)
        wait = gap[..., None]
        ahead = self._lasting(wait) + state.age
        known_by = 1 / at_least(state.weight, 1e-6) + ahead * ahead / (state.spread + self.ridge)
        late = self.drift * wait
        variance = self._variance * (1 + known_by) + late * late  # [..., J, 4]
        sure = (1 / variance)[..., None, :, :]
        # Shifts in units of both sizes' geometric mean, so that neither box is preferred.
        shift = offset.shift * offset.shift * lib.exp(-offset.ratio) * sure[..., :2]
        square = shift + offset.ratio * offset.ratio * sure[..., 2:]
        distance = square[..., 0] + square[..., 1]  # [..., N, J]
        width = total(lib.log(variance), -1)  # 2 sum(log s) of each track
        credit = self.scale / 2 * width + self.exit * gap
        return self._gain * lib.log1p(distance / self.freedom) - credit[..., None, :]
