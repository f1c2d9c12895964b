"""The streaming tracker: detections of one frame after another to tracks, in constant memory.

Each live track keeps its last few identity tokens, boxes and times. A frame's detections point at
the tracks (``PointerIdentity``), one Hungarian assignment makes the answers consistent, and what
points nowhere is born if it is sure enough. Identities count up and are never used twice within a
sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scene_track.models.boxes import nms_keep
from scene_track.models.identity import PointerIdentity, TrackMemory


@dataclass
class TrackedFrame:
    """Tracks of one frame.

    Attributes:
        ids: ``[N]`` int64 identities.
        boxes: ``[N, 4]`` float64 cxcywh, 0-1 of the canvas.
        scores: ``[N]`` float64 existence.
        labels: ``[N]`` int64 classes.
    """

    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class IdentityTracker:
    """Assigns identities with the model's pointer head."""

    def __init__(
        self,
        *,
        exist_conf: Annotated[float, Field(ge=0, le=1)] = 0.3,
        accept: Annotated[float, Field(ge=0, le=1)] = 0.1,
        birth: Annotated[float, Field(ge=0, le=1)] = 0.85,
        max_misses: Annotated[int, Field(ge=0)] = 20,
        duplicate_iou: Annotated[float, Field(gt=0, le=1)] = 0.8,
    ) -> None:
        """Store the thresholds.

        Args:
            exist_conf: detections below this existence are not looked at.
            accept: smallest probability with which a detection continues a track.
            birth: existence from which a detection that continues nothing starts a track.
            max_misses: frames that a track is remembered without a detection.
            duplicate_iou: of two detections that overlap by more, the less sure one is dropped.
        """
        self.exist_conf, self.accept, self.birth = exist_conf, accept, birth
        self.max_misses, self.duplicate_iou = max_misses, duplicate_iou
        self._next = 1
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame starts a new sequence."""
        self._next = 1
        self._ids = np.zeros(0, dtype=np.int64)
        self._misses = np.zeros(0, dtype=np.int64)
        self._tokens: Tensor | None = None  # [J, K, width], newest last
        self._boxes = torch.zeros(0, 0, 4)
        self._seconds = torch.zeros(0, 0)
        self._present = torch.zeros(0, 0, dtype=torch.bool)

    @property
    def num_tracks(self) -> int:
        """Tracks in memory."""
        return len(self._ids)

    @torch.no_grad()
    def update(
        self,
        head: PointerIdentity,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        tokens: Tensor,
        seconds: float,
    ) -> TrackedFrame:
        """Track one frame.

        Args:
            head: the model's pointer head.
            boxes: ``[Q, 4]`` cxcywh.
            scores: ``[Q]`` existence.
            labels: ``[Q]`` classes.
            tokens: ``[Q, width]`` identity tokens (``head.tokens``).
            seconds: time of the frame.
        """
        order = scores.argsort(descending=True)
        order = order[scores[order] > self.exist_conf]
        order = order[nms_keep(boxes[order].unsqueeze(0), self.duplicate_iou)[0]]
        boxes, scores, labels, tokens = boxes[order], scores[order], labels[order], tokens[order]
        assigned = self._assign(head, boxes, tokens, seconds)
        sure = scores.double().cpu().numpy()  # the assignment below is host work by nature
        ids = np.where(assigned >= 0, self._ids[assigned] if len(self._ids) else -1, -1)
        born = (assigned < 0) & (sure >= self.birth)
        ids[born] = np.arange(self._next, self._next + born.sum())
        self._next += int(born.sum())
        self._remember(head.history, assigned, ids, born, boxes, tokens, seconds)
        shown = ids >= 0
        keep = torch.as_tensor(shown, device=boxes.device)
        return TrackedFrame(
            ids=ids[shown],
            boxes=boxes[keep].double().cpu().numpy(),
            scores=sure[shown],
            labels=labels[keep].cpu().numpy(),
        )

    def _assign(
        self, head: PointerIdentity, boxes: Tensor, tokens: Tensor, seconds: float
    ) -> np.ndarray:
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

    def _remember(
        self,
        history: int,
        assigned: np.ndarray,
        ids: np.ndarray,
        born: np.ndarray,
        boxes: Tensor,
        tokens: Tensor,
        seconds: float,
    ) -> None:
        """Append the frame to the memory and forget tracks that were missed for too long."""
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
        if born.any():
            which = torch.as_tensor(np.flatnonzero(born), device=device)
            n = len(which)

            def fresh(store: Tensor, value: Tensor) -> Tensor:
                row = store.new_zeros(n, *store.shape[1:])
                row[:, -1] = value
                return torch.cat((store, row))

            self._tokens = fresh(self._tokens, tokens[which])
            self._boxes = fresh(self._boxes, boxes[which])
            self._seconds = fresh(self._seconds, torch.full((n,), seconds, device=device))
            self._present = fresh(self._present, torch.ones(n, dtype=torch.bool, device=device))
            self._ids = np.concatenate((self._ids, ids[born]))
            self._misses = np.concatenate((self._misses, np.zeros(n, dtype=np.int64)))
        alive = self._misses <= self.max_misses
        if not alive.all():
            keep = torch.as_tensor(alive, device=device)
            self._tokens = self._tokens[keep]
            self._boxes, self._seconds = self._boxes[keep], self._seconds[keep]
            self._present = self._present[keep]
            self._ids, self._misses = self._ids[alive], self._misses[alive]
