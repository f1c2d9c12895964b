"""What an evaluation of people says and leaves behind: MOTChallenge files, HOTA, clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scene_track.data.frame_store import read_frame
from scene_track.data.mot_files import BoxTable, write_results
from scene_track.data.video import Video
from scene_track.metrics.table import plain_metrics
from scene_track.metrics.tracking import TrackingCounts
from scene_track.tracking.inference import SequenceTracks
from scene_track.tracking.split_report import SplitReport, clip_size, drawn_every
from scene_track.tracking.truth import Truth, choose_benchmark
from scene_track.viz.boxes import Frame
from scene_track.viz.clips import write_clip
from scene_track.viz.tracks import draw_tracks

_BLANK = 236  # gray of an image that is not there


class SceneReport(SplitReport):
    """Counts the tracks of sequences; see ``SplitReport``."""

    WRITES: ClassVar[tuple[str, ...]] = ("hota.png", "tracks/*.txt", "clips/*.gif", "clips/*.mp4")
    RESULTS: ClassVar[str] = "tracks/*.txt"
    OBJECTIVE: ClassVar[str] = "HOTA"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA", "IDSW", "FP", "FN", "frames_per_second",
    )  # fmt: skip

    zero = staticmethod(TrackingCounts.zero)
    plain = staticmethod(plain_metrics)

    def __init__(self, videos: Sequence[Video], benchmark: str) -> None:
        """See ``SplitReport.__init__``."""
        super().__init__(videos, benchmark)
        self.benchmark = choose_benchmark(videos, benchmark)

    @staticmethod
    def write_tracks(folder: Path, tracks: SequenceTracks) -> None:
        """See ``SplitReport.write_tracks``."""
        write_results(folder / f"{tracks.video.name}.txt", tracks.table)

    def count(self, sequence: Video, tracks: SequenceTracks) -> None:
        """See ``SplitReport.count``."""
        self.counts[sequence.name] = Truth.of(sequence, self.benchmark).count(tracks.table)

    def pictures(self, folder: Path, combined: dict[str, Any]) -> None:
        """See ``SplitReport.pictures``."""
        from scene_track.viz.hota import plot_hota

        plot_hota(combined, folder / "hota.png")

    @staticmethod
    def write_clip(path: Path, footage: Video, tracks: SequenceTracks, *, width: int) -> None:
        """See ``SplitReport.write_clip``."""
        SceneReport.write_panels(path, footage, {footage.name: tracks}, width=width)

    @staticmethod
    def write_panels(
        path: Path, footage: Video, tracks: Mapping[str, SequenceTracks], *, width: int
    ) -> None:
        """Draw several trackers' tracks of a sequence next to each other, ``.gif`` or ``.mp4``.

        ``tracks`` are named by what is written below a panel; wider footage is scaled down to
        ``width`` pixels.
        """
        info, size = footage.info, clip_size(footage, width)

        def frames(table: BoxTable) -> Iterator[tuple[int, Frame, NDArray[Any], NDArray[Any]]]:
            for position, frame in enumerate(footage.frames.tolist()):
                rows = table.at(frame)
                yield frame, read_image(footage, position, size), rows.boxes, rows.ids

        every = drawn_every(path, info.frame_rate)
        panels = [
            draw_tracks(
                frames(one.table),
                info.size,
                name=name,
                max_width=size[1],
                every=every,
            )
            for name, one in tracks.items()
        ]
        drawn = (np.concatenate(parts, axis=1) for parts in zip(*panels, strict=True))
        write_clip(path, drawn, info.frame_rate / every)


def read_image(footage: Video, position: int, size: tuple[int, int]) -> Frame:
    """A frame's image at (height, width), or a blank one where a video has boxes alone."""
    if position >= len(footage.files) or not footage.files[position].is_file():
        return np.full((*size, 3), _BLANK, dtype=np.uint8)
    return read_frame(footage, position, size).permute(1, 2, 0).numpy()
