"""Frames held back for a while, so that what comes after may still complete them.

Two things are learned too late by a causal tracker: that a doubtful detection was the beginning of
somebody, and that somebody who vanished behind another was there all the time. With a few frames
held back both are written where they belong: the doubtful rows get the identity they turned out to
be, and a short gap is filled by linear interpolation between the boxes on its two sides (as
ByteTrack's offline results do, there over 20 frames and the whole video). A box is not filled in
where somebody else was seen: then the gap is more likely a wrong identity than a missed person.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scene_track.data.boxes import pairwise_iou
from scene_track.tracking.tracker import TrackedFrame


@dataclass
class _Row:
    box: NDArray[np.float64]
    score: float
    label: int


@dataclass
class _Held:
    number: int
    seconds: float
    rows: dict[int, _Row]  # by key


class HeldFrames:
    """The newest frames of a video, open to additions until they are let go."""

    def __init__(self, lookahead: int, fill: int = 0, free_iou: float = 0.5) -> None:
        """Hold nothing yet.

        Args:
            lookahead: frames that are held back, >= 0.
            fill: longest gap in frames that is filled, at most ``lookahead``.
            free_iou: a box that overlaps another of its frame by more is not filled in.
        """
        self.lookahead, self.fill, self.free_iou = lookahead, fill, free_iou
        self._frames: deque[_Held] = deque()
        # The last frame that was let go: a gap may begin behind it.
        self._released: _Held | None = None
        self._hidden: set[int] = set()  # keys whose rows are not shown unless they are revealed

    def __len__(self) -> int:
        """Frames held now; never more than the lookahead between two calls."""
        return len(self._frames)

    def push(
        self,
        frame: int,
        seconds: float,
        keys: NDArray[np.int64],
        boxes: NDArray[np.float64],
        scores: NDArray[np.float64],
        labels: NDArray[np.int64],
        hidden: NDArray[np.bool_],
    ) -> None:
        """Add the newest frame, and fill the gaps that it closes.

        Args:
            frame: its number.
            seconds: its time; gaps are filled at constant speed.
            keys: ``[N]`` who is in it: an identity, or a name for somebody who has none yet.
            boxes: ``[N, 4]`` cxcywh.
            scores: ``[N]``.
            labels: ``[N]``.
            hidden: ``[N]`` True = not to be shown unless ``reveal`` is called in time.
        """
        rows = {
            key: _Row(box, score, label)
            for key, box, score, label in zip(
                keys.tolist(), boxes, scores.tolist(), labels.tolist(), strict=True
            )
        }
        self._hidden |= set(keys[hidden].tolist())
        newest = _Held(frame, seconds, rows)
        for key in list(rows):
            self._fill_gap(key, newest)
        self._frames.append(newest)

    def _fill_gap(self, key: int, newest: _Held) -> None:
        """Interpolate between the last row of ``key``, if it is near enough, and the newest."""
        gap: list[_Held] = []
        known = self._frames if self._released is None else (self._released, *self._frames)
        for first in reversed(known):
            if key in first.rows:
                break
            gap.append(first)
            if len(gap) > self.fill:
                return
        else:
            return
        before, now = first.rows[key], newest.rows[key]
        for held in gap:
            share = (held.seconds - first.seconds) / (newest.seconds - first.seconds or 1.0)
            box = (1 - share) * before.box + share * now.box
            others = np.array([other.box for other in held.rows.values()]).reshape(-1, 4)
            if not (pairwise_iou(box[None], others) > self.free_iou).any():
                held.rows[key] = _Row(box, min(before.score, now.score), now.label)

    def reveal(self, key: int, identity: int) -> None:
        """Show the held rows of ``key`` as those of ``identity``."""
        self._hidden.discard(key)
        if key == identity:
            return
        for held in self._frames:
            if key in held.rows:
                held.rows[identity] = held.rows.pop(key)

    def forget(self, keys: NDArray[np.int64]) -> None:
        """Take out the rows of those who turned out to be nobody."""
        gone = set(keys.tolist()) & self._hidden
        if not gone:
            return
        self._hidden -= gone
        for held in self._frames:
            for key in gone & held.rows.keys():
                del held.rows[key]

    def release(self, everything: bool = False) -> list[TrackedFrame]:
        """Let go of the frames that are older than the lookahead, or of all."""
        keep = 0 if everything else self.lookahead
        done = []
        while len(self._frames) > keep:
            held = self._released = self._frames.popleft()
            shown = {key: row for key, row in held.rows.items() if key not in self._hidden}
            done.append(
                TrackedFrame(
                    frame=held.number,
                    ids=np.array(list(shown), dtype=np.int64),
                    boxes=np.array([row.box for row in shown.values()]).reshape(-1, 4),
                    scores=np.array([row.score for row in shown.values()], dtype=np.float64),
                    labels=np.array([row.label for row in shown.values()], dtype=np.int64),
                )
            )
        return done
