"""Contact sheet of a validation run: predicted tracks beside ground truth.

A dashed line marks a predicted box without a true box (left) or a missed true box (right).
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from scene_track.data.boxes import pairwise_iou
from scene_track.viz.boxes import Frame, check_frame, draw_boxes, resize_width, side_by_side
from scene_track.viz.sheet import FrameSheet


class SceneVisualiser(FrameSheet):
    """Collects frames of a validation run and makes one contact sheet of them."""

    LEGEND = "dashed line: false (left) or missed (right)"

    def add_frame(
        self,
        image: ArrayLike,
        predicted: tuple[ArrayLike, ArrayLike, ArrayLike],
        ground_truth: tuple[ArrayLike, ArrayLike],
        caption: str,
    ) -> None:
        """Offers the next frame; most are dropped at once, at no cost.

        Args:
            image: ``[H, W, 3]`` uint8 RGB.
            predicted: boxes ``[N, 4]`` cxcywh 0-1, ids ``[N]`` (negative = none), scores ``[N]``
                0-1.
            ground_truth: boxes ``[M, 4]`` cxcywh 0-1, ids ``[M]``.
            caption: one line, such as ``"dancetrack0004 frame 31"``.

        Raises:
            ValueError: ``image`` has another shape or type.
        """
        if self.wanted():
            # Copies: the caller may reuse its buffers.
            boxes, ids, scores = (np.array(part) for part in predicted)
            true_boxes, true_ids = (np.array(part) for part in ground_truth)
            frame = check_frame(image).copy()
            boxes, true_boxes = boxes.reshape(-1, 4), true_boxes.reshape(-1, 4)
            self.keep(
                partial(self._panel, frame, boxes, ids, scores, true_boxes, true_ids, caption)
            )

    def _panel(
        self,
        frame: Frame,
        boxes: NDArray,
        ids: NDArray,
        scores: NDArray,
        true_boxes: NDArray,
        true_ids: NDArray,
        caption: str,
    ) -> tuple[Frame, str]:
        frame = resize_width(frame, self.panel_width)
        hit, found = match_boxes(boxes, true_boxes)
        left = draw_boxes(frame, boxes, ids, scores, dashed=~hit)
        right = draw_boxes(frame, true_boxes, true_ids, dashed=~found)
        tally = f"{found.sum()} of {len(found)} found, {(~hit).sum()} false"
        return side_by_side(left, right), f"{caption}   |   {tally}"


def match_boxes(
    boxes: NDArray, true_boxes: NDArray, min_iou: float = 0.5
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which predicted and which true boxes are matched (one to one, greatest total IoU).

    Args:
        boxes: ``[N, 4]`` cxcywh.
        true_boxes: ``[M, 4]`` cxcywh.
        min_iou: least intersection over union of a match.

    Returns:
        ``[N]`` and ``[M]`` bool.
    """
    iou = pairwise_iou(boxes, true_boxes)
    # Pairs below the limit count 0, so they never replace a pair that counts.
    worth = np.where(np.nan_to_num(iou) >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(-worth)
    good = worth[rows, columns] > 0
    hit, found = np.zeros(len(boxes), bool), np.zeros(len(true_boxes), bool)
    hit[rows[good]] = True
    found[columns[good]] = True
    return hit, found
