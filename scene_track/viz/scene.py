"""The picture of an epoch: a few validation frames, predicted tracks beside ground truth.

The number of frames that will come is unknown while they come, so they are thinned as they arrive:
memory stays bounded and the ones shown are spread evenly over all that were offered. What a reader
looks for is marked: a broken line is a predicted box that matches nothing, or a true box that
nobody found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from scene_track.viz.boxes import Frame, check_frame, contact_sheet, draw_boxes, resize_width
from scene_track.viz.boxes import side_by_side as beside


@dataclass
class _Shot:
    image: Frame
    boxes: NDArray
    ids: NDArray
    scores: NDArray
    true_boxes: NDArray
    true_ids: NDArray
    caption: str


class SceneVisualiser:
    """Collects frames of a validation run and makes one contact sheet of them."""

    def __init__(
        self,
        *,
        max_frames: Annotated[int, Field(ge=0)] = 8,
        columns: Annotated[int, Field(ge=1)] = 2,
        panel_width: Annotated[int, Field(ge=64)] = 448,
    ) -> None:
        """Start empty.

        Args:
            max_frames: frames on the sheet at most; 0 collects none.
            columns: pairs of panels beside each other.
            panel_width: width in pixels to which each frame is resized; below 448 numbers get hard
                to read.

        Raises:
            ValueError: ``max_frames`` is below 0 or ``columns`` below 1.
        """
        if max_frames < 0 or columns < 1:
            raise ValueError(
                "max_frames must be at least 0 and columns at least 1, not"
                f" {max_frames} and {columns}"
            )
        self.max_frames = max_frames
        self.columns = columns
        self.panel_width = panel_width
        self._shots: list[_Shot] = []
        self._offered = 0
        self._every = 1

    def __len__(self) -> int:
        """Frames that the sheet would show."""
        return min(len(self._shots), self.max_frames)

    def reset(self) -> None:
        """Forget all frames (a new epoch)."""
        self._shots, self._offered, self._every = [], 0, 1

    def add_frame(
        self,
        image: ArrayLike,
        predicted: tuple[ArrayLike, ArrayLike, ArrayLike],
        ground_truth: tuple[ArrayLike, ArrayLike],
        caption: str,
    ) -> None:
        """Offer the next frame; most are dropped at once, at no cost.

        Args:
            image: ``[H, W, 3]`` uint8 RGB.
            predicted: boxes ``[N, 4]`` cxcywh 0-1, ids ``[N]`` (negative = none), scores ``[N]``
                0-1.
            ground_truth: boxes ``[M, 4]`` cxcywh 0-1, ids ``[M]``.
            caption: one line, such as ``"dancetrack0004 frame 31"``.

        Raises:
            ValueError: ``image`` is no picture.
        """
        wanted = self.max_frames > 0 and self._offered % self._every == 0
        self._offered += 1
        if not wanted:
            return
        boxes, ids, scores = (np.array(part) for part in predicted)
        true_boxes, true_ids = (np.array(part) for part in ground_truth)
        shot = _Shot(
            image=check_frame(image).copy(),
            boxes=boxes.reshape(-1, 4),
            ids=ids,
            scores=scores,
            true_boxes=true_boxes.reshape(-1, 4),
            true_ids=true_ids,
            caption=caption,
        )
        self._shots.append(shot)
        # with four times as many as needed, every second one goes: the rest stays evenly spaced
        if len(self._shots) > 4 * self.max_frames:
            self._shots = self._shots[::2]
            self._every *= 2

    def picture(self, header: str = "") -> Frame:
        """The contact sheet of the frames so far.

        Args:
            header: one line above it, such as ``"epoch 12, val/hota 0.57"``.

        Returns:
            ``[H, W, 3]`` uint8 RGB.

        Raises:
            ValueError: no frame was offered.
        """
        if not self._shots:
            raise ValueError("no frames to show: add_frame was never called")
        last = len(self._shots) - 1
        count = len(self)
        chosen = np.linspace(0, last, count).round().astype(int) if count > 1 else [last // 2]
        shots = [self._shots[n] for n in chosen]
        panels, captions = zip(*(self._panel(shot) for shot in shots), strict=True)
        explanation = "broken line: false (left) or missed (right)"
        return contact_sheet(
            panels,
            self.columns,
            captions,
            header=f"{header}   |   {explanation}" if header else explanation,
        )

    def _panel(self, shot: _Shot) -> tuple[Frame, str]:
        frame = resize_width(shot.image, self.panel_width)
        hit, found = match_boxes(shot.boxes, shot.true_boxes)
        left = draw_boxes(frame, shot.boxes, shot.ids, shot.scores, dashed=~hit)
        right = draw_boxes(frame, shot.true_boxes, shot.true_ids, dashed=~found)
        tally = f"{found.sum()} of {len(found)} found, {(~hit).sum()} false"
        return beside(left, right), f"{shot.caption}   |   {tally}"


def match_boxes(
    boxes: NDArray, true_boxes: NDArray, min_iou: float = 0.5
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which predicted and which true boxes have a partner (one to one, most overlap in total).

    Args:
        boxes: ``[N, 4]`` cxcywh.
        true_boxes: ``[M, 4]`` cxcywh.
        min_iou: least intersection over union of partners.

    Returns:
        ``[N]`` and ``[M]`` bool.
    """
    hit, found = np.zeros(len(boxes), bool), np.zeros(len(true_boxes), bool)
    low = np.maximum(
        (boxes[:, None, :2] - boxes[:, None, 2:] / 2),
        (true_boxes[None, :, :2] - true_boxes[None, :, 2:] / 2),
    )
    high = np.minimum(
        (boxes[:, None, :2] + boxes[:, None, 2:] / 2),
        (true_boxes[None, :, :2] + true_boxes[None, :, 2:] / 2),
    )
    common = (high - low).clip(0).prod(-1)
    union = boxes[:, 2:].prod(-1)[:, None] + true_boxes[:, 2:].prod(-1)[None] - common
    iou = common / np.maximum(union, np.finfo(np.float64).tiny)
    # pairs below the limit are worth nothing, so they never push out a pair that counts
    worth = np.where(np.nan_to_num(iou) >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(-worth)
    good = worth[rows, columns] > 0
    hit[rows[good]] = True
    found[columns[good]] = True
    return hit, found
