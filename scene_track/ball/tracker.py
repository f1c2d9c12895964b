"""Which of a heatmap's peaks is the ball: frame by frame, or by how it flies.

``BallTracker`` follows several tracks at once and shows the one with the most evidence. A false
peak, hot but far from where the ball flies, starts a track of its own and needs several frames to
outweigh the first; so a flicker is passed over, and a ball that was lost is taken up again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scene_track.data.targets import BALL_ID
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.lookahead import HeldFrames
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


@dataclass(kw_only=True, eq=False)
class PeakTracker(Tracker):
    """The hottest peak of each frame, if its heat is at least ``threshold``."""

    READS = "points"

    threshold: Annotated[float, Field(ge=0, le=1)]

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``; nothing is remembered."""

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        boxes, scores = _arrays(detections)
        chosen = np.argsort(-scores, kind="stable")[:1]
        chosen = chosen[scores[chosen] >= self.threshold]
        return [_frame(detections.frame, boxes[chosen], scores[chosen])]


@dataclass
class _Track:
    """A ball that may be the ball."""

    key: int
    place: NDArray[np.float64]  # [2] canvas widths
    speed: NDArray[np.float64]  # [2] canvas widths per frame
    last: int  # frame in which it was seen
    evidence: float

    def predicted(self, frame: int) -> NDArray[np.float64]:
        """Where it should be in a frame, flying on as it did."""
        return self.place + self.speed * (frame - self.last)


@dataclass(kw_only=True, eq=False)
class BallTracker(Tracker):
    """Links peaks through gaps at constant velocity. Options: see ``conf/tracker/ball.yaml``.

    A track's evidence is the heat of its peaks, of which ``memory`` is left a frame later.

    Raises:
        ValueError: ``fill`` exceeds ``lookahead``, or ``candidate`` exceeds ``threshold``.
    """

    READS = "points"

    threshold: Annotated[float, Field(ge=0, le=1)]
    candidate: Annotated[float, Field(ge=0, le=1)]
    gate: Annotated[float, Field(gt=0, le=1)]
    max_misses: Annotated[int, Field(ge=0)]
    memory: Annotated[float, Field(ge=0, lt=1)]
    lookahead: Annotated[int, Field(ge=0)] = field()  # not the default of the base class
    fill: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        """Checks the options; nothing is tracked yet."""
        if self.fill > self.lookahead:
            raise ValueError(
                f"tracker.fill={self.fill} is more than tracker.lookahead={self.lookahead}: a gap"
                " can only be filled in frames that are held back; type"
                f" tracker.lookahead={self.fill}"
            )
        if self.candidate > self.threshold:
            raise ValueError(
                f"tracker.candidate={self.candidate} is above tracker.threshold={self.threshold}: a"
                " peak that starts a track must be hot enough to continue one"
            )
        self._clear(1.0)

    def _clear(self, aspect: float) -> None:
        self._unit = np.array((1.0, aspect))  # canvas 0-1 to canvas widths, both ways
        self._tracks: list[_Track] = []
        self._next = 1
        self._held = HeldFrames(self.lookahead, self.fill)

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``; needs no pointer head."""
        self._clear(video.height / video.width)

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        boxes, scores = _arrays(detections)
        frame = detections.frame
        # Where numbers of frames jump: a gate that grows by frames would span the picture.
        self._tracks = [t for t in self._tracks if frame - t.last <= self.max_misses + 1]
        used = self._link(boxes[:, :2] * self._unit, scores, frame)
        self._tracks = [t for t in self._tracks if frame - t.last <= self.max_misses]
        best = max(self._tracks, key=lambda track: track.evidence, default=None)
        shown = np.array(
            [used[best.key]] if best is not None and best.key in used else [], dtype=int
        )
        keys = np.full(len(shown), 0 if best is None else best.key, dtype=np.int64)
        labels = np.zeros(len(shown), dtype=np.int64)
        hidden = np.zeros(len(shown), dtype=bool)
        rows = (keys, boxes[shown], scores[shown], labels, hidden)
        self._held.push(frame, detections.seconds, *rows)
        return self._release()

    def finish(self) -> list[TrackedFrame]:
        """See ``Tracker.finish``."""
        return self._release(everything=True)

    def _link(
        self, places: NDArray[np.float64], scores: NDArray[np.float64], frame: int
    ) -> dict[int, int]:
        """Continue tracks, the one with most evidence first, and start new ones.

        Returns:
            The peak that each track took, by key.
        """
        used: dict[int, int] = {}
        free = set(np.flatnonzero(scores >= self.candidate).tolist())
        for track in sorted(self._tracks, key=lambda t: -t.evidence):
            elapsed = frame - track.last
            track.evidence *= self.memory
            away = np.linalg.norm(places - track.predicted(frame), axis=1)
            # Hot and near: heat counts in full at the predicted place, for nothing at the gate.
            worth = scores * (1 - away / (self.gate * elapsed))
            near = [peak for peak in free if worth[peak] > 0]
            if not near:
                continue
            peak = max(near, key=lambda index: worth[index])
            free.remove(peak)
            track.speed = (places[peak] - track.place) / elapsed
            track.place, track.last = places[peak], frame
            track.evidence += scores[peak]
            used[track.key] = peak
        for peak in sorted(free, key=lambda index: -scores[index]):
            if scores[peak] >= self.threshold:
                used[self._next] = peak
                track = _Track(self._next, places[peak], np.zeros(2), frame, float(scores[peak]))
                self._tracks.append(track)
                self._next += 1
        return used

    def _release(self, everything: bool = False) -> list[TrackedFrame]:
        """Frames that are final: of two rows (a gap filled beside another track) the hotter one."""
        done = []
        for frame in self._held.release(everything):
            best = np.argsort(-frame.scores, kind="stable")[:1]
            done.append(
                replace(
                    frame,
                    ids=np.full(len(best), BALL_ID, dtype=np.int64),
                    boxes=frame.boxes[best],
                    scores=frame.scores[best],
                    labels=frame.labels[best],
                )
            )
        return done


def _arrays(detections: Detections) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes and scores on the host: choosing one of five is no work for a device."""
    return detections.boxes.double().cpu().numpy(), detections.scores.double().cpu().numpy()


def _frame(frame: int, boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> TrackedFrame:
    return TrackedFrame(
        frame=frame,
        ids=np.full(len(boxes), BALL_ID, dtype=np.int64),
        boxes=boxes.reshape(-1, 4),
        scores=scores,
        labels=np.zeros(len(boxes), dtype=np.int64),
    )
