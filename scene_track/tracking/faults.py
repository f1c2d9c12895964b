"""Where tracks go wrong: identity switches and losses of a video, the costly ones first.

True boxes and tracks are matched by the rules of CLEAR, so that the switches found here are those
that ``IDSW`` counts. A *switch* gives somebody another identity than the last time that he was
found; it costs the frames of the shorter of the two parts. A *loss* is a time during which somebody
who was found before is not, and who keeps his identity afterwards or never returns; it costs its
frames. What the oracle did with the same detections tells whose fault it was: where it found nobody
either there was no detection to associate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scene_track.data.mot_files import BoxTable
from scene_track.metrics.clear import match_boxes
from scene_track.metrics.similarity import overlapping_pairs, pairwise_iou
from scene_track.tracking.truth import Truth

_LATER = 10  # frames after a switch at which the strip looks once more
_NOBODY = -1


@dataclass(frozen=True)
class Partners:
    """Who was taken for whom in a video.

    Attributes:
        truth: true boxes that are counted.
        tracks: predicted boxes that are counted.
        ids: ``[rows of truth]`` identity of the track on each true box, -1 = none.
    """

    truth: BoxTable
    tracks: BoxTable
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Truth, found: BoxTable) -> Partners:
        """Match the tracks of a video with its ground truth."""
        sequence = truth.beside(found)
        table = sequence.ground_truth
        table = table.select(table.confidence != 0)  # as the metrics do
        matches = match_boxes(overlapping_pairs(sequence))
        ids = np.full(len(table), _NOBODY, dtype=np.int64)
        ids[matches.gt] = sequence.predictions.ids[matches.pred]
        return cls(table, sequence.predictions, ids)


@dataclass(frozen=True)
class Fault:
    """One switch or loss.

    Attributes:
        video: its name.
        kind: what went wrong.
        person: identity in the ground truth.
        rows: of the true table: last found before; where it went wrong (the new identity, or the
            middle of a loss); after it.
        frames: numbers of these three frames.
        cost: frames that it spoils.
        gap: frames between the two findings, or those of a loss.
        track_ids: our identity before, and after; -1 = not found.
    """

    video: str
    kind: Literal["switch", "loss"]
    person: int
    rows: tuple[int, int, int]
    frames: tuple[int, int, int]
    cost: int
    gap: int
    track_ids: tuple[int, int]


@dataclass(frozen=True)
class Response:
    """What another tracker did from before a fault to after it.

    Attributes:
        did: ``kept`` the identity, ``switched`` it, or ``lost`` the person at one of the ends.
        found: frames between the ends in which it found the person.
        of: frames between the ends.
    """

    did: Literal["kept", "switched", "lost"]
    found: int
    of: int


def find_faults(video: str, partners: Partners) -> list[Fault]:
    """All switches and losses of a video, the costly ones first."""
    found = [
        fault
        for person in np.unique(partners.truth.ids).tolist()
        for fault in _faults_of(video, partners, person)
    ]
    return sorted(found, key=lambda fault: (-fault.cost, fault.frames))


def _faults_of(video: str, partners: Partners, person: int) -> Iterator[Fault]:
    rows = np.flatnonzero(partners.truth.ids == person)
    ids, frames = partners.ids[rows], partners.truth.frames[rows]
    found = np.flatnonzero(ids != _NOBODY)
    last = len(rows) - 1

    def fault(kind: Literal["switch", "loss"], at: tuple[int, int, int], cost: int) -> Fault:
        before, middle, after = at
        until = middle if kind == "switch" else after
        return Fault(
            video=video,
            kind=kind,
            person=person,
            rows=(int(rows[before]), int(rows[middle]), int(rows[after])),
            frames=(int(frames[before]), int(frames[middle]), int(frames[after])),
            cost=int(cost),
            gap=int(frames[until] - frames[before] - 1) if kind == "switch" else int(cost),
            track_ids=(int(ids[before]), int(ids[until])),
        )

    for a, b in zip(found[:-1].tolist(), found[1:].tolist(), strict=True):
        if ids[a] != ids[b]:
            cost = min((ids[: a + 1] == ids[a]).sum(), (ids[b:] == ids[b]).sum())
            yield fault("switch", (a, b, min(b + _LATER, last)), cost)
        elif b - a > 1:
            yield fault("loss", (a, (a + b) // 2, b), b - a - 1)
    if len(found) and found[-1] < last:
        a = int(found[-1])
        yield fault("loss", (a, (a + 1 + last) // 2, last), last - a)


def response(fault: Fault, other: Partners) -> Response:
    """What another tracker did with the same person in the same time."""
    before, middle, after = fault.rows
    end = middle if fault.kind == "switch" else after
    rows = np.flatnonzero(other.truth.ids == fault.person)
    between = rows[(rows > before) & (rows < end)]
    first, second = int(other.ids[before]), int(other.ids[end])
    did = "lost" if _NOBODY in (first, second) else "kept" if first == second else "switched"
    return Response(did, int((other.ids[between] != _NOBODY).sum()), len(between))


def largest_overlap(fault: Fault, truth: BoxTable) -> float:
    """Largest IoU of the person with anybody else from before the fault to where it happened."""
    before, middle, _ = fault.rows
    rows = np.flatnonzero(truth.ids == fault.person)
    largest = 0.0
    for row in rows[(rows >= before) & (rows <= middle)].tolist():
        same_frame = (truth.frames == truth.frames[row]) & (truth.ids != fault.person)
        overlaps = pairwise_iou(truth.boxes[row : row + 1], truth.boxes[same_frame])
        largest = max(largest, float(overlaps.max(initial=0.0)))
    return largest


def lost_frames(faults: Sequence[Fault], oracle: Partners) -> tuple[int, int]:
    """Frames of the losses, and in how many of them there was a detection on the person."""
    total = detected = 0
    for fault in faults:
        if fault.kind == "loss":
            before, _, after = fault.rows
            rows = np.flatnonzero(oracle.truth.ids == fault.person)
            end = after + 1 if fault.track_ids[1] == _NOBODY else after
            inside = rows[(rows > before) & (rows < end)]
            total += len(inside)
            detected += int((oracle.ids[inside] != _NOBODY).sum())
    return total, detected
