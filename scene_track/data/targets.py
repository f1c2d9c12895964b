"""The ground truth of some frames of a sequence, boxes and balls alike, as flat arrays.

A ball is a box without extent. Transforms, batch and models need no second way for balls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.video import Video
from scene_track.data.visibility import Visibility

BALL_ID = 1
"""Identity of the one ball of a sequence."""

PIXEL_CENTRE = 0.5
"""Position of the centre of pixel 0 where the edge of the image is 0; files count from centres,
boxes from edges."""


@dataclass(frozen=True)
class Objects:
    """All objects of T frames, frame by frame.

    Attributes:
        counts: T numbers of objects, N together.
        boxes: ``[N, 4]`` float64 left, top, width, height in pixels of the original, where 0 is the
            edge of the image; a ball's width and height are 0.
        labels: ``[N]`` int64.
        ids: ``[N]`` int64.
        visibility: ``[N]`` int64, 1 to 3; -1 for an ignored region.
        known: T flags, False = the frame is not annotated.
        single: True for balls: a frame without one says that it is absent.
        xyz: ``[N, 3]`` metres; None without positions.
    """

    counts: list[int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    visibility: NDArray[np.int64]
    known: list[bool]
    single: bool
    xyz: NDArray[np.float64] | None

    def corners(self, image: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
        """``[N, 4]`` float32 corners (x1, y1, x2, y2) in pixels of another canvas.

        Args:
            image: (height, width) of the original.
            canvas: (height, width) that the original is resized to.
        """
        corners = np.concatenate((self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]), axis=1)
        corners *= np.array((canvas[1] / image[1], canvas[0] / image[0]) * 2)
        return torch.from_numpy(corners.astype(np.float32))

    def visibility_per_frame(self, keep: Tensor) -> list[Tensor]:
        """T tensors int64: of the kept objects of a frame, or ``[0]`` where a ball is absent.

        Args:
            keep: ``[N]`` bool, False = the transforms have moved it off the canvas.
        """
        rows = torch.from_numpy(self.visibility)
        absent = torch.tensor([int(Visibility.ABSENT)])
        result = []
        for values, kept, known in zip(
            rows.split(self.counts), keep.split(self.counts), self.known, strict=True
        ):
            seen = values[kept]
            result.append(absent if self.single and known and not len(seen) else seen)
        return result


def read_objects(sequence: Video, positions: Sequence[int]) -> Objects:
    """The ground truth of some frames.

    Args:
        sequence: the video.
        positions: T indices into ``sequence.frames``.
    """
    if sequence.points is not None:
        return _ball(sequence.points[np.asarray(positions, dtype=np.int64)])
    rows = [sequence.rows(p) for p in positions]

    def column(values: NDArray) -> NDArray:
        return np.concatenate([values[r] for r in rows]) if rows else values[:0]

    ids = column(sequence.table.ids)
    return Objects(
        counts=[r.stop - r.start for r in rows],
        boxes=column(sequence.table.boxes),
        labels=column(sequence.labels),
        ids=ids,
        visibility=np.where(ids < 0, int(Visibility.UNKNOWN), int(Visibility.VISIBLE)),
        known=[True] * len(rows),
        single=False,
        xyz=None if sequence.xyz is None else column(sequence.xyz),
    )


def _ball(points: NDArray[np.float64]) -> Objects:
    """``[T, 3]`` (x, y, visibility) as objects without extent."""
    visibility = points[:, 2].astype(np.int64)
    seen = visibility > Visibility.ABSENT
    count = int(seen.sum())
    return Objects(
        counts=seen.astype(int).tolist(),
        boxes=np.hstack((points[seen, :2] + PIXEL_CENTRE, np.zeros((count, 2)))),
        labels=np.zeros(count, dtype=np.int64),
        ids=np.full(count, BALL_ID, dtype=np.int64),
        visibility=visibility[seen],
        known=(visibility > Visibility.UNKNOWN).tolist(),
        single=True,
        xyz=None,
    )
