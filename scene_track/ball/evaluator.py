"""Whole-clip evaluation of a ball while the model trains.

Windows of a clip arrive in order; each frame's peaks go through the tracker once. A finished clip
is turned into raw counts and errors in pixels of the original footage; they add up over clips and
over processes, in the order of the clips' names, and only at the end do they become figures.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from scene_track.ball.detections import PeakFinder
from scene_track.ball.images import BallVisualiser
from scene_track.ball.metrics import BallCounts, ball_metrics, count_ball
from scene_track.ball.report import BallReport
from scene_track.data.batch import SceneBatch
from scene_track.data.targets import PIXEL_CENTRE
from scene_track.models.clip_model import ClipModel
from scene_track.models.predictions import HeatmapPredictions
from scene_track.tracking.evaluation import gather_parts
from scene_track.tracking.inference import video_of
from scene_track.tracking.tracker import TrackedFrame, Tracker, VideoInfo


def ball_pixels(frame: TrackedFrame, size: tuple[int, int]) -> NDArray[np.float64]:
    """``[3]`` x, y, visibility (1 or 0) of a frame's ball, in pixels of the original.

    Args:
        frame: with at most one ball.
        size: (height, width) of the original.
    """
    if not len(frame.ids):
        return np.array((np.nan, np.nan, 0.0))
    x, y = frame.boxes[0, :2] * (size[1], size[0]) - PIXEL_CENTRE
    return np.array((x, y, 1.0))


class _OpenClip:
    """A clip whose frames are arriving."""

    def __init__(self, video: VideoInfo) -> None:
        self.video = video
        self.truth: list[NDArray[np.float64]] = []
        self.predicted: list[NDArray[np.float64]] = []
        # Of the frames that the tracker holds back: picture, heat, truth; oldest first.
        self.waiting: deque[tuple[NDArray | None, NDArray | None, NDArray[np.float64]]] = deque()


class BallEvaluator:
    """Streams heatmaps through a tracker and counts."""

    GIVES: ClassVar[str] = "points"

    LOGS: ClassVar[tuple[str, ...]] = (
        "val/pck_2",
        "val/pck_4",
        "val/pck_5",
        "val/pck_10",
        "val/l2_mean",
        "val/l2_median",
        "val/precision_wasb",
        "val/recall_wasb",
        "val/f1_wasb",
        "val/precision_tracknetv3",
        "val/recall_tracknetv3",
        "val/f1_tracknetv3",
        "val/visibility_accuracy",
        "val/loss",
    )

    report = BallReport

    def __init__(self, *, tracker: Tracker, visualiser: BallVisualiser, peaks: PeakFinder) -> None:
        """Store the parts.

        Args:
            tracker: turns peaks into a ball per frame, or none.
            visualiser: collects frames for the epoch's picture.
            peaks: reads peaks out of heatmaps.
        """
        self.tracker, self.visualiser, self.read = tracker, visualiser, peaks
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._open: _OpenClip | None = None
        self._counted: list[tuple[str, BallCounts]] = []
        self.visualiser.reset()

    @torch.no_grad()
    def update(self, model: ClipModel, predictions: HeatmapPredictions, batch: SceneBatch) -> None:
        """Take the next window (B = 1) of a clip.

        Args:
            model: the model that predicted.
            predictions: of the window.
            batch: the window, with ground truth.

        Raises:
            ValueError: more than one clip in the batch, or a batch without points.
        """
        video = video_of(batch)
        if batch.points is None:
            raise ValueError(
                f"{video.name} has boxes, and a heatmap is compared with points: type"
                " dataset=tracknet or dataset=synthetic_tennis, or model=scene head=bbox"
            )
        if self._open is None or self._open.video != video:
            self._close()
            self._open = _OpenClip(video)
            self.tracker.start(video, None)
        # Stored features may stand for the pictures; then there is none to show.
        pictures = self.visualiser.max_frames > 0 and batch.frames.numel() > 0
        for t, detections in self.read(model, predictions, batch):
            truth = batch.points[0, t]
            image = heat = None
            if pictures and self.visualiser.wanted():
                image = batch.frames[0, t].permute(1, 2, 0).cpu().numpy()
                heat = predictions.heatmap_logits[0, t, 0].float().sigmoid().cpu().numpy()
            self._open.truth.append(truth)
            self._open.waiting.append((image, heat, truth))
            self._take(self.tracker.update(detections))

    def _take(self, frames: list[TrackedFrame]) -> None:
        """Keep the frames that the tracker has let go, in order, and offer them as pictures."""
        assert self._open is not None
        video = self._open.video
        for frame in frames:
            image, heat, truth = self._open.waiting.popleft()
            ball = ball_pixels(frame, (video.height, video.width))
            self._open.predicted.append(ball)
            if image is not None and heat is not None:
                self.visualiser.add_frame(
                    image, heat, ball, truth, (video.height, video.width),
                    f"{video.name} frame {frame.frame}",
                )  # fmt: skip

    def _close(self) -> None:
        """Turn the open clip into counts."""
        if self._open is None:
            return
        self._take(self.tracker.finish())
        video = self._open.video
        counts = count_ball(
            np.array(self._open.truth),
            np.array(self._open.predicted),
            (video.height, video.width),
        )
        self._counted.append((video.name, counts))
        self._open = None

    def compute(self) -> dict[str, float]:
        """Figures over all clips of all processes, by short name (``pck_5``, ``l2_median``, ...).

        Every process must call it (see ``gather_parts``), and every one gets the same figures.
        """
        self._close()
        everywhere = [counted for part in gather_parts(self._counted) for counted in part]
        everywhere.sort(key=itemgetter(0))
        figures = ball_metrics(sum((counts for _, counts in everywhere), BallCounts.zero()))
        # The numbers of frames behind them are for `evaluate`: they are the same in every epoch.
        return {name: figures[name] for name in figures if f"val/{name}" in self.LOGS}

    def picture(self) -> NDArray[np.uint8] | None:
        """``[H, W, 3]`` uint8 contact sheet of the epoch, None without frames."""
        return self.visualiser.picture() if len(self.visualiser) else None
