"""A tracker's thresholds, chosen on training sequences: ours and the baselines by one search.

A seeded random search over a small grid, judged by HOTA, in three rounds: all candidates on the
first sixth of the sequences, the better third of them on the first half, the better third of those
on all (successive halving). The stock settings are among them to the end, so on the sequences it
looks at the choice is never worse than they are. Elsewhere it may be: HOTA of a few short sequences
is noisy, and what was best on eight of sixty frames each has been seen to fall behind the stock
settings on sixteen others. So give it all there are; and the stock settings stay where the gain is
not above its own standard error: a jackknife over the sequences, over blocks of a single one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_track.config.shipped import build_option, option_values
from scene_track.data.video import Video
from scene_track.metrics.tracking import TrackingCounts, tracking_metrics
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.inference import associate
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
from scene_track.tracking.truth import Truth

# Values that are tried, by option of the group `tracker`; a candidate is one of each. The overlaps
# are low because dancers move far between frames: the paper's "match threshold 0.9" of ByteTrack is
# an overlap of 0.1.
_SCORES = {
    "keep": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "high_conf_det_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "track_activation_threshold": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
_TIMES = {"minimum_consecutive_frames": (1, 2, 3), "lost_track_buffer": (15, 30, 60)}
_STAGES = {
    "minimum_iou_threshold_first_assoc": (0.05, 0.1, 0.2, 0.3),
    "minimum_iou_threshold_second_assoc": (0.1, 0.3, 0.5),
    "minimum_iou_threshold_unconfirmed_assoc": (0.05, 0.1, 0.3),
}
GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "identity": {
        "exist_conf": (0.1, 0.2, 0.3, 0.4, 0.5),
        "accept": (0.05, 0.1, 0.2, 0.3),
        "birth": (0.5, 0.6, 0.7, 0.8, 0.85, 0.9),
        "max_gap": (0.35, 0.7, 1.4),
        "low_conf": (0.1, 1.0),
    },
    "sort": {
        "keep": _SCORES["keep"],
        "track_activation_threshold": (0.25, *_SCORES["track_activation_threshold"]),
        "minimum_iou_threshold": (0.05, 0.1, 0.2, 0.3),
        **_TIMES,
    },
    "bytetrack": {**_SCORES, "minimum_iou_threshold": (0.05, 0.1, 0.2, 0.3), **_TIMES},
    "ocsort": {
        "high_conf_det_threshold": _SCORES["high_conf_det_threshold"],
        "minimum_iou_threshold": (0.05, 0.1, 0.2, 0.3),
        "direction_consistency_weight": (0.0, 0.1, 0.2, 0.4),
        "delta_t": (1, 3, 5),
        **_TIMES,
    },
    "botsort": {**_SCORES, **_STAGES, **_TIMES},
    "cbiou": {
        **_SCORES,
        **_STAGES,
        "buffer_ratio_first": (0.1, 0.2, 0.3, 0.5),
        "buffer_ratio_second": (0.3, 0.5, 0.7),
        **_TIMES,
    },
}
BASELINES = ("sort", "bytetrack", "ocsort", "botsort", "cbiou")

# What must rise from one to the next, of those that a tracker has: a track cannot start from a
# detection that does not reach the first stage, and what is not kept reaches neither. Other points
# of the grid are these in disguise.
_RISING = (
    ("keep", "high_conf_det_threshold", "track_activation_threshold"),
    ("exist_conf", "birth"),
    ("buffer_ratio_first", "buffer_ratio_second"),
)

# Shares of the sequences that the rounds see, and of the candidates that go on after each.
_ROUNDS, _GO_ON = (1 / 6, 1 / 2, 1.0), 1 / 3
# Fewer sequences than this are not worth several rounds.
_SEVERAL_ROUNDS = 6
_LEAST_SCORE = min(_SCORES["keep"])
_BLOCKS = 10  # at most, of a single sequence

Frames = Sequence[tuple[VideoInfo, Detections]]


@dataclass(frozen=True)
class Tunable:
    """A tracker whose thresholds can be chosen.

    Attributes:
        option: in the group ``tracker``; names its grid.
        build: makes the tracker, with constructor arguments that replace the stock ones.
        stock: what it has where nothing is changed, of the parameters that are searched.
        head: the pointer head of the model that detected; None for trackers that need none.
    """

    option: str
    build: Callable[..., Tracker]
    stock: Mapping[str, float]
    head: PointerIdentity | None = None

    @classmethod
    def baseline(cls, option: str, *, duplicate_iou: float) -> Tunable:
        """One of ``BASELINES`` at the values of its YAML.

        ``duplicate_iou`` is not searched, since all trackers are to see the same detections.
        """
        values = option_values("tracker", option)

        def build(**changes: float) -> Tracker:
            return build_option("tracker", option, **{"duplicate_iou": duplicate_iou} | changes)

        return cls(option, build, {name: values[name] for name in GRIDS[option]})


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        option: of the tracker.
        parameters: that were chosen, of those that are searched.
        hota: with them on the sequences that were searched on, 0-1.
        stock_hota: of the stock settings on the same.
        best_hota: of the best candidate on the same, which is not chosen if its gain is in doubt.
        gain_error: standard error of that candidate's gain over the stock settings; None for a
            single sequence of less than two seconds, which tells nothing of it.
        tried: number of candidates.
        sequences: names of the sequences that were searched on.
    """

    option: str
    parameters: dict[str, Any]
    hota: float
    stock_hota: float
    best_hota: float
    gain_error: float | None
    tried: int
    sequences: tuple[str, ...]


def candidates(
    option: str, stock: Mapping[str, float], count: int, *, seed: int
) -> list[dict[str, float]]:
    """The stock settings, then ``count - 1`` different points of the tracker's grid.

    At most the grid's size + 1 come back; another seed (>= 0), other points.

    Raises:
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} combinations: expected at least 1, the stock settings")
    grid = GRIDS[option]
    points = (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))
    every = [point for point in points if _in_order(point) and point != stock]
    random = np.random.default_rng(seed)
    chosen = random.choice(len(every), size=min(count - 1, len(every)), replace=False)
    return [dict(stock), *(every[index] for index in chosen.tolist())]


def _in_order(point: Mapping[str, float]) -> bool:
    """Whether what must rise does; see ``_RISING``."""
    chains = ([point[name] for name in chain if name in point] for chain in _RISING)
    return all(values == sorted(values) for values in chains)


def beginning(video: Video, count: int) -> Video:
    """A video, or the first ``count`` frames of it, under the same name."""
    if len(video) <= count:
        return video
    first, last = int(video.frames[0]), int(video.frames[count - 1])
    return replace(video.between(first, last), name=video.name)


def light(detections: Detections, duplicate_iou: float) -> Detections:
    """What a search needs of a frame: nothing below the lowest score that any candidate keeps.

    Gating once here leaves the gates of the candidates next to nothing to do.
    """
    return detections.distinct(_LEAST_SCORE, duplicate_iou)


@dataclass
class _Race:
    """Counts of the candidates on the sequences that they have seen."""

    frames: Mapping[str, Frames]
    truth: Mapping[str, Truth]
    tunable: Tunable
    points: list[dict[str, float]]
    counts: dict[int, dict[str, TrackingCounts]] = field(default_factory=dict)

    def run(self, candidate: int, names: Sequence[str]) -> float:
        """HOTA of a candidate on these sequences; what it has seen is not tracked again."""
        seen = self.counts.setdefault(candidate, {})
        tracker = self.tunable.build(**self.points[candidate])
        for name in names:
            if name not in seen:
                (tracks,) = associate(self.frames[name], tracker, self.tunable.head)
                seen[name] = self.truth[name].count(tracks.table)
        return _hota(seen.values())

    def gain_error(self, best: int) -> float | None:
        """Standard error of a candidate's gain over the stock settings.

        A jackknife: each sequence is left out in turn. Of a single one each block of consecutive
        frames is (Künsch 1989), since the errors of frames that follow one another are alike.
        """
        gains = self._left_out(best) - self._left_out(0)
        return float(np.sqrt((len(gains) - 1) * gains.var())) if len(gains) > 1 else None

    def _left_out(self, candidate: int) -> NDArray[np.float64]:
        """HOTA of a candidate without each sequence in turn, without each block of a single one."""
        seen = self.counts[candidate]
        if len(seen) > 1:
            return np.array([_hota(c for n, c in seen.items() if n != name) for name in seen])
        (name,) = seen
        frames, truth = self.frames[name], self.truth[name]
        numbers = np.array([detections.frame for _, detections in frames])
        blocks = min(_BLOCKS, int(len(numbers) / frames[0][0].frame_rate))  # of a second or longer
        if blocks < 2:
            return np.zeros(1)
        tracker = self.tunable.build(**self.points[candidate])
        (tracks,) = associate(frames, tracker, self.tunable.head)

        def count(block: NDArray[np.int64]) -> TrackingCounts:
            real, found = (
                table.select(np.isin(table.frames, block, invert=True))
                for table in (truth.table, tracks.table)
            )
            return replace(truth, table=real).count(found)

        return np.array([_hota([count(block)]) for block in np.array_split(numbers, blocks)])


def tune(
    tunable: Tunable,
    frames: Iterable[tuple[VideoInfo, Detections]],
    truth: Mapping[str, Truth],
    *,
    combinations: int,
    seed: int,
) -> Tuned:
    """Choose a tracker's thresholds by HOTA.

    Args:
        tunable: the tracker.
        frames: every frame of the *training* sequences with its video, one video after the other,
            as ``light`` leaves them.
        truth: of the same sequences, by name.
        combinations: candidates, the stock settings among them, >= 1.
        seed: which candidates.

    Raises:
        ValueError: no frames, or ``combinations`` is not positive.
    """
    videos: dict[str, list[tuple[VideoInfo, Detections]]] = {}
    for video, detections in frames:
        videos.setdefault(video.name, []).append((video, detections))
    if not videos:
        raise ValueError(
            f"no frames to choose the thresholds of tracker={tunable.option} on: expected"
            " detections of training sequences"
        )
    names = list(videos)
    points = candidates(tunable.option, tunable.stock, combinations, seed=seed)
    race = _Race(videos, truth, tunable, points)
    rounds = _ROUNDS if len(names) >= _SEVERAL_ROUNDS else (1.0,)
    running = list(range(len(points)))
    scores: dict[int, float] = {}
    for number, share in enumerate(rounds):
        if number:
            ranked = sorted(running, key=lambda candidate: -scores[candidate])
            # Stock settings go on in any case, and come first: of equals they are the choice.
            running = list(dict.fromkeys((0, *ranked[: max(1, round(len(ranked) * _GO_ON))])))
        on = names[: max(1, round(len(names) * share))]
        scores = {candidate: race.run(candidate, on) for candidate in running}
    best = max(scores, key=lambda candidate: scores[candidate])
    error = race.gain_error(best)
    chosen = best if error is not None and scores[best] - scores[0] > error else 0
    return Tuned(
        option=tunable.option,
        parameters=points[chosen],
        hota=scores[chosen],
        stock_hota=scores[0],
        best_hota=scores[best],
        gain_error=error,
        tried=len(points),
        sequences=tuple(names),
    )


def _hota(counts: Iterable[TrackingCounts]) -> float:
    return float(tracking_metrics(sum(counts, start=TrackingCounts.zero()))["HOTA"])
