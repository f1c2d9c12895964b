"""The streaming tracker: detections of one frame after another to tracks, in constant memory.

Each live track keeps its last few identity tokens, boxes and times. A frame's detections point at
the tracks (``PointerIdentity``), one Hungarian assignment makes the answers consistent, and what
points nowhere is born if it is sure enough. Identities count up and are never used twice within a
sequence.

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

from scene_track.models.identity import PointerIdentity, TrackMemory
from scene_track.tracking.lookahead import HeldFrames
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


class IdentityTracker(Tracker):
    """Assigns identities with the model's pointer head."""

    READS = "boxes"

    def __init__(
        self,
        *,
        exist_conf: Annotated[float, Field(ge=0, le=1)],
        accept: Annotated[float, Field(ge=0, le=1)],
        birth: Annotated[float, Field(ge=0, le=1)],
        candidate: Annotated[float, Field(ge=0, le=1)],
        max_misses: Annotated[int, Field(ge=0)],
        duplicate_iou: Annotated[float, Field(gt=0, le=1)],
        lookahead: Annotated[int, Field(ge=0)],
        fill: Annotated[int, Field(ge=0)],
    ) -> None:
        """Store the thresholds.

        Args:
            exist_conf: detections below this existence are not looked at.
            accept: smallest probability with which a detection continues a track.
            birth: existence from which a detection that continues nothing starts a track.
            candidate: existence from which such a detection is at least remembered; 1 remembers
                none.
            max_misses: frames that a track is remembered without a detection.
            duplicate_iou: of two detections that overlap by more, the less sure one is dropped.
            lookahead: frames by which the answer lags, so that gaps are filled and a track that
                began in doubt is shown from its beginning; 0 = causal.
            fill: longest gap of a track in frames that is filled by interpolation, at most the
                lookahead.

        Raises:
            ValueError: ``fill`` exceeds ``lookahead``.
        """
        if fill > lookahead:
            raise ValueError(
                f"tracker.fill={fill} is more than tracker.lookahead={lookahead}: a gap can only be"
                f" filled in frames that are held back; type tracker.lookahead={fill}"
            )
        self.exist_conf, self.accept, self.birth = exist_conf, accept, birth
        self.candidate, self.fill = candidate, fill
        self.max_misses, self.duplicate_iou = max_misses, duplicate_iou
        self.lookahead = lookahead
        self._head: PointerIdentity | None = None
        self._clear()

    def _clear(self) -> None:
        self._next = 1
        self._next_candidate = -1
        self._held = HeldFrames(self.lookahead, self.fill)
        # Identities, > 0; candidates have a name < 0 instead.
        self._ids = np.zeros(0, dtype=np.int64)
        self._misses = np.zeros(0, dtype=np.int64)
        self._tokens: Tensor | None = None  # [J, K, width], newest last
        self._boxes = torch.zeros(0, 0, 4)
        self._seconds = torch.zeros(0, 0)
        self._present = torch.zeros(0, 0, dtype=torch.bool)

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

    @torch.no_grad()
    def update(self, detections: Detections) -> list[TrackedFrame]:
        """See ``Tracker.update``."""
        seen = detections.distinct(self.exist_conf, self.duplicate_iou)
        head, tokens = self._head, seen.tokens
        assert head is not None and tokens is not None, "start() comes first"
        boxes, scores, labels = seen.boxes, seen.scores, seen.labels
        assigned = self._assign(head, boxes, tokens, detections.seconds)
        sure = scores.double().cpu().numpy()  # the assignment below is host work by nature
        self._promote(assigned[(assigned >= 0) & (sure >= self.birth)])
        keys = np.zeros(len(sure), dtype=np.int64)
        keys[assigned >= 0] = self._ids[assigned[assigned >= 0]]
        born = (assigned < 0) & (sure >= self.birth)
        keys[born] = np.arange(self._next, self._next + born.sum())
        self._next += int(born.sum())
        doubtful = (assigned < 0) & ~born & (sure >= self.candidate)
        keys[doubtful] = np.arange(self._next_candidate, self._next_candidate - doubtful.sum(), -1)
        self._next_candidate -= int(doubtful.sum())
        self._remember(head.history, assigned, keys, boxes, tokens, detections.seconds)
        known = keys != 0
        keep = torch.as_tensor(known, device=boxes.device)
        self._held.push(
            detections.frame,
            keys[known],
            boxes[keep].double().cpu().numpy(),
            sure[known],
            labels[keep].cpu().numpy(),
            hidden=keys[known] < 0,
        )
        self._forget()
        return self._held.release()

    def finish(self) -> list[TrackedFrame]:
        """See ``Tracker.finish``."""
        return self._held.release(everything=True)

    def _assign(
        self, head: PointerIdentity, boxes: Tensor, tokens: Tensor, seconds: float
    ) -> NDArray[np.int64]:
        """Index of the track that each detection continues, or -1."""
        count = len(boxes)
        assigned = np.full(count, -1, dtype=np.int64)
        if not count or not len(self._ids):
            return assigned
        assert self._tokens is not None
        encoded = head.encode(self._tokens, self._boxes, self._seconds, self._present)
        memory = TrackMemory(
            state=encoded[:, -1],
            box=self._boxes[:, -1],
            seconds=self._seconds[:, -1],
            exists=torch.ones(len(self._ids), dtype=torch.bool, device=boxes.device),
        )
        now = torch.tensor([seconds], device=boxes.device)
        probability = head(tokens, boxes, now, memory).softmax(-1)[:, :-1].cpu().numpy()
        rows, columns = linear_sum_assignment(-probability)
        good = probability[rows, columns] > self.accept
        assigned[rows[good]] = columns[good]
        return assigned

    def _promote(self, tracks: NDArray[np.int64]) -> None:
        """Give the candidates among these tracks an identity."""
        for track in tracks[self._ids[tracks] < 0].tolist():
            self._held.reveal(int(self._ids[track]), self._next)
            self._ids[track] = self._next
            self._next += 1

    def _remember(
        self,
        history: int,
        assigned: NDArray[np.int64],
        keys: NDArray[np.int64],
        boxes: Tensor,
        tokens: Tensor,
        seconds: float,
    ) -> None:
        """Append the frame to the memory: tokens of known tracks, and new tracks."""
        device = boxes.device
        if self._tokens is None:
            self._tokens = tokens.new_zeros(0, history, tokens.shape[-1])
            self._boxes = boxes.new_zeros(0, history, 4)
            self._seconds = boxes.new_zeros(0, history)
            self._present = torch.zeros(0, history, dtype=torch.bool, device=device)
        self._misses += 1
        continued = np.flatnonzero(assigned >= 0)
        if len(continued):
            self._misses[assigned[continued]] = 0
            # Shift only the tracks that got a token: the newest one is always the last column.
            track = torch.as_tensor(assigned[continued], device=device)
            which = torch.as_tensor(continued, device=device)
            for store, value in (
                (self._tokens, tokens[which]),
                (self._boxes, boxes[which]),
                (self._seconds, torch.full((len(continued),), seconds, device=device)),
                (self._present, torch.ones(len(continued), dtype=torch.bool, device=device)),
            ):
                store[track] = torch.cat((store[track][:, 1:], value.unsqueeze(1)), dim=1)
        started = np.flatnonzero((assigned < 0) & (keys != 0))
        if len(started):
            which = torch.as_tensor(started, device=device)
            n = len(which)

            def fresh(store: Tensor, value: Tensor) -> Tensor:
                row = store.new_zeros(n, *store.shape[1:])
                row[:, -1] = value
                return torch.cat((store, row))

            self._tokens = fresh(self._tokens, tokens[which])
            self._boxes = fresh(self._boxes, boxes[which])
            self._seconds = fresh(self._seconds, torch.full((n,), seconds, device=device))
            self._present = fresh(self._present, torch.ones(n, dtype=torch.bool, device=device))
            self._ids = np.concatenate((self._ids, keys[started]))
            self._misses = np.concatenate((self._misses, np.zeros(n, dtype=np.int64)))

    def _forget(self) -> None:
        """Drop tracks that were missed for too long, and candidates that were missed at all."""
        alive = (self._misses <= self.max_misses) & ((self._ids > 0) | (self._misses == 0))
        if alive.all():
            return
        assert self._tokens is not None
        self._held.forget(self._ids[~alive])
        keep = torch.as_tensor(alive, device=self._tokens.device)
        self._tokens = self._tokens[keep]
        self._boxes, self._seconds = self._boxes[keep], self._seconds[keep]
        self._present = self._present[keep]
        self._ids, self._misses = self._ids[alive], self._misses[alive]
