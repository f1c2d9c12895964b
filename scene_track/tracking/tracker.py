"""What every tracker takes and gives: detections of one frame in, frames of tracks out.

A tracker may hold frames back (``lookahead``): what comes after a frame may still decide who is in
it. So ``update`` returns the frames that are final by now, and ``finish`` the rest of the video.
What is held back is bounded by the lookahead, never by the length of the video.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.noise import surest
from scene_track.models.identity import PointerIdentity


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its first frame.

    Attributes:
        name: of the sequence.
        frame_rate: frames per second.
        height: pixels of the footage.
        width: pixels of the footage.
    """

    name: str
    frame_rate: float
    height: int
    width: int


@dataclass
class Detections:
    """What a model sees in one frame, before anybody is told apart; tensors on the host.

    Attributes:
        frame: number of the frame, as in the files.
        seconds: its time since the start of the video.
        boxes: ``[Q, 4]`` float32 cxcywh, 0-1 of the canvas.
        scores: ``[Q]`` float32 existence, 0-1.
        labels: ``[Q]`` int64 class indices.
        tokens: ``[Q, width]`` identity tokens; None from a model without a pointer head.
        true_boxes: ``[N, 4]`` cxcywh of the ground truth; None where there is none. Only the oracle
            looks at it.
        true_ids: ``[N]`` int64 identities of the ground truth.
        compute_s: seconds that the model worked for this frame: its share of the window's time.
    """

    frame: int
    seconds: float
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    tokens: Tensor | None = None
    true_boxes: Tensor | None = None
    true_ids: Tensor | None = None
    compute_s: float = 0.0

    def distinct_rows(self, minimum: float, duplicate_iou: float) -> NDArray[np.int64]:
        """What is sure enough and no duplicate, surest first: the same gate for every tracker.

        A dropped detection never decides about one that is surer, so gating twice with rising
        minima is gating once with the last.

        Args:
            minimum: detections up to this existence are left out, 0-1.
            duplicate_iou: of two that overlap by more, the less sure one is dropped, 0-1.

        Returns:
            ``[N]`` rows of the detections.
        """
        # On the host, where trackers work: for a few boxes it is several times as fast.
        scores, boxes = self.scores.cpu().numpy(), self.boxes.double().cpu().numpy()
        rows = (scores > minimum).nonzero()[0]
        return rows[surest(boxes[rows], scores[rows], duplicate_iou)]

    def distinct(self, minimum: float, duplicate_iou: float) -> Detections:
        """The detections of ``distinct_rows``."""
        order = torch.from_numpy(self.distinct_rows(minimum, duplicate_iou)).to(self.boxes.device)
        return replace(
            self,
            boxes=self.boxes[order],
            scores=self.scores[order],
            labels=self.labels[order],
            tokens=None if self.tokens is None else self.tokens[order],
        )


@dataclass
class TrackedFrame:
    """Tracks of one frame.

    Attributes:
        frame: number of the frame, as in the files.
        ids: ``[N]`` int64 identities, each at most once.
        boxes: ``[N, 4]`` float64 cxcywh, 0-1 of the canvas.
        scores: ``[N]`` float64 existence.
        labels: ``[N]`` int64 classes.
    """

    frame: int
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


class Tracker(ABC):
    """Turns the detections of a video into tracks, frame by frame."""

    READS: ClassVar[str]
    """What it tracks, ``boxes`` or ``points`` (boxes without extent): compared with the ``GIVES``
    of the head's evaluator before a run. One that does not say is compared with nothing."""

    lookahead: int = 0
    """Frames by which the answer lags; 0 = causal, fit for live use."""

    needs_truth: bool = False
    """Whether it looks at ``Detections.true_ids``: only where there is ground truth."""

    @abstractmethod
    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """Forget everything; the next frame is the first of ``video``.

        Raises:
            ValueError: the tracker needs the pointer head of the model and there is none.
        """

    @abstractmethod
    def update(self, detections: Detections) -> list[TrackedFrame]:
        """Take the next frame.

        Returns:
            The frames that have become final, in order; none or several where there is a lookahead.
        """

    def finish(self) -> list[TrackedFrame]:
        """The frames that were held back, in order: the video has ended."""
        return []
