"""ByteTrack on our detections: the baseline that every learned association is measured against.

The tracking itself is the library ``trackers`` (``pip install -e '.[baselines]'``), a reference
implementation of ByteTrack (Zhang et al., ECCV 2022) that is not ours: a baseline that one writes
oneself is a baseline that one may have written badly. Here are only the gate before it, the units
and the clock.

Two things to know of the library. It never fuses the detection score into the cost of a match, as
the paper's code does unless told otherwise: its cost is 1 - IoU, and
``minimum_iou_threshold: 0.1`` (the paper's "match threshold 0.9") holds in every stage, where the
paper's code is stricter in the second. And it drops nothing for a low score, so the paper's lowest
score of 0.1 is ``keep`` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from scene_track.models.boxes import cxcywh_to_xyxy
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo

if TYPE_CHECKING:
    from trackers import ByteTrackTracker


class ByteTrack(Tracker):
    """Association by predicted position alone: two stages of IoU, sure detections first.

    The boxes that come out are those that went in, not the Kalman filter's: so every tracker is
    judged on the same boxes.
    """

    READS = "boxes"

    def __init__(
        self,
        *,
        keep: Annotated[float, Field(ge=0, le=1)],
        duplicate_iou: Annotated[float, Field(gt=0, le=1)],
        track_activation_threshold: Annotated[float, Field(ge=0, le=1)],
        high_conf_det_threshold: Annotated[float, Field(ge=0, le=1)],
        minimum_iou_threshold: Annotated[float, Field(ge=0, le=1)],
        minimum_consecutive_frames: Annotated[int, Field(ge=1)],
        lost_track_buffer: Annotated[int, Field(ge=0)],
    ) -> None:
        """Store the thresholds; all but the first two are the library's, at its own defaults.

        Args:
            keep: detections below this existence are not given to it.
            duplicate_iou: of two detections that overlap by more, the less sure one is dropped.
            track_activation_threshold: existence from which an unmatched detection starts a track.
            high_conf_det_threshold: existence from which a detection takes part in the first stage.
            minimum_iou_threshold: smallest overlap with its prediction that continues a track.
            minimum_consecutive_frames: frames in a row until a track is shown.
            lost_track_buffer: how long a track is remembered unseen, in thirtieths of a second.

        Raises:
            ValueError: the library is not installed, or cannot be loaded on this machine.
        """
        self.keep, self.duplicate_iou = keep, duplicate_iou
        self._settings: dict[str, Any] = {
            "track_activation_threshold": track_activation_threshold,
            "high_conf_det_threshold": high_conf_det_threshold,
            "minimum_iou_threshold": minimum_iou_threshold,
            "minimum_consecutive_frames": minimum_consecutive_frames,
            "lost_track_buffer": lost_track_buffer,
        }
        self._library = _library()  # told now rather than after an epoch of training
        self._tracker: ByteTrackTracker | None = None

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``; needs no pointer head."""
        self._tracker = self._library(frame_rate=video.frame_rate, **self._settings)
        self._video = video

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        import supervision

        assert self._tracker is not None, "start() comes first"
        seen = detections.distinct(self.keep, self.duplicate_iou)
        boxes = seen.boxes.double().cpu()
        scores = seen.scores.double().cpu().numpy()
        labels = seen.labels.cpu().numpy()
        width, height = self._video.width, self._video.height
        pixels = cxcywh_to_xyxy(boxes).numpy() * np.array((width, height, width, height))
        tracked = self._tracker.update(
            supervision.Detections(
                xyxy=pixels,
                confidence=scores,
                class_id=labels,
                data={"row": np.arange(len(scores))},  # it gives them back in another order
            ),
            # The number, not a count: after frames that could not be read more time has passed.
            timestamp=detections.frame / self._video.frame_rate,
        )
        ids = np.asarray(tracked.tracker_id, dtype=np.int64).reshape(-1)
        rows = np.asarray(tracked.data.get("row", ()), dtype=np.int64).reshape(-1)
        shown = ids >= 0  # -1: not tracked, or not yet for long enough
        ids, rows = ids[shown] + 1, rows[shown]  # the library counts from 0
        return [
            TrackedFrame(
                frame=detections.frame,
                ids=ids,
                boxes=boxes.numpy()[rows],
                scores=scores[rows],
                labels=labels[rows],
            )
        ]


def _library() -> type[ByteTrackTracker]:
    """The class, imported only where it is used.

    Raises:
        ValueError: it is not there; says what to type.
    """
    try:
        from trackers import ByteTrackTracker
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tracker=bytetrack needs the package 'trackers' (found no module {error.name!r}):"
            " type pip install -c constraints.txt -e '.[baselines]'"
        ) from error
    except ImportError as error:
        # opencv-python loads libraries of a desktop, which servers and containers often lack.
        raise ValueError(
            f"tracker=bytetrack: the package 'trackers' cannot be loaded here ({error}): type pip"
            " install --no-deps --force-reinstall -c constraints.txt opencv-python-headless"
        ) from error
    return ByteTrackTracker
