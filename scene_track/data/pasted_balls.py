"""Drawn balls in real footage: more of what is rare in a clip, where the clip has none.

Copy-paste augmentation (Ghiasi et al., CVPR 2021) for an object so small that it need not be cut
out: a bright disc, drawn anti-aliased and smeared by its own movement, on a path with gravity that
may turn where a racket or the ground would be. A few hundred frames of one match show the ball in a
few places only, and a network learns the places; a drawn ball may be anywhere, before any
background, slow or fast. It is a target like the real one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from scene_track.data.samples import Sample
from scene_track.data.visibility import Visibility

_YELLOW, _WHITE = (228.0, 240.0, 130.0), (250.0, 250.0, 240.0)  # RGB of a new ball, of a lit one
_GRAVITY = 1.0  # pixels per frame and frame, at most
_TURN = 0.3  # probability that a path has a bounce in it
_OPACITY = (0.5, 1.0)
_EXPOSURE = (0.2, 0.9)  # share of the time between two frames that a ball smears over


class PastedBalls:
    """Draws balls into training clips, frames and targets."""

    def __init__(
        self,
        *,
        probability: Annotated[float, Field(ge=0, le=1)] = 0.0,
        most: Annotated[int, Field(ge=1, le=20)] = 2,
        radius: Annotated[
            list[Annotated[float, Field(gt=0, le=50)]], Field(min_length=2, max_length=2)
        ],
        speed: Annotated[
            list[Annotated[float, Field(gt=0, le=1000)]], Field(min_length=2, max_length=2)
        ],
    ) -> None:
        """Sets what is drawn.

        Args:
            probability: of a clip to get any; 0 switches it off.
            most: balls in such a clip, 1 to this.
            radius: [least, most] in pixels of the canvas.
            speed: [least, most] in pixels of the canvas per frame; slow ones are as likely as fast
                ones (log-uniform).

        Raises:
            ValueError: a range that ends before it begins.
        """
        for name, (low, high) in (("radius", radius), ("speed", speed)):
            if low > high:
                raise ValueError(
                    f"dataset.augment.paste.{name}=[{low:g},{high:g}] ends before it begins"
                )
        self.probability, self.most = probability, most
        self.radius, self.speed = (radius[0], radius[1]), (speed[0], speed[1])

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """A clip with balls drawn in, or the clip itself.

        A frame that nobody has looked at stays not annotated: the real ball may be in it.

        Args:
            sample: a clip of a ball, with at least one frame.
            generator: source of every draw.
        """
        drawn = _uniform(generator) < self.probability
        count = int(torch.randint(1, self.most + 1, (), generator=generator))
        if not drawn or not len(sample.boxes):
            return sample
        frames = sample.frames.clone()
        result = replace(sample, frames=frames)
        for name in ("boxes", "labels", "track_ids", "confidence", "visibility"):
            setattr(result, name, list(getattr(sample, name)))
        taken = [int(ids.max()) for ids in sample.track_ids if len(ids)]
        first = 1 + max(taken, default=0)
        for number in range(first, first + count):
            places = self._draw(frames, generator)
            for t, place in enumerate(places):
                _add(result, t, number, place, (frames.shape[-2], frames.shape[-1]))
        return result

    def _draw(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one ball into ``[T, 3, H, W]`` frames, in place.

        Returns:
            ``[T, 2]`` its centres (x, y) in pixels from the outer edge of the canvas.
        """
        height, width = frames.shape[-2:]
        radius = _between(self.radius, _uniform(generator))
        opacity = _between(_OPACITY, _uniform(generator))
        exposure = _between(_EXPOSURE, _uniform(generator))
        tint = torch.lerp(
            torch.tensor(_YELLOW), torch.tensor(_WHITE), _uniform(generator)
        ) * math.exp(-0.4 * _uniform(generator))
        centres, moves = self._path(len(frames), (height, width), generator)
        for frame, centre, move in zip(frames, centres, moves, strict=True):
            # A smeared ball is fainter, though less than in proportion: highlights are cut off.
            length = float(move.norm()) * exposure
            strength = opacity * min(1.0, 3 * radius / (2 * radius + length))
            half = move * exposure / 2
            _blend(frame, centre - half, centre + half, radius, strength, tint)
        return centres

    def _path(
        self, frames: int, canvas: tuple[int, int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """``[T, 2]`` centres in pixels, and movement per frame, of a path through the canvas."""
        speed = math.exp(_between([math.log(s) for s in self.speed], _uniform(generator)))
        angle = 2 * math.pi * _uniform(generator)
        move = torch.tensor((math.cos(angle), math.sin(angle))) * speed
        pull = torch.tensor((0.0, _GRAVITY * _uniform(generator) * min(1.0, speed)))
        turns = _uniform(generator) < _TURN
        when = int(torch.randint(0, frames, (), generator=generator))
        bounce = torch.rand(2, generator=generator) * 1.5 - torch.tensor((0.5, 1.5))
        middle = torch.rand(2, generator=generator) * torch.tensor((canvas[1], canvas[0]))
        moves = torch.stack([move + pull * t for t in range(frames)])
        if turns:
            moves[when:] = moves[when:] * bounce
        centres = moves.cumsum(0)
        # Somewhere along the clip it is in the picture for sure.
        return centres - centres[frames // 2] + middle, moves


def _blend(
    frame: Tensor, start: Tensor, end: Tensor, radius: float, strength: float, tint: Tensor
) -> None:
    """Lay the streak of a disc from ``start`` to ``end`` over a ``[3, H, W]`` uint8 frame."""
    height, width = frame.shape[-2:]
    margin = radius + 1
    low = torch.minimum(start, end) - margin
    high = torch.maximum(start, end) + margin
    left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    right, bottom = min(width, math.ceil(high[0])), min(height, math.ceil(high[1]))
    if left >= right or top >= bottom:
        return
    y = torch.arange(top, bottom).float().view(-1, 1) + 0.5
    x = torch.arange(left, right).float().view(1, -1) + 0.5
    step = end - start
    along = ((x - start[0]) * step[0] + (y - start[1]) * step[1]) / step.dot(step).clamp(min=1e-9)
    along = along.clamp(0, 1)
    away = torch.hypot(x - start[0] - along * step[0], y - start[1] - along * step[1])
    cover = (radius + 0.5 - away).clamp(0, 1) * strength
    part = frame[:, top:bottom, left:right]
    mixed = torch.lerp(part.float(), tint.view(3, 1, 1), cover)
    part.copy_((mixed + 0.5).clamp(0, 255).to(torch.uint8))


def _add(sample: Sample, t: int, number: int, place: Tensor, canvas: tuple[int, int]) -> None:
    """Make a drawn ball a target of frame ``t``, if it is in the picture and the frame known."""
    height, width = canvas
    known = len(sample.visibility[t]) > 0
    centre = place / torch.tensor((width, height))
    if not known or bool((centre < 0).any()) or bool((centre >= 1).any()):
        return
    seen = sample.visibility[t]
    values = {
        "boxes": torch.cat((centre, torch.zeros(2))).view(1, 4),
        "labels": torch.zeros(1, dtype=torch.long),
        "track_ids": torch.full((1,), number),
        "confidence": torch.ones(1),
        "visibility": torch.full((1,), int(Visibility.VISIBLE)),
    }
    for name, value in values.items():
        before = getattr(sample, name)[t]
        if name == "visibility":  # "known to be absent" is no longer true
            before = seen[seen > Visibility.ABSENT]
        getattr(sample, name)[t] = torch.cat((before, value.to(before.dtype)))


def _between(limits: tuple[float, float] | list[float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
