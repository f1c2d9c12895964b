"""Motion of the camera from boxes alone: where everybody moves alike, nobody does.

Between two frames the camera has moved by the median shift of the centres of all boxes that overlap
from one to the other. A few people who walk in step would be taken for the camera, so a number of
pairs is asked for. It works as long as most boxes overlap themselves a frame later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scene_track.data.boxes import pairwise_iou

_SURE = 0.5  # score from which a detection takes part
_OVERLAP = 0.3  # IoU from which two boxes are taken for a pair


class Camera:
    """Follows the camera through a video, frame by frame."""

    def __init__(self, pairs: int) -> None:
        """Stand still.

        Args:
            pairs: of boxes that a movement needs, >= 1.
        """
        self.pairs = pairs
        self._shift = np.zeros(2)
        self._before = np.zeros((0, 4))

    def follow(
        self, boxes: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How far the image has moved since the first frame.

        Args:
            boxes: ``[N, 4]`` cxcywh, 0-1, of the next frame.
            scores: ``[N]`` 0-1.

        Returns:
            ``[2]`` x, y, 0-1 of the image; what stands still in the world has moved by it.
        """
        now = boxes[scores >= _SURE]
        if min(len(now), len(self._before)) >= self.pairs:
            overlap = pairwise_iou(self._before, now)
            rows, columns = linear_sum_assignment(overlap, maximize=True)
            good = overlap[rows, columns] >= _OVERLAP
            if good.sum() >= self.pairs:
                moved = now[columns[good], :2] - self._before[rows[good], :2]
                self._shift = self._shift + np.median(moved, axis=0)
        self._before = now
        return self._shift
