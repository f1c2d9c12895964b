"""Evaluation of a ball while the model trains: distances in pixels of the original images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from scene_track.ball.detections import PeakFinder
from scene_track.ball.images import BallVisualiser
from scene_track.ball.metrics import THRESHOLDS, BallCounts, ball_metrics
from scene_track.ball.point_detection import CONVENTIONS
from scene_track.ball.report import BallReport
from scene_track.data.batch import SceneBatch
from scene_track.data.targets import PIXEL_CENTRE
from scene_track.models.clip_model import ClipModel
from scene_track.models.predictions import HeatmapPredictions
from scene_track.tracking.evaluation import Evaluator
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


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


@dataclass(frozen=True)
class _Shown:
    """A frame that waits for its ball to be drawn."""

    image: NDArray[np.uint8]
    heat: NDArray[np.float32]
    truth: NDArray[np.float64]


class BallEvaluator(Evaluator[_Shown]):
    """Streams heatmaps through a tracker and counts."""

    GIVES: ClassVar[str] = "points"

    LOGS: ClassVar[tuple[str, ...]] = (
        *(f"val/pck_{pixels}" for pixels in THRESHOLDS),
        "val/l2_mean",
        "val/l2_median",
        *(f"val/{kind}_{c.name}" for c in CONVENTIONS for kind in ("precision", "recall", "f1")),
        "val/visibility_accuracy",
        "val/loss",
    )

    report = BallReport

    def __init__(self, *, tracker: Tracker, visualiser: BallVisualiser, peaks: PeakFinder) -> None:
        """Stores the parts."""
        self.read = peaks
        super().__init__(tracker=tracker, visualiser=visualiser)

    @torch.no_grad()
    def update(self, model: ClipModel, predictions: HeatmapPredictions, batch: SceneBatch) -> None:
        """See ``Evaluator.update``.

        Raises:
            ValueError: a batch without points.
        """
        if batch.points is None:
            raise ValueError(
                f"{batch.sequence_ids[0]} has boxes, and a heatmap is compared with points: type"
                " dataset=tracknet or dataset=synthetic_tennis, or model=scene head=bbox"
            )
        super().update(model, predictions, batch)

    def show(
        self, predictions: HeatmapPredictions, batch: SceneBatch, t: int, detections: Detections
    ) -> _Shown | None:
        """See ``Evaluator.show``."""
        frames = batch.frames
        # Stored features may stand for the images; then there is none to show.
        if not (self.visualiser.max_frames and frames.numel() and self.visualiser.wanted()):
            return None
        assert batch.points is not None
        heat = predictions.heatmap_logits[0, t, 0].float().sigmoid().cpu().numpy()
        image = frames[0, t].permute(1, 2, 0).cpu().numpy()
        return _Shown(image, heat, batch.points[0, t])

    def draw(self, video: VideoInfo, tracks: TrackedFrame, shown: _Shown) -> None:
        """See ``Evaluator.draw``."""
        size = (video.height, video.width)
        self.visualiser.add_frame(
            *(shown.image, shown.heat, ball_pixels(tracks, size), shown.truth, size),
            f"{video.name} frame {tracks.frame}",
        )

    def figures(self, total: BallCounts) -> dict[str, float]:
        """See ``Evaluator.figures``; the numbers of frames behind them are for ``evaluate``."""
        figures = ball_metrics(total)
        return {name: figures[name] for name in figures if f"val/{name}" in self.LOGS}
