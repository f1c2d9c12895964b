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

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scene_track.data.camera import Camera
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
        """Store the thresholds.

        Args:
            exist_conf: existence from which a detection takes part in the first assignment.
            low_conf: existence from which one takes part in the second, with the tracks that the
                first has left over; from ``exist_conf`` on there is no second.
            accept: smallest probability with which a detection continues a track.
            birth: existence from which a detection that continues nothing starts a track.
            candidate: existence from which such a detection is at least remembered; 1 remembers
                none.
            max_gap: seconds after its last detection for which a track can be continued; in the
                next frame it always can.
            duplicate_iou: of two detections that overlap by more, the less sure one is dropped.
            lookahead: frames by which the answer lags, so that gaps are filled and a track that
                began in doubt is shown from its beginning; 0 = causal.
            fill: longest gap of a track in frames that is filled by interpolation, at most the
                lookahead.
            camera: pairs of boxes from one frame to the next whose median shift is taken for a
                movement of the camera and taken off before anybody is told apart; 0 = never.

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
        self._head: PointerIdentity | None = None
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
        self._rings: TrackRings | None = None
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
        self._head = head
        self._clear()

    @torch.inference_mode()
    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        now = detections.seconds
        # A little more: seconds of frames are rounded. Who was in the frame before is not lost,
        # however long ago that is: a pause of the video, or one frame per second.
        recent = np.abs(now - self._last) <= self.max_gap + 1e-4
        self._keep(recent | (self._last == self._before))
        self._before = now
        seen = detections.distinct(self.low_conf, self.duplicate_iou)
        tokens = seen.tokens
        assert self._head is not None and tokens is not None, "start() comes first"
        # The assignment is host work by nature.
        sure = seen.scores.double().cpu().numpy()
        boxes = self._steady(seen.boxes, sure)
        assigned = self._assign(self._head, boxes, tokens, sure, now)
        self._promote(assigned[(assigned >= 0) & (sure >= self.birth)])
        keys = self._name(assigned, sure)
        self._remember(self._head, assigned, keys, boxes, tokens, now)
        known = keys != 0
        self._held.push(
            detections.frame,
            now,
            keys[known],
            seen.boxes.double().cpu().numpy()[known],
            sure[known],
            seen.labels.cpu().numpy()[known],
            hidden=keys[known] < 0,
        )
        self._keep((self._ids > 0) | (self._last == now))
        return self._held.release()

    def finish(self) -> list[TrackedFrame]:
        """See ``Tracker.finish``."""
        return self._held.release(everything=True)

    def _steady(self, boxes: Tensor, sure: NDArray[np.float64]) -> Tensor:
        """The boxes where a camera that stands still would see them."""
        if self._camera is None:
            return boxes
        shift = self._camera.follow(boxes.double().cpu().numpy(), sure)
        return boxes - boxes.new_tensor((*shift.tolist(), 0.0, 0.0))

    def _assign(
        self,
        head: PointerIdentity,
        boxes: Tensor,
        tokens: Tensor,
        sure: NDArray[np.float64],
        now: float,
    ) -> NDArray[np.int64]:
        """Index of the track that each detection continues, or -1."""
        assigned = np.full(len(sure), -1, dtype=np.int64)
        if not len(sure) or not len(self._ids):
            return assigned
        assert self._rings is not None
        memory = self._rings.memory(torch.as_tensor(self._rows, device=boxes.device))
        logits = head(tokens, boxes, torch.tensor([now], device=boxes.device), memory)
        probability = logits.softmax(-1)[:, :-1].cpu().numpy()
        first = np.flatnonzero(sure > self.exist_conf)
        self._match(probability, first, np.arange(len(self._ids)), assigned)
        second = np.flatnonzero(sure <= self.exist_conf)
        if len(second):
            left = np.setdiff1d(np.arange(len(self._ids)), assigned)
            self._match(probability, second, left, assigned)
        return assigned

    def _match(
        self,
        probability: NDArray[np.float32],
        detections: NDArray[np.int64],
        tracks: NDArray[np.int64],
        assigned: NDArray[np.int64],
    ) -> None:
        """Assign some of the detections to some of the tracks, in ``assigned``."""
        some = probability[np.ix_(detections, tracks)]
        rows, columns = linear_sum_assignment(some, maximize=True)
        good = some[rows, columns] > self.accept
        assigned[detections[rows[good]]] = tracks[columns[good]]

    def _name(self, assigned: NDArray[np.int64], sure: NDArray[np.float64]) -> NDArray[np.int64]:
        """Who each detection is: an identity, a candidate's name, or 0 for nobody."""
        keys = np.zeros(len(sure), dtype=np.int64)
        keys[assigned >= 0] = self._ids[assigned[assigned >= 0]]
        free = (assigned < 0) & (sure > self.exist_conf)
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
        head: PointerIdentity,
        assigned: NDArray[np.int64],
        keys: NDArray[np.int64],
        boxes: Tensor,
        tokens: Tensor,
        now: float,
    ) -> None:
        """Append the frame to the memory: tokens of known tracks, and new tracks."""
        known = np.flatnonzero(keys != 0)
        if not len(known):
            return
        if self._rings is None:
            self._rings = TrackRings(head, tokens)
        started = np.flatnonzero((assigned < 0) & (keys != 0))
        rows = np.zeros(len(keys), dtype=np.int64)
        rows[assigned >= 0] = self._rows[assigned[assigned >= 0]]
        self._last[assigned[assigned >= 0]] = now
        if len(started):
            most = len(self._rows) + len(started)
            rows[started] = np.setdiff1d(np.arange(most), self._rows)[: len(started)]
            self._rings.reserve(int(rows.max()) + 1)
            self._rings.count[torch.as_tensor(rows[started], device=boxes.device)] = 0
            self._ids = np.concatenate((self._ids, keys[started]))
            self._rows = np.concatenate((self._rows, rows[started]))
            self._last = np.concatenate((self._last, np.full(len(started), now)))
        which = torch.as_tensor(known, device=boxes.device)
        where = torch.as_tensor(rows[known], device=boxes.device)
        head.extend(self._rings, where, tokens[which], boxes[which], now)

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
