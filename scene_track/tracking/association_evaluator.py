"""Evaluation of ``model=association``: tracks alone, for the detections are what they are."""

from __future__ import annotations

from scene_track.tracking.evaluator import TrackEvaluator
from scene_track.tracking.tracker import Tracker


class AssociationEvaluator(TrackEvaluator):
    """``TrackEvaluator`` of detections from files, without images to draw on."""

    def __init__(self, *, tracker: Tracker) -> None:
        """Store the tracker, which turns detections into tracks."""
        super().__init__(tracker=tracker, visualiser=None)
