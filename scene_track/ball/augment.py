"""Transforms of a ball's training clips: those of people, and balls drawn into the images.

A few hundred labelled frames show a ball in few places. A disc that flies while the shutter is open
is a streak: as wide as the ball, the longer the faster, and the fainter. Drawn at random places,
speeds and colours over real images it teaches what a ball looks like anywhere (copy-paste
augmentation, Ghiasi et al., CVPR 2021, of a drawn object).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from scene_track.data.samples import Sample
from scene_track.data.targets import BALL_ID
from scene_track.data.transforms import ClipAugment
from scene_track.data.visibility import Visibility

_RADIUS = (0.9, 2.4)  # pixels
_SPEEDS = (0.3, 2.0, 22.0)  # pixels per frame; one ball in three is slower than the second
_RESTING = 0.25  # share of the balls that lie still
_SHUTTER = (0.3, 0.6)  # share of a frame's time that it is open
_GRAVITY = (-0.4, 0.9)  # pixels per frame squared
_COLOUR = ((170.0, 255.0), (190.0, 255.0), (110.0, 240.0))  # white to yellow-green
_EDGE = 0.6  # pixels over which a ball's border fades


@dataclass(kw_only=True)
class BallAugment(ClipAugment):
    """``ClipAugment``, and up to ``drawn_balls`` further balls drawn into a clip; 0 = none."""

    drawn_balls: Annotated[int, Field(ge=0, le=20)]

    def add_objects(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Draws 0 to ``drawn_balls`` balls (uniform) into a clip of a ball.

        A flying ball becomes a target. One that lies still does not: neither is a dot on a
        scoreboard.
        """
        if not self.drawn_balls or sample.points is None:
            return sample
        count = int(torch.randint(0, self.drawn_balls + 1, (), generator=generator))
        for number in range(count):
            sample = _draw_ball(sample, BALL_ID + 1 + number, generator)
        return sample


def _draw_ball(sample: Sample, identity: int, generator: torch.Generator) -> Sample:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    length, _, height, width = sample.frames.shape
    if not length:
        return sample
    radius = uniform(*_RADIUS)
    resting, slow = uniform(0, 1) < _RESTING, uniform(0, 1) < 1 / 3
    speed = uniform(*(_SPEEDS[:2] if slow else _SPEEDS[1:])) * (not resting)
    angle = torch.tensor(uniform(0, 2 * torch.pi))
    velocity = speed * torch.stack((angle.cos(), angle.sin()))
    fall = torch.tensor((0.0, uniform(*_GRAVITY))) * (speed / _SPEEDS[2])
    shutter, solid = uniform(*_SHUTTER), uniform(0.8, 1.3)
    colour = torch.tensor([uniform(*limits) for limits in _COLOUR]).view(3, 1, 1)
    # On the canvas in the middle of the clip: a fast one comes in and leaves.
    time = torch.arange(length).float() - (length - 1) / 2
    middle = torch.tensor((uniform(0, width), uniform(0, height)))
    places = middle + time[:, None] * velocity + 0.5 * time[:, None] ** 2 * fall
    seen = ((places >= 0) & (places < torch.tensor((width, height)))).all(-1)
    # A frame without annotation stays so: another ball may be in it.
    known = torch.tensor([len(value) > 0 for value in sample.visibility])

    frames = sample.frames.clone()
    for t in torch.nonzero(seen).flatten().tolist():
        half = (velocity + time[t] * fall) * shutter / 2
        rows, columns = _around(places[t], half, radius, (height, width))
        cover = _streak(places[t], half, radius, rows, columns)
        streak = 2 * float(half.norm())
        alpha = cover * min(1.0, solid * 2 * radius / (2 * radius + streak))
        patch = frames[t, :, rows, columns]
        level = patch.float()
        patch[:] = (level + (colour - level) * alpha + 0.5).clamp(0, 255).to(torch.uint8)

    targets = (seen & known & (not resting)).tolist()
    return _add_targets(replace(sample, frames=frames), places, targets, identity)


def _add_targets(sample: Sample, places: Tensor, targets: list[bool], identity: int) -> Sample:
    """Adds the ball to the ground truth of the frames where ``targets`` is true."""
    height, width = sample.frames.shape[-2:]

    def added(values: list[Tensor], row: Tensor) -> list[Tensor]:
        return [
            torch.cat((value, row[None].to(value.dtype))) if shown else value
            for value, shown in zip(values, targets, strict=True)
        ]

    boxes = [
        torch.cat((value, torch.cat((place / torch.tensor((width, height)), torch.zeros(2)))[None]))
        if shown
        else value
        for value, place, shown in zip(sample.boxes, places, targets, strict=True)
    ]
    visible = torch.tensor(int(Visibility.VISIBLE))
    return replace(
        sample,
        boxes=boxes,
        labels=added(sample.labels, torch.tensor(0)),
        track_ids=added(sample.track_ids, torch.tensor(identity)),
        confidence=added(sample.confidence, torch.tensor(1.0)),
        visibility=[
            # An absent ball is one slot that says so; with a drawn ball it is no longer true.
            torch.cat((value[value > 0], visible[None])) if shown else value
            for value, shown in zip(sample.visibility, targets, strict=True)
        ],
    )


def _around(
    place: Tensor, half: Tensor, radius: float, size: tuple[int, int]
) -> tuple[slice, slice]:
    """Rows and columns that a streak can reach: all others it leaves exactly as they are."""
    reach = half.abs() + radius + _EDGE / 2 + 1
    low, high = (place - reach).floor().tolist(), (place + reach).ceil().tolist()
    columns, rows = (
        slice(max(int(low[axis]), 0), max(min(int(high[axis]), size[1 - axis]), 0))
        for axis in (0, 1)
    )
    return rows, columns


def _streak(place: Tensor, half: Tensor, radius: float, rows: slice, columns: slice) -> Tensor:
    """0-1, how much of each pixel a disc covers that moves by ``half`` to both sides.

    Args:
        place: ``[2]`` x, y of its middle, pixels.
        half: ``[2]`` pixels.
        radius: pixels.
        rows: of the image.
        columns: the same.
    """
    down = torch.arange(rows.start, rows.stop).float()[:, None] + 0.5 - place[1]
    across = torch.arange(columns.start, columns.stop).float()[None] + 0.5 - place[0]
    along = (across * half[0] + down * half[1]) / half.square().sum().clamp(min=1e-6)
    along = along.clamp(-1, 1)
    away = torch.hypot(across - along * half[0], down - along * half[1])
    return ((radius - away) / _EDGE + 0.5).clamp(0, 1)
