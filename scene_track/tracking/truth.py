"""Ground truth of videos as their benchmark counts it; see :mod:`scene_track.metrics.benchmark`.

A ``Video`` holds the rows that a model learns from. The preprocessing of MOT17 and MOT20 also looks
at the others (distractors, flag 0), so they are read from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scene_track.data.mot_files import BoxTable, read_boxes
from scene_track.data.video import Video
from scene_track.metrics.benchmark import Benchmark, detect_benchmark, known, preprocess
from scene_track.metrics.tracking import TrackingCounts, TrackingSequence, count_tracking

_PEDESTRIAN = 1


@dataclass(frozen=True)
class Truth:
    """What the tracks of one video are counted against.

    Attributes:
        table: ground truth; all rows of the file where the benchmark looks at them.
        length: frames of the sequence that the video is of.
        benchmark: whose rules hold.
    """

    table: BoxTable
    length: int
    benchmark: Benchmark

    @classmethod
    def of(cls, video: Video, benchmark: Benchmark) -> Truth:
        """The truth of a labelled video, or of the part of a sequence that it is."""
        table = _every_row(video) if benchmark in ("mot17", "mot20") else video.table
        return cls(table, video.info.length, benchmark)

    def beside(self, found: BoxTable) -> TrackingSequence:
        """Tracks, boxes in pixels of the footage, and ground truth as they are counted."""
        return preprocess(TrackingSequence(self.table, found, self.length), self.benchmark)

    def count(self, found: BoxTable) -> TrackingCounts:
        """Raw counts of tracks, boxes in pixels of the footage."""
        return count_tracking(self.beside(found))


def choose_benchmark(videos: Sequence[Video], name: str) -> Benchmark:
    """Whose rules hold for these videos.

    Args:
        videos: of a split; those without ground truth tell nothing.
        name: ``auto``, or a benchmark. ``auto`` is what ``score`` chooses; a dataset of other
            classes than pedestrians (``dataset.source.classes``) is of no benchmark, and nothing is
            preprocessed.

    Raises:
        ValueError: there is no such benchmark.
    """
    if name != "auto":
        return known(name)
    labelled = [video for video in videos if video.labelled]
    if any(bool((video.table.classes != _PEDESTRIAN).any()) for video in labelled):
        return "dancetrack"
    return detect_benchmark((v.name for v in labelled), (_every_row(v) for v in labelled))


def read_truth(videos: Iterable[Video], benchmark: Benchmark) -> dict[str, Truth]:
    """The truth of labelled videos by their names."""
    return {video.name: Truth.of(video, benchmark) for video in videos}


def _every_row(video: Video) -> BoxTable:
    """All rows of the ground truth file in the frames of a video, in the order of the file.

    A video that was never in a file has its table alone.
    """
    file = video.folder / video.label_file
    if not file.is_file():
        return video.table
    # Wrong rows were refused, or counted and logged, when the video was read.
    table, _ = read_boxes(file, length=video.info.length, on_error="skip")
    return table.select(np.isin(table.frames, video.frames))
