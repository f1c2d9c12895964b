"""Clips and streams of boxes alone: all boxes of a video lie in arrays, a clip is cut from them.

The same order of videos, windows and draws as with images (``data/clips.py``), without an image.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.camera import Camera
from scene_track.data.clips import ClipDataset
from scene_track.data.detections import BoxVideo
from scene_track.data.resumable_loader import derive_seed
from scene_track.data.samples import Sample
from scene_track.data.transforms import ClipAugment
from scene_track.data.visibility import Visibility


class BoxClips(ClipDataset):
    """Training clips: interval, direction, side, scale and place are random for a whole clip.

    Of the transforms those of the geometry are used (flip, reverse, scale, shift). No box is cut or
    dropped at the border of the image: nothing is seen there that would end.
    """

    def __init__(
        self,
        videos: Sequence[BoxVideo],
        *,
        length: int,
        stride: int,
        max_interval: int,
        augment: ClipAugment,
        seed: int,
        same_every_epoch: bool = False,
        camera_pairs: int = 0,
    ) -> None:
        """Lists the windows; see ``ClipDataset``.

        ``camera_pairs`` of true boxes tell a movement of the camera, which is taken off all boxes;
        0 = never.
        """
        super().__init__(
            [video.video for video in videos],
            size=(1, 1),  # of images, which are not read
            length=length,
            stride=stride,
            max_interval=max_interval,
            augment=augment,
            seed=seed,
            same_every_epoch=same_every_epoch,
        )
        self.videos = list(videos)
        self.shifts = [_camera_shifts(video, camera_pairs) for video in self.videos]

    def _clip(self, epoch: int, index: int, generator: torch.Generator) -> Sample:
        number, _ = self.windows[index]
        video = self.videos[number]
        positions = self.positions((epoch, index), generator)
        random = np.random.default_rng(derive_seed(self.seed, epoch, index))
        sample = _sample(video, positions, repeat(random))
        flipped = float(torch.rand((), generator=generator)) < self.augment.flip
        zoom, *move = (2 * torch.rand(3, generator=generator) - 1).tolist()
        zoom = math.exp(zoom * self.augment.scale)
        scale = torch.tensor((-zoom if flipped else zoom, zoom, zoom, zoom))
        place = torch.tensor((move[0], move[1])) * self.augment.shift + 0.5
        assert sample.detections is not None
        shifts = torch.from_numpy(
            self.shifts[number][positions] - self.shifts[number][positions[0]]
        )
        for shift, *both in zip(shifts, sample.boxes, sample.detections, strict=True):
            for boxes in both:
                boxes[:, :2] -= shift + 0.5
                boxes[:, :4] *= scale
                boxes[:, 2:4].abs_()
                boxes[:, :2] += place
        return sample


class BoxStream:
    """Whole videos in order, as consecutive chunks that do not overlap.

    Where noise stands in for detections, its errors follow from the name of the video and the
    frame, so they are the same in every validation.
    """

    def __init__(self, videos: Sequence[BoxVideo], *, length: int, idle: bool = False) -> None:
        """Lists the chunks; idle, one without frames instead of those of the videos."""
        self.videos, self.length, self.idle = list(videos), length, idle
        self.chunks = [
            (number, start)
            for number, video in enumerate(self.videos)
            for start in range(0, len(video.video), length)
        ][: 1 if idle else None]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Sample:
        """The chunk with this number."""
        number, start = self.chunks[index]
        video = self.videos[number]
        stop = min(start + self.length, len(video.video))
        positions = [] if self.idle else list(range(start, stop))
        name = zlib.crc32(video.video.name.encode())
        return _sample(video, positions, (np.random.default_rng((name, p)) for p in positions))


def _camera_shifts(video: BoxVideo, pairs: int) -> NDArray[np.float64]:
    """``[F, 2]`` how far the image has moved since the first frame."""
    shifts = np.zeros((len(video.video), 2))
    camera = Camera(pairs)
    for position in range(len(shifts) if pairs else 0):
        boxes = video.true[video.video.rows(position)]
        shifts[position] = camera.follow(boxes, np.ones(len(boxes)))
    return shifts


def _sample(
    video: BoxVideo, positions: Sequence[int], randoms: Iterable[np.random.Generator]
) -> Sample:
    """Ground truth and detections of some frames; ``randoms`` draw each frame's noise."""
    true = video.video
    rows = [true.rows(position) for position in positions]

    def column(values: NDArray, kind: torch.dtype) -> list[Tensor]:
        joined = np.concatenate([values[r] for r in rows]) if rows else values[:0]
        counts = [r.stop - r.start for r in rows]
        return list(torch.from_numpy(joined).to(kind, copy=True).split(counts))

    ids = column(true.table.ids, torch.long)
    found = [video.detections(p, random) for p, random in zip(positions, randoms, strict=False)]
    numbers = true.frames[list(positions) or [0]]
    return Sample(
        frames=torch.zeros(len(positions), 3, 0, 0, dtype=torch.uint8),
        boxes=column(video.true, torch.float32),
        labels=column(true.labels, torch.long),
        track_ids=ids,
        confidence=[torch.ones(len(x)) for x in ids],
        visibility=[torch.full((len(x),), int(Visibility.VISIBLE)) for x in ids],
        points=None,
        xyz=None,
        frame_indices=torch.from_numpy(numbers.copy()),
        sequence=true,
        detections=[torch.from_numpy(x).float() for x in found],
    )
