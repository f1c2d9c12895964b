"""Box arithmetic on numpy arrays in float64; ``models/boxes.py`` has that on tensors.

``metrics/similarity.py`` has its own overlap, equal to TrackEval's to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TINY = np.finfo(np.float64).tiny

Boxes = NDArray[np.float64]


def to_relative(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """``[N, 4]`` left, top, width, height in pixels to cxcywh 0-1; ``size`` is (height, width)."""
    corner = boxes / np.array(size[::-1] * 2, dtype=np.float64)
    return np.concatenate((corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]), axis=1)


def to_pixels(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """``[N, 4]`` cxcywh 0-1 to left, top, width, height in pixels; ``size`` is (height, width)."""
    scaled = boxes.reshape(-1, 4) * np.array(size[::-1] * 2, dtype=np.float64)
    return np.concatenate((scaled[:, :2] - scaled[:, 2:] / 2, scaled[:, 2:]), axis=1)


def pairwise_iou(first: Boxes, second: Boxes) -> Boxes:
    """``[N, M]`` overlaps of ``[N, 4]`` and ``[M, 4]`` cxcywh; 0 where both are empty."""
    half, other = first[:, None, 2:] / 2, second[:, 2:] / 2
    low = np.maximum(first[:, None, :2] - half, second[:, :2] - other)
    sides = np.minimum(first[:, None, :2] + half, second[:, :2] + other) - low
    common = np.maximum(sides[..., 0], 0) * np.maximum(sides[..., 1], 0)
    union = (first[:, 2] * first[:, 3])[:, None] + second[:, 2] * second[:, 3] - common
    return common / np.maximum(union, _TINY)
