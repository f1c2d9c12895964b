"""Evaluation of ``model=association``: tracks alone, for the detections are what they are."""

from __future__ import annotations

from typing import ClassVar

from scene_track.data.batch import SceneBatch
from scene_track.data.video import Video
from scene_track.metrics.tracking import TrackingCounts
from scene_track.models.predictions import ScenePredictions
from scene_track.tracking.evaluation import Evaluator
from scene_track.tracking.evaluator import SceneEvaluator, tracking_figures
from scene_track.tracking.inference import SequenceTracks
from scene_track.tracking.tracker import Tracker, VideoInfo
from scene_track.viz.scene import SceneVisualiser


class AssociationEvaluator(SceneEvaluator):
    """Streams detections through the tracker and counts tracks; draws nothing."""

    LOGS: ClassVar[tuple[str, ...]] = (
        "val/hota",
        "val/deta",
        "val/assa",
        "val/loca",
        "val/idf1",
        "val/mota",
        "val/loss",
    )

    def __init__(self, *, tracker: Tracker) -> None:
        """Store the tracker.

        Args:
            tracker: turns detections into tracks.
        """
        nothing = SceneVisualiser(max_frames=0, columns=1, panel_width=64)
        super().__init__(
            tracker=tracker, visualiser=nothing, num_classes=1, nms_iou=1.0, dense_candidates=1
        )

    def finished(self, video: Video, tracks: SequenceTracks) -> None:
        """See ``Evaluator.finished``."""
        Evaluator.finished(self, video, tracks)

    def figures(self, total: TrackingCounts) -> dict[str, float]:
        """See ``Evaluator.figures``."""
        return tracking_figures(total)

    def _collect(self, predictions: ScenePredictions, batch: SceneBatch, video: VideoInfo) -> None:
        """Nothing: the precision of a file's detections does not change by training."""
