"""A still image as a short clip: a camera moves over it, and every box follows.

Detection datasets are larger and more varied than tracking datasets, and their labels cost less. A
camera that pans, zooms and rolls over an image makes a clip in which every annotation is an
identity that moves, leaves the view and comes back (CenterTrack, ECCV 2020, and TrackFormer, CVPR
2022, train on CrowdHuman in this way, with two frames). The path is smooth and has a speed in
seconds, so that clips of stills and of videos may be mixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from scene_track.data.mot_files import BoxTable
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import Video

IGNORED = -1
"""Label and identity of a region that is left out of all losses."""


def still_video(
    file: Path,
    *,
    name: str,
    size: tuple[int, int],
    boxes: NDArray[np.float64],
    labels: Sequence[int],
    ignored: NDArray[np.float64],
) -> Video:
    """One image with its boxes as a video of one frame.

    Args:
        file: the image.
        name: unique within its split.
        size: (height, width) in pixels.
        boxes: ``[n, 4]`` left, top, width, height in pixels.
        labels: n class indices from 0.
        ignored: ``[k, 4]`` regions in which nobody is labelled one by one.
    """
    count = len(labels)
    info = SequenceInfo(name, "", 1.0, 1, size[1], size[0], file.suffix)
    return Video(
        name=name,
        folder=file.parent,
        info=info,
        frames=np.ones(1, dtype=np.int64),
        files=(file,),
        table=BoxTable.from_arrays(np.ones(count), np.arange(1, count + 1), boxes.reshape(-1, 4)),
        labels=np.array(labels, dtype=np.int64),
        xyz=None,
        labelled=True,
        ignored=ignored.reshape(-1, 4),
    )


def as_clip(still: Video, length: int, interval: int, frame_rate: float) -> Video:
    """The same image ``length`` times, ``interval`` frames apart.

    Ignored regions become rows of identity ``IGNORED``.
    """
    assert still.ignored is not None
    numbers = 1 + interval * np.arange(length, dtype=np.int64)
    skipped = np.full(len(still.ignored), IGNORED)
    ids = np.concatenate((still.table.ids, skipped))
    boxes = np.concatenate((still.table.boxes, still.ignored))
    labels = np.concatenate((still.labels, skipped))
    table = BoxTable.from_arrays(
        np.repeat(numbers, len(ids)), np.tile(ids, length), np.tile(boxes, (length, 1))
    )
    info = replace(still.info, frame_rate=frame_rate, length=int(numbers[-1]))
    return replace(
        still,
        info=info,
        frames=numbers,
        files=still.files * length,
        table=table,
        labels=np.tile(labels, length),
    )


@dataclass(kw_only=True)
class CameraPath:
    """Draws smooth paths of a camera over a still image, and renders what it sees.

    Options: see ``camera_path`` in ``conf/dataset/_stills.yaml``. Beyond the image the view is
    black. Boxes become the upright boxes around the turned ones, which are larger.
    """

    frame_rate: Annotated[float, Field(gt=0)]
    period: Annotated[float, Field(gt=0)]
    zoom: Annotated[float, Field(ge=0, le=2)]
    zoom_change: Annotated[float, Field(ge=0, le=2)]
    pan: Annotated[float, Field(ge=0, le=2)]
    roll: Annotated[float, Field(ge=0, le=45)]
    occluders: Annotated[int, Field(ge=0, le=20)]
    hidden: Annotated[float, Field(gt=0, le=1)]

    def draw(
        self,
        seconds: Tensor,
        image: tuple[int, int],
        canvas: tuple[int, int],
        generator: torch.Generator,
    ) -> Tensor:
        """Where the camera looks.

        Args:
            seconds: ``[T]`` times of the frames.
            image: (height, width) in pixels.
            canvas: (height, width) of the frames in pixels.
            generator: source of every draw.

        Returns:
            ``[T, 2, 3]`` float64 affine maps from pixels of the image to pixels of the canvas,
            where 0 is the outer edge of the first pixel.
        """
        swings = self._swings(seconds, generator)
        first = torch.rand(4, generator=generator, dtype=torch.float64)
        # Between the image's own shape, squeezed as a validation frame is, and an undistorted view.
        height, width = (float(side) for side in image)
        undistorted = min(width / canvas[1], height / canvas[0])
        across = undistorted * (width / canvas[1] / undistorted) ** float(first[0])
        down = undistorted * (height / canvas[0] / undistorted) ** float(first[0])
        scale = torch.exp(-float(first[1]) * self.zoom + swings[0] * self.zoom_change)
        view = scale.unsqueeze(1) * torch.tensor((across * canvas[1], down * canvas[0]))
        room = (torch.tensor((width, height)) - view[0]).clamp(min=0)
        start = torch.tensor((width, height)) / 2 + (first[2:] - 0.5) * room
        centre = start + swings[1:3].T * self.pan * view
        angle = swings[3] * math.radians(self.roll)
        # image -> centred -> turned -> canvas
        grow = torch.tensor((canvas[1], canvas[0]), dtype=torch.float64) / view
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), 1)
        linear = grow.unsqueeze(2) * turn
        middle = torch.tensor((canvas[1], canvas[0]), dtype=torch.float64) / 2
        offset = middle - (linear @ centre.unsqueeze(2)).squeeze(2)
        return torch.cat((linear, offset.unsqueeze(2)), dim=2)

    def _swings(self, seconds: Tensor, generator: torch.Generator) -> Tensor:
        """``[4, T]`` smooth curves in -1 to 1 (zoom, x, y, roll), each a sine of its own."""
        draws = torch.rand(4, 3, generator=generator, dtype=torch.float64)
        periods = self.period * (1 + 2 * draws[:, :1])
        phases = 2 * math.pi * draws[:, 1:2]
        return draws[:, 2:] * torch.sin(2 * math.pi * seconds.double() / periods + phases)

    def occlude(
        self, frames: Tensor, corners: Tensor, counts: Sequence[int], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Let pieces of the first frame fly over the clip.

        Args:
            frames: ``[T, 3, h, w]`` uint8.
            corners: ``[N, 4]`` boxes of all frames together, pixels of the canvas.
            counts: T numbers of boxes.
            generator: source of every draw.

        Returns:
            The frames, and ``[N]`` bool, False where a box is hidden.
        """
        keep = torch.ones(len(corners), dtype=torch.bool)
        number = int(torch.randint(0, self.occluders + 1, (), generator=generator))
        if not number:
            return frames, keep
        frames, first = frames.clone(), frames[0].clone()
        time, _, height, width = frames.shape
        covered = torch.zeros(time, height, width, dtype=torch.bool)
        for _ in range(number):
            draws = torch.rand(8, generator=generator).tolist()
            h = max(2, round(height * (0.1 + 0.4 * draws[0])))
            w = max(2, round(h * (0.3 + 0.9 * draws[1])))
            w = min(w, width)
            top, left = round(draws[2] * (height - h)), round(draws[3] * (width - w))
            piece = first[:, top : top + h, left : left + w]
            inside = _ellipse(h, w)
            for t in range(time):
                share = t / max(1, time - 1)
                x = round((draws[4] + (draws[5] - draws[4]) * share) * (width + w)) - w
                y = round((draws[6] + (draws[7] - draws[6]) * share * 0.3) * (height + h)) - h
                here = (slice(max(y, 0), min(y + h, height)), slice(max(x, 0), min(x + w, width)))
                part = (slice(max(-y, 0), height - y), slice(max(-x, 0), width - x))
                mask = inside[part]
                frames[t][(slice(None), *here)] = torch.where(
                    mask, piece[(slice(None), *part)], frames[t][(slice(None), *here)]
                )
                covered[t][here] |= mask
        frame = torch.repeat_interleave(torch.arange(time), torch.tensor(list(counts)))
        return frames, covered_share(covered, frame, corners) < self.hidden


def _ellipse(height: int, width: int) -> Tensor:
    """``[h, w]`` bool, True inside the ellipse that fills the rectangle."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y.unsqueeze(1) ** 2 + x**2 <= 1


def covered_share(covered: Tensor, frame: Tensor, corners: Tensor) -> Tensor:
    """The part of each box that is covered, of what lies on the canvas.

    Args:
        covered: ``[T, h, w]`` bool.
        frame: ``[N]`` index of each box's frame.
        corners: ``[N, 4]`` in pixels; rounded to whole pixels here.

    Returns:
        ``[N]`` in 0-1; 0 for a box off the canvas.
    """
    height, width = covered.shape[1:]
    sums = F.pad(covered.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    x1, x2 = (corners[:, i].round().long().clamp(0, width) for i in (0, 2))
    y1, y2 = (corners[:, i].round().long().clamp(0, height) for i in (1, 3))
    inside = sums[frame, y2, x2] - sums[frame, y1, x2] - sums[frame, y2, x1] + sums[frame, y1, x1]
    return inside / ((x2 - x1) * (y2 - y1)).clamp(min=1)


def render(
    image: Tensor, maps: Tensor, original: tuple[int, int], canvas: tuple[int, int]
) -> Tensor:
    """What a camera sees of an image.

    Args:
        image: ``[3, h, w]`` uint8, the original or a smaller copy of it.
        maps: ``[T, 2, 3]`` from pixels of the original to pixels of the canvas.
        original: (height, width) of the original in pixels.
        canvas: (height, width) of the frames in pixels.

    Returns:
        ``[T, 3, H, W]`` uint8, bilinear, black outside the image.
    """
    inverse = torch.linalg.inv(maps[:, :, :2])
    offset = -(inverse @ maps[:, :, 2:])
    # In 0-1 of either side the maps do not depend on the copy's size; grid_sample wants -1 to 1.
    to_canvas = torch.diag(torch.tensor((canvas[1], canvas[0]), dtype=torch.float64))
    from_image = torch.diag(torch.tensor((1 / original[1], 1 / original[0]), dtype=torch.float64))
    linear = from_image @ inverse @ to_canvas
    shift = from_image @ offset
    # x in -1..1 of the canvas is (x + 1) / 2 in 0-1, and back
    theta = torch.cat((linear, linear.sum(2, keepdim=True) + 2 * shift - 1), dim=2)
    grid = F.affine_grid(theta.float(), [len(maps), 3, *canvas], align_corners=False)
    source = image.float().unsqueeze(0).expand(len(maps), -1, -1, -1)
    seen = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    return seen.add_(0.5).clamp_(0, 255).to(torch.uint8)


def moved_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """The upright boxes around boxes that a camera path has moved.

    Args:
        maps: ``[N, 2, 3]`` of each box's frame.
        boxes: ``[N, 4]`` left, top, width, height in pixels of the image.

    Returns:
        ``[N, 4]`` corners (x1, y1, x2, y2) in pixels of the canvas, not clipped.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    corners = torch.stack(
        (
            low,
            high,
            torch.stack((low[:, 0], high[:, 1]), 1),
            torch.stack((high[:, 0], low[:, 1]), 1),
        ),
        dim=2,
    )
    moved = maps[:, :, :2] @ corners + maps[:, :, 2:]
    return torch.cat((moved.amin(2), moved.amax(2)), dim=1)


def resolution(maps: Tensor) -> float:
    """Pixels of the canvas per pixel of the image in the closest view of a path, at most 1.

    A larger image is scaled down by it first, with smoothing: sampling alone would flicker.
    """
    stretch = torch.linalg.svdvals(maps[:, :, :2])
    return min(1.0, float(stretch.amin(1).amax()))
