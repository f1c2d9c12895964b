"""ByteTrack's parameters, chosen on training sequences: a baseline at its best, not at its worst.

A seeded random search over a small grid, judged by HOTA: all candidates on the first third of the
sequences, the better quarter of them on all (successive halving, once). The stock settings are
among them to the end, so on the sequences it looks at the choice is never worse than they are.
Elsewhere it may be: HOTA of a few short sequences is noisy, and what was best on eight of sixty
frames each has been seen to fall behind the stock settings on sixteen others. So give it all there
are; and the stock settings stay where the gain is not above its own standard error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scene_track.config.shipped import build_option, option_values
from scene_track.data.video import Video
from scene_track.metrics.tracking import (
    TrackingCounts,
    TrackingSequence,
    count_tracking,
    tracking_metrics,
)
from scene_track.tracking.inference import associate
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo

# Fewer sequences than this are not worth two rounds.
_TWO_ROUNDS = 6

# Values that are tried; a candidate is one of each. The overlaps are low because dancers move far
# between frames: the paper's "match threshold 0.9" is an overlap of 0.1.
GRID: dict[str, tuple[float, ...]] = {
    "keep": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "high_conf_det_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "track_activation_threshold": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "minimum_iou_threshold": (0.05, 0.1, 0.2, 0.3),
    "minimum_consecutive_frames": (1, 2, 3),
    "lost_track_buffer": (15, 30, 60),
}


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        parameters: that were chosen, as ``ByteTrack`` takes them.
        hota: with them on the sequences that were searched on, 0-1.
        stock_hota: of the stock settings on the same.
        best_hota: of the best candidate on the same, which is not chosen if its gain is in doubt.
        gain_error: standard error of that candidate's gain over the stock settings (jackknife
            over the sequences); 0 for a single sequence, which tells nothing of it.
        tried: number of candidates.
        sequences: names of the sequences that were searched on.
    """

    parameters: dict[str, Any]
    hota: float
    stock_hota: float
    best_hota: float
    gain_error: float
    tried: int
    sequences: tuple[str, ...]


def candidates(count: int, *, seed: int) -> list[dict[str, Any]]:
    """The stock settings, then ``count - 1`` different points of the grid.

    Args:
        count: how many, >= 1; at most the grid's size + 1 come back.
        seed: >= 0, another one, other points.

    Raises:
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} combinations: expected at least 1, the stock settings")
    stock = stock_parameters()
    grid = (dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values()))
    every = [point for point in grid if _in_order(point) and point != stock]
    random = np.random.default_rng(seed)
    chosen = random.choice(len(every), size=min(count - 1, len(every)), replace=False)
    return [stock, *(every[index] for index in chosen.tolist())]


def stock_parameters() -> dict[str, Any]:
    """What ``ByteTrack`` does where nothing is typed, of the parameters that are searched."""
    values = option_values("tracker", "bytetrack")
    return {name: values[name] for name in GRID}


def _in_order(point: Mapping[str, float]) -> bool:
    """Whether the thresholds rise.

    A track cannot start from a detection that does not reach the first stage, and what is not kept
    reaches neither: other points are these in disguise.
    """
    return point["keep"] <= point["high_conf_det_threshold"] <= point["track_activation_threshold"]


def light(detections: Detections, duplicate_iou: float) -> Detections:
    """What a search needs of a frame: no identity tokens, nothing below the lowest ``keep``."""
    seen = detections.distinct(min(GRID["keep"]), duplicate_iou)
    return replace(seen, tokens=None)


def tune_bytetrack(
    frames: Sequence[tuple[VideoInfo, Detections]],
    truth: Mapping[str, Video],
    *,
    combinations: int = 60,
    seed: int = 0,
    duplicate_iou: float = 0.8,
) -> Tuned:
    """Choose ByteTrack's parameters by HOTA.

    Args:
        frames: every frame of the *training* sequences with its video, one video after the other.
        truth: the same sequences by name, with ground truth.
        combinations: candidates, the stock settings among them, >= 1.
        seed: which candidates.
        duplicate_iou: of two detections that overlap by more, one is dropped; not searched, since
            all trackers are to see the same detections.

    Raises:
        ValueError: no frames, or ``combinations`` is not positive.
    """
    if not frames:
        raise ValueError("no frames to choose ByteTrack's parameters on: expected detections")
    videos: dict[str, list[tuple[VideoInfo, Detections]]] = {}
    for video, detections in frames:
        # Gated once here; doing it again in every candidate finds nothing left to do.
        videos.setdefault(video.name, []).append((video, light(detections, duplicate_iou)))
    names = list(videos)
    points = candidates(combinations, seed=seed)
    counts: list[dict[str, TrackingCounts]] = [{} for _ in points]

    def run(candidate: int, on: Sequence[str]) -> float:
        tracker = build_option(
            "tracker", "bytetrack", duplicate_iou=duplicate_iou, **points[candidate]
        )
        counts[candidate] |= {name: _count(videos[name], truth[name], tracker) for name in on}
        return _hota(counts[candidate].values())

    early = len(names) // 3 if len(names) >= _TWO_ROUNDS else len(names)
    scores = {candidate: run(candidate, names[:early]) for candidate in range(len(points))}
    if early < len(names):
        ranked = sorted(scores, key=lambda candidate: -scores[candidate])
        # Stock settings go on in any case, and come first: of equals they are the choice.
        finalists = dict.fromkeys((0, *ranked[: -(-len(ranked) // 4)]))
        scores = {candidate: run(candidate, names[early:]) for candidate in finalists}
    best = max(scores, key=lambda candidate: scores[candidate])
    error = _gain_error(counts[0], counts[best], names)
    chosen = best if scores[best] - scores[0] > error else 0
    return Tuned(
        parameters={"duplicate_iou": duplicate_iou, **points[chosen]},
        hota=scores[chosen],
        stock_hota=scores[0],
        best_hota=scores[best],
        gain_error=error,
        tried=len(points),
        sequences=tuple(names),
    )


def _count(
    frames: Sequence[tuple[VideoInfo, Detections]], truth: Video, tracker: Tracker
) -> TrackingCounts:
    """Raw counts of one sequence."""
    (tracks,) = associate(frames, tracker, None)
    return count_tracking(TrackingSequence(truth.table, tracks.table, truth.info.length))


def _hota(counts: Iterable[TrackingCounts]) -> float:
    return float(tracking_metrics(sum(counts, start=TrackingCounts.zero()))["HOTA"])


def _gain_error(
    stock: Mapping[str, TrackingCounts], other: Mapping[str, TrackingCounts], names: Sequence[str]
) -> float:
    """Standard error of the difference of two HOTAs: leave out each sequence in turn."""
    gains = np.array(
        [
            _hota(other[name] for name in names if name != left_out)
            - _hota(stock[name] for name in names if name != left_out)
            for left_out in names
        ]
    )
    if len(names) < 2:
        return 0.0
    return float(np.sqrt((len(names) - 1) * gains.var()))
