"""Trackers that users know, on our detections: what every learned association is measured against.

The tracking itself is the library ``trackers`` (``pip install -e '.[baselines]'``), whose code is
not ours: a baseline that one writes oneself is a baseline that one may have written badly. Here are
only the gate before it, the units and the clock. The five differ in how they match:

- SORT (Bewley et al., ICIP 2016): IoU with a Kalman filter's prediction.
- ByteTrack (Zhang et al., ECCV 2022): sure detections first, then the others.
- OC-SORT (Cao et al., CVPR 2023): IoU and direction of motion; a track that returns is corrected
  by what was seen, not by what was predicted.
- BoT-SORT (Aharon et al., 2022): ByteTrack with scores in the cost and other filter states; its
  correction of camera motion needs images and is off, so that it also runs on files of boxes.
- C-BIoU (Yang et al., WACV 2023): boxes are enlarged before they are compared, in two stages.

Three things to know of the library. Its ByteTrack never fuses the detection score into the cost of
a match, and ``minimum_iou_threshold: 0.1`` (the paper's "match threshold 0.9") holds in every
stage, where the paper's code is stricter in the second. It drops nothing for a low score (BoT-SORT
and C-BIoU: nothing above 0.1), so the paper's lowest score of 0.1 is ``keep`` here. And it counts
how long a track is remembered in thirtieths of a second, whatever the frame rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from scene_track.models.boxes import cxcywh_to_xyxy
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo

if TYPE_CHECKING:
    from trackers.core.base import BaseTracker

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(kw_only=True, eq=False)
class Baseline(Tracker):
    """A tracker of the library, by position alone.

    The boxes that come out are those that went in, not the Kalman filter's: so every tracker is
    judged on the same boxes. All but the first two options are the library's, at its own defaults.

    Attributes:
        keep: detections below this existence are not given to it.
        duplicate_iou: of two detections that overlap by more, the less sure one is dropped.
        minimum_consecutive_frames: frames in a row until a track is shown.
        lost_track_buffer: how long a track is remembered unseen, in thirtieths of a second.

    Raises:
        ValueError: the library is not installed, or cannot be loaded on this machine.
    """

    READS = "boxes"

    LIBRARY: ClassVar[str]
    """Name of the class in the package ``trackers``."""

    FIXED: ClassVar[dict[str, Any]] = {}
    """Arguments of that class that are no options."""

    keep: Share
    duplicate_iou: Annotated[float, Field(gt=0, le=1)]
    minimum_consecutive_frames: Annotated[int, Field(ge=1)]
    lost_track_buffer: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        """Loads the library: told now rather than after an epoch of training."""
        self._library: Callable[..., BaseTracker] = getattr(_library(), self.LIBRARY)
        self._tracker: BaseTracker | None = None

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``; needs no pointer head."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        del own["keep"], own["duplicate_iou"]
        self._tracker = self._library(frame_rate=video.frame_rate, **own, **self.FIXED)
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
            # The time, not a count: after frames that could not be read more of it has passed.
            timestamp=detections.seconds,
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


@dataclass(kw_only=True, eq=False)
class Sort(Baseline):
    """SORT; options: see ``conf/tracker/sort.yaml``."""

    LIBRARY = "SORTTracker"

    track_activation_threshold: Share
    minimum_iou_threshold: Share


@dataclass(kw_only=True, eq=False)
class ByteTrack(Sort):
    """ByteTrack; options: see ``conf/tracker/bytetrack.yaml``."""

    LIBRARY = "ByteTrackTracker"

    high_conf_det_threshold: Share


@dataclass(kw_only=True, eq=False)
class OcSort(Baseline):
    """OC-SORT; options: see ``conf/tracker/ocsort.yaml``."""

    LIBRARY = "OCSORTTracker"

    high_conf_det_threshold: Share
    minimum_iou_threshold: Share
    direction_consistency_weight: Annotated[float, Field(ge=0)]
    delta_t: Annotated[int, Field(ge=1)]


@dataclass(kw_only=True, eq=False)
class BotSort(Baseline):
    """BoT-SORT, no correction of camera motion; options: see ``conf/tracker/botsort.yaml``."""

    LIBRARY = "BoTSORTTracker"
    FIXED: ClassVar[dict[str, Any]] = {"enable_cmc": False}

    track_activation_threshold: Share
    high_conf_det_threshold: Share
    minimum_iou_threshold_first_assoc: Share
    minimum_iou_threshold_second_assoc: Share
    minimum_iou_threshold_unconfirmed_assoc: Share


@dataclass(kw_only=True, eq=False)
class CBIoU(BotSort):
    """C-BIoU; options: see ``conf/tracker/cbiou.yaml``."""

    LIBRARY = "CBIoUTracker"
    FIXED: ClassVar[dict[str, Any]] = {}

    buffer_ratio_first: Annotated[float, Field(ge=0)]
    buffer_ratio_second: Annotated[float, Field(ge=0)]


def _library() -> Any:
    """The package, imported only where it is used.

    Raises:
        ValueError: it is not there; says what to type.
    """
    try:
        import trackers
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this tracker needs the package 'trackers' (found no module {error.name!r}):"
            " type pip install -c constraints.txt -e '.[baselines]'"
        ) from error
    except ImportError as error:
        # opencv-python loads libraries of a desktop, which servers and containers often lack.
        raise ValueError(
            f"the package 'trackers' cannot be loaded here ({error}): type pip"
            " install --no-deps --force-reinstall -c constraints.txt opencv-python-headless"
        ) from error
    return trackers
