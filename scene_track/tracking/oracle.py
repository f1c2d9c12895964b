"""The ceiling of association: the model's detections with the identities of the ground truth.

Behind the same gate (``exist_conf``, ``duplicate_iou``), no association of whole detections finds
more: the rest of the way to 100 is the detector's. It looks at the answer, so it is for comparison
only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from scene_track.config.shipped import build_option
from scene_track.models.boxes import pairwise_iou
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


def oracle_behind(tracker: Tracker) -> OracleTracker:
    """The oracle that lets the same detections in as a tracker, if that says which it lets in."""
    from scene_track.tracking.baselines import Baseline
    from scene_track.tracking.streaming import IdentityTracker

    gates: dict[str, float] = {}
    if isinstance(tracker, IdentityTracker):
        gates = {"exist_conf": tracker.low_conf, "birth": tracker.birth}
    elif isinstance(tracker, Baseline):
        gates = {"exist_conf": tracker.keep}
    if isinstance(tracker, IdentityTracker | Baseline):
        gates["duplicate_iou"] = tracker.duplicate_iou
    return build_option("tracker", "oracle", **gates)


@dataclass(kw_only=True, eq=False)
class OracleTracker(Tracker):
    """Gives every detection the identity of the true box that it overlaps.

    One to one, of all such pairings the one with the largest sum of overlaps. A detection on nobody
    stays in as a one-frame track of its own if it is sure enough for a birth: whoever tracks
    detections does not know which of them are false, so a ceiling without them would be that of
    another detector. Below that it is left out, as a tracker leaves out what continues nothing.
    Options: see ``conf/tracker/oracle.yaml``.
    """

    READS = "boxes"
    needs_truth = True

    exist_conf: Annotated[float, Field(ge=0, le=1)]
    birth: Annotated[float, Field(ge=0, le=1)]
    duplicate_iou: Annotated[float, Field(gt=0, le=1)]
    iou: Annotated[float, Field(gt=0, le=1)]

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``; needs no pointer head."""
        self._names: dict[int, int] = {}
        self._next = 1

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``.

        Raises:
            ValueError: the frame has no ground truth.
        """
        if detections.true_boxes is None or detections.true_ids is None:
            raise ValueError(
                f"tracker=oracle copies the identities of the ground truth, and frame"
                f" {detections.frame} has none: choose a split with gt/gt.txt, or another tracker"
            )
        seen = detections.distinct(self.exist_conf, self.duplicate_iou)
        overlap = pairwise_iou(seen.boxes.double().cpu(), detections.true_boxes.double()).numpy()
        scores = seen.scores.double().cpu().numpy()
        true_ids = detections.true_ids.numpy()
        overlap = np.where(overlap >= self.iou, overlap, 0.0)
        ids = np.zeros(len(scores), dtype=np.int64)
        for row, column in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
            if overlap[row, column] > 0:
                # The ground truth may count from anywhere.
                person = int(true_ids[column])
                ids[row] = self._names[person] = self._names.get(person) or self._new()
        for row in np.flatnonzero((ids == 0) & (scores >= self.birth)):
            ids[row] = self._new()
        shown = ids > 0
        return [
            TrackedFrame(
                frame=detections.frame,
                ids=ids[shown],
                boxes=seen.boxes.double().cpu().numpy()[shown],
                scores=scores[shown],
                labels=seen.labels.cpu().numpy()[shown],
            )
        ]

    def _new(self) -> int:
        self._next += 1
        return self._next - 1
