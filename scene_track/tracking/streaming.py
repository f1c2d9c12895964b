"""The streaming tracker: detections of one frame after another to tracks, in constant memory.

Each live track has a row in the rings of its newest identity tokens (``TrackRings``). A frame's
detections point at the tracks (``PointerIdentity``), one Hungarian assignment makes the answers
consistent, and what points nowhere is born if it is sure enough. Detections that are less sure may
continue the tracks that are left over (ByteTrack's second stage; Zhang et al., ECCV 2022), but are
never born. Identities count up and are never used twice within a sequence.

A detection that is not sure enough for a birth may be remembered as a *candidate*: it takes part in
the assignment like a track, gets its identity with the first detection that is sure enough, and is
forgotten with the first frame that does not see it. With a lookahead, the frames before that are
given the identity afterwards, and gaps are filled (``HeldFrames``).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from scene_track.data.camera import Camera
from scene_track.models.arrays import Host, softmax
from scene_track.models.identity import PointerIdentity, TrackRings
from scene_track.tracking.lookahead import HeldFrames
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


class IdentityTracker(Tracker):
    """Assigns identities with the model's pointer head."""

    READS = "boxes"

    def __init__(
        self,
        *,
        exist_conf: Annotated[float, Field(ge=0, le=1)],
        low_conf: Annotated[float, Field(ge=0, le=1)],
        accept: Annotated[float, Field(ge=0, le=1)],
        birth: Annotated[float, Field(ge=0, le=1)],
        candidate: Annotated[float, Field(ge=0, le=1)],
        max_gap: Annotated[float, Field(ge=0)],
        duplicate_iou: Annotated[float, Field(gt=0, le=1)],
        lookahead: Annotated[int, Field(ge=0)],
        fill: Annotated[int, Field(ge=0)],
        camera: Annotated[int, Field(ge=0)],
    ) -> None:
        """Store the thresholds. Options: see ``conf/tracker/identity.yaml``.

        Raises:
            ValueError: ``fill`` exceeds ``lookahead``.
        """
        if fill > lookahead:
            raise ValueError(
                f"tracker.fill={fill} is more than tracker.lookahead={lookahead}: a gap can only be"
                f" filled in frames that are held back; type tracker.lookahead={fill}"
            )
        self.exist_conf, self.low_conf = exist_conf, min(low_conf, exist_conf)
        self.accept, self.birth = accept, birth
        self.candidate, self.fill = candidate, fill
        self.max_gap, self.duplicate_iou = max_gap, duplicate_iou
        self.lookahead, self.camera = lookahead, camera
        self._head: Any = None
        self._rings: Any = None
        self._clear()

    def _clear(self) -> None:
        self._next = 1
        self._next_candidate = -1
        self._held = HeldFrames(self.lookahead, self.fill)
        # Identities, > 0; candidates have a name < 0 instead.
        self._ids = np.zeros(0, dtype=np.int64)
        self._rows = np.zeros(0, dtype=np.int64)  # of the rings
        self._last = np.zeros(0)  # s, when they were seen
        self._before = -np.inf  # s, the last frame
        self._camera = Camera(self.camera) if self.camera else None

    @property
    def num_tracks(self) -> int:
        """Tracks in memory, candidates included."""
        return len(self._ids)

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        """See ``Tracker.start``."""
        if head is None:
            raise ValueError(
                "the model has no pointer head (model.identity=null, or a model of a ball): type"
                " tracker=bytetrack, of a ball tracker=ball, or use a model with one"
            )
        self._clear()
        # The answers are needed on the host, and for a few people it is faster than any device.
        self._head, self._rings = Host(head), TrackRings(head)

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        now = detections.seconds
        # A little more: seconds of frames are rounded. Who was in the frame before is not lost,
        # however long ago that is: a pause of the video, or one frame per second.
        recent = np.abs(now - self._last) <= self.max_gap + 1e-4
        self._keep(recent | (self._last == self._before))
        self._before = now
        assert self._head is not None and detections.tokens is not None, "start() comes first"
        rows = detections.distinct_rows(self.low_conf, self.duplicate_iou)
        tokens = detections.tokens.detach().float().cpu().numpy()[rows]
        boxes = detections.boxes.float().cpu().numpy()[rows]
        sure = detections.scores.double().cpu().numpy()[rows]
        steady = self._steady(boxes, sure)
        assigned = self._assign(steady, tokens, sure, now)
        self._promote(assigned[(assigned >= 0) & (sure >= self.birth)])
        keys = self._name(assigned, sure)
        self._remember(assigned, keys, steady, tokens, now)
        # What nobody waits for is not held.
        shown = keys != 0 if self.lookahead else keys > 0
        keys, boxes, sure = keys[shown], boxes[shown].astype(np.float64), sure[shown]
        labels = detections.labels.cpu().numpy()[rows[shown]]
        if self.lookahead:
            self._held.push(detections.frame, now, keys, boxes, sure, labels, hidden=keys < 0)
        self._keep((self._ids > 0) | (self._last == now))
        if self.lookahead:
            return self._held.release()
        return [TrackedFrame(detections.frame, keys, boxes, sure, labels)]

    def finish(self) -> list[TrackedFrame]:
        """See ``Tracker.finish``."""
        return self._held.release(everything=True)

    def _steady(self, boxes: NDArray[np.float32], sure: NDArray[np.float64]) -> NDArray[np.float32]:
        """The boxes where a camera that stands still would see them."""
        if self._camera is None:
            return boxes
        shift = self._camera.follow(boxes.astype(np.float64), sure)
        return boxes - np.array((*shift, 0, 0), dtype=np.float32)

    def _assign(
        self,
        boxes: NDArray[np.float32],
        tokens: NDArray[np.float32],
        sure: NDArray[np.float64],
        now: float,
    ) -> NDArray[np.int64]:
        """Index of the track that each detection continues, or -1."""
        assigned = np.full(len(sure), -1, dtype=np.int64)
        if not len(sure) or not len(self._ids):
            return assigned
        memory = self._rings.memory(self._rows)
        logits = self._head(tokens, boxes, now, memory)
        probability: Any = softmax(logits)[:, :-1]
        first = sure > self.exist_conf
        everybody = np.arange(len(self._ids))
        self._match(probability, first.nonzero()[0], everybody, assigned)
        if not first.all():
            self._match(probability, (~first).nonzero()[0], _without(everybody, assigned), assigned)
        return assigned

    def _match(
        self,
        probability: NDArray[np.float32],
        detections: NDArray[np.int64],
        tracks: NDArray[np.int64],
        assigned: NDArray[np.int64],
    ) -> None:
        """Assign some of the detections to some of the tracks, in ``assigned``."""
        some = probability[detections[:, None], tracks]
        rows, columns = linear_sum_assignment(some, maximize=True)
        good = some[rows, columns] > self.accept
        assigned[detections[rows[good]]] = tracks[columns[good]]

    def _name(self, assigned: NDArray[np.int64], sure: NDArray[np.float64]) -> NDArray[np.int64]:
        """Who each detection is: an identity, a candidate's name, or 0 for nobody."""
        keys = np.zeros(len(sure), dtype=np.int64)
        keys[assigned >= 0] = self._ids[assigned[assigned >= 0]]
        free = (assigned < 0) & (sure > self.exist_conf)
        if not free.any():
            return keys
        born = free & (sure >= self.birth)
        keys[born] = np.arange(self._next, self._next + born.sum())
        self._next += int(born.sum())
        doubtful = free & ~born & (sure >= self.candidate)
        keys[doubtful] = np.arange(self._next_candidate, self._next_candidate - doubtful.sum(), -1)
        self._next_candidate -= int(doubtful.sum())
        return keys

    def _promote(self, tracks: NDArray[np.int64]) -> None:
        """Give the candidates among these tracks an identity."""
        for track in tracks[self._ids[tracks] < 0].tolist():
            self._held.reveal(int(self._ids[track]), self._next)
            self._ids[track] = self._next
            self._next += 1

    def _remember(
        self,
        assigned: NDArray[np.int64],
        keys: NDArray[np.int64],
        boxes: NDArray[np.float32],
        tokens: NDArray[np.float32],
        now: float,
    ) -> None:
        """Append the frame to the memory: tokens of known tracks, and new tracks."""
        known = keys != 0
        if not known.any():
            return
        old, started = assigned >= 0, (known & (assigned < 0)).nonzero()[0]
        rows = np.zeros(len(keys), dtype=np.int64)
        rows[old] = self._rows[assigned[old]]
        self._last[assigned[old]] = now
        if len(started):
            free = _without(np.arange(len(self._rows) + len(started)), self._rows)
            rows[started] = free[: len(started)]
            self._rings.reserve(int(rows.max()) + 1)
            self._rings.count[rows[started]] = 0
            self._ids = np.concatenate((self._ids, keys[started]))
            self._rows = np.concatenate((self._rows, rows[started]))
            self._last = np.concatenate((self._last, np.full(len(started), now)))
        self._head.extend(self._rings, rows[known], tokens[known], boxes[known], now)

    def _keep(self, alive: NDArray[np.bool_]) -> None:
        """Forget the other tracks; their rows of the rings are free."""
        if alive.all():
            return
        self._held.forget(self._ids[~alive])
        self._ids, self._rows, self._last = (
            self._ids[alive],
            self._rows[alive],
            self._last[alive],
        )


def _without(numbers: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of 0, 1, ... that are not taken; numbers beyond and -1 take nothing."""
    free = np.ones(len(numbers), dtype=np.bool_)
    free[taken[(taken >= 0) & (taken < len(free))]] = False
    return numbers[free]
