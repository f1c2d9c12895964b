"""Augmentation of clips: one random draw for all frames of a clip, on uint8 frames and pixel boxes.

Every draw comes from the generator that the caller passes, never from global state,
so that a sample is a function of (seed, epoch, index) alone. Frames are ``tv_tensors.Video``, boxes
are ``tv_tensors.BoundingBoxes`` of all frames together; geometry runs through
``torchvision.transforms.v2``.

Boxes cut by the border: in training a box is clipped to the canvas, and dropped when less than
``min_visible`` of its area, or less than one pixel, remains. In evaluation nothing is clipped or
dropped: ground truth stays as in the file. A box without extent is a point, such as a ball: it is
dropped when it is moved off the canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from scene_track.data.samples import Sample

Side = Annotated[int, Field(ge=16, le=8192)]
"""A side of an image in pixels."""


@dataclass
class Clip:
    """Frames and boxes on their way through the transforms.

    Attributes:
        frames: ``[T, 3, H, W]`` uint8.
        boxes: ``[N, 4]`` corners (x1, y1, x2, y2) in pixels of ``frames``, of all frames together.
        keep: ``[N]`` bool, False = dropped.
        mirrored: whether left and right were exchanged.
    """

    frames: tv_tensors.Video
    boxes: tv_tensors.BoundingBoxes
    keep: Tensor
    mirrored: bool = False

    @classmethod
    def of(cls, frames: Tensor, corners: Tensor) -> Clip:
        """Wraps plain tensors: ``[T, 3, H, W]`` uint8 and ``[N, 4]`` float32 corners in pixels."""
        height, width = frames.shape[-2:]
        return cls(
            frames=tv_tensors.Video(frames),
            # torchvision would clamp after every step; how much of a box is cut must stay known
            boxes=_boxes(corners.reshape(-1, 4), (height, width)),
            keep=torch.ones(len(corners), dtype=torch.bool),
        )


def _boxes(data: Tensor, canvas: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
        data, format="XYXY", canvas_size=canvas, clamping_mode=None
    )


@dataclass(kw_only=True)
class ClipAugment:
    """The training transforms, each with its own strength; 0 switches it off.

    Options: see ``augment`` in ``conf/dataset/_base.yaml``; u there is uniform in ± the number. The
    greater part of a blend is the clip itself.
    """

    REPEATABLE: ClassVar = ("flip", "reverse", "min_visible", "mix_alpha", "crop_near")
    """Options that leave a frame's image as it is, or mirror it."""

    flip: Annotated[float, Field(ge=0, le=1)]
    reverse: Annotated[float, Field(ge=0, le=1)]
    scale: Annotated[float, Field(ge=0, le=2)]
    shift: Annotated[float, Field(ge=0, le=1)]
    channel_permutation: Annotated[float, Field(ge=0, le=1)]
    gain: Annotated[float, Field(ge=0, le=2)]
    bias: Annotated[float, Field(ge=0, le=255)]
    min_visible: Annotated[float, Field(ge=0, le=1)]
    mix: Annotated[float, Field(ge=0, le=1)]
    mix_alpha: Annotated[float, Field(gt=0, le=100)]
    crop: Annotated[list[Side], Field(min_length=2, max_length=2)] | None
    crop_near: Annotated[float, Field(ge=0, le=1)]

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of training clips where the model's images have ``size``."""
        return size if self.crop is None else (int(self.crop[0]), int(self.crop[1]))

    def unrepeatable(self) -> dict[str, Any]:
        """The options in use that change a frame's image from epoch to epoch, with their values."""
        return {k: v for k, v in vars(self).items() if v and k not in self.REPEATABLE}

    def will_mirror(self, generator: torch.Generator) -> bool:
        """Whether the next call with this generator, which is left as it is, mirrors the clip."""
        ahead = torch.Generator()
        ahead.set_state(generator.get_state())
        return _uniform(ahead) < self.flip

    def draw_reversed(self, generator: torch.Generator) -> bool:
        """Whether this clip runs backwards."""
        return _uniform(generator) < self.reverse

    def draw_mix(self, generator: torch.Generator) -> float:
        """Weight of this clip in a blend with another, 0.5-1; 1 = alone."""
        mixed = _uniform(generator) < self.mix
        seed = int(torch.randint(0, 2**62, (), generator=generator))
        # torch draws no Beta from a given generator.
        weight = np.random.default_rng(seed).beta(self.mix_alpha, self.mix_alpha)
        return max(weight, 1 - weight) if mixed else 1.0

    def add_objects(self, sample: Sample, generator: torch.Generator) -> Sample:
        """For subclasses: draws further objects into a finished (mixed) clip and its targets."""
        return sample

    def __call__(self, clip: Clip, size: tuple[int, int], generator: torch.Generator) -> Clip:
        """Augments a clip.

        Args:
            clip: frames of any size.
            size: (height, width) of the canvas; the result has this size or that of ``crop``.
            generator: source of every draw.
        """
        # Everything is drawn before anything is done: an option that is off shifts no other draw.
        flipped = _uniform(generator) < self.flip
        zoom = math.exp((2 * _uniform(generator) - 1) * self.scale)
        move = ((2 * torch.rand(2, generator=generator) - 1) * self.shift).tolist()
        permuted = _uniform(generator) < self.channel_permutation
        order = torch.randperm(3, generator=generator).tolist()
        gain = ((2 * torch.rand(3, generator=generator) - 1) * self.gain).exp()
        bias = (2 * torch.rand(3, generator=generator) - 1) * self.bias

        frames, boxes = clip.frames, clip.boxes
        height, width = frames.shape[-2:]
        if self.scale or self.shift or self.crop is not None:
            # The part of the image that fills the canvas; outside the image is black.
            h, w = max(round(height / zoom), 1), max(round(width / zoom), 1)
            top = round((height - h) / 2 - move[1] * height)
            left = round((width - w) / 2 - move[0] * width)
            if self.crop is not None:
                h = max(round(h * self.crop[0] / size[0]), 1)
                w = max(round(w * self.crop[1] / size[1]), 1)
                top, left = self._place_crop(boxes, (height, width), (h, w), generator)
                size = self.canvas(size)
            crop: dict[str, Any] = {"top": top, "left": left, "height": h, "width": w}
            frames = F.resized_crop(
                frames,
                **crop,
                size=list(size),
                interpolation=InterpolationMode.BILINEAR,
                antialias=True,
            )
            boxes = F.resized_crop(boxes, **crop, size=list(size))
        elif (height, width) != size:
            frames = F.resize(frames, list(size), InterpolationMode.BILINEAR, antialias=True)
            boxes = F.resize(boxes, list(size))
        if flipped:
            frames, boxes = F.horizontal_flip(frames), F.horizontal_flip(boxes)
        if permuted:
            frames = F.permute_channels(frames, order)
        if self.gain or self.bias:
            changed = frames.as_subclass(Tensor).to(torch.float32)
            changed.mul_(gain.view(3, 1, 1)).add_(bias.view(3, 1, 1) + 0.5).clamp_(0, 255)
            frames = tv_tensors.Video(changed.to(torch.uint8))
        clipped, keep = clip_boxes(boxes, size, self.min_visible)
        return Clip(
            frames=tv_tensors.Video(frames.contiguous()),
            boxes=_boxes(clipped, size),
            keep=clip.keep & keep,
            mirrored=clip.mirrored ^ flipped,
        )

    def _place_crop(
        self,
        boxes: Tensor,
        image: tuple[int, int],
        extent: tuple[int, int],
        generator: torch.Generator,
    ) -> tuple[int, int]:
        """Top and left of a crop, over an object of the clip or anywhere in the image."""
        near = _uniform(generator) < self.crop_near
        which = _uniform(generator)
        # Not at the very border of the crop, where half of an object's surroundings are cut off.
        share = (0.1 + 0.8 * torch.rand(2, generator=generator)).tolist()
        corner: list[int] = []
        for axis, (whole, part) in enumerate(zip(image, extent, strict=True)):
            room = whole - part
            start = (share[axis] - 0.1) / 0.8 * room
            if near and len(boxes):
                x1, y1, x2, y2 = boxes[int(which * len(boxes))].tolist()
                start = ((y1 + y2, x1 + x2)[axis]) / 2 - share[axis] * part
            corner.append(round(min(max(start, min(room, 0)), max(room, 0))))
        return corner[0], corner[1]


def clip_boxes(boxes: Tensor, size: tuple[int, int], min_visible: float) -> tuple[Tensor, Tensor]:
    """Clips corner boxes to the canvas.

    Args:
        boxes: ``[N, 4]`` corners in pixels.
        size: (height, width) of the canvas.
        min_visible: least part of the area that must stay on the canvas, 0-1.

    Returns:
        ``[N, 4]`` clipped corners and ``[N]`` bool, False where too little remains, or, of a point,
        nothing.
    """
    boxes = boxes.as_subclass(Tensor)
    limit = boxes.new_tensor((size[1], size[0], size[1], size[0]))
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    whole = boxes[:, 2:] - boxes[:, :2]
    rest = clipped[:, 2:] - clipped[:, :2]
    keep = (rest >= 1).all(-1) & (rest.prod(-1) >= min_visible * whole.prod(-1))
    point = (whole == 0).all(-1)
    on_canvas = (boxes[:, :2] >= 0).all(-1) & (boxes[:, 2:] < limit[2:]).all(-1)
    return clipped, torch.where(point, on_canvas, keep)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
