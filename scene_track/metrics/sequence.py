"""What the tracking metrics compare: the boxes of one sequence, true and predicted.

One check, made once, is what lets the metric files work without any: ids are unique within a frame,
frames lie inside the sequence, every number is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scene_track.data.mot_files import BoxTable

__all__ = ["TrackingSequence"]


@dataclass(frozen=True, eq=False)
class TrackingSequence:
    """Ground truth and predictions of one sequence.

    Attributes:
        ground_truth: true boxes (left, top, width, height in pixels) with identities. Rows with
            confidence 0 are marked as not to be scored and are left out by every metric.
        predictions: predicted boxes with identities; their confidence plays no part in tracking.
        length: number of frames T; frames are numbered 1 to T.
    """

    ground_truth: BoxTable
    predictions: BoxTable
    length: int

    def __post_init__(self) -> None:
        """Check both tables.

        Raises:
            ValueError: if ``length`` is negative, a frame lies outside 1 to ``length``, an id
                appears twice in a frame, or a box is not finite or has a negative size.
        """
        if self.length < 0:
            raise ValueError(f"length is {self.length}, expected the number of frames, >= 0")
        for side, table in (("ground truth", self.ground_truth), ("predictions", self.predictions)):
            _check(side, table, self.length)


def _check(side: str, table: BoxTable, length: int) -> None:
    if len(table) == 0:
        return
    if table.frames[0] < 1 or table.frames[-1] > length:
        raise ValueError(
            f"{side}: frames {table.frames[0]} to {table.frames[-1]}, expected 1 to {length}"
        )
    sound = np.isfinite(table.boxes).all(axis=1) & (table.boxes[:, 2:] >= 0).all(axis=1)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"{side}: frame {table.frames[row]}, id {table.ids[row]}: box "
            f"{table.boxes[row].tolist()}, expected finite numbers with width and height >= 0"
        )
    order = np.lexsort((table.ids, table.frames))
    frames, ids = table.frames[order], table.ids[order]
    twice = np.flatnonzero((frames[1:] == frames[:-1]) & (ids[1:] == ids[:-1]))
    if len(twice):
        raise ValueError(
            f"{side}: id {ids[twice[0]]} appears more than once in frame {frames[twice[0]]}"
        )
