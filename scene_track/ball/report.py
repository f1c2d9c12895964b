"""What an evaluation of a ball says and leaves behind: CSV files, PCK, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scene_track.ball.images import BallVisualiser, draw_flight
from scene_track.ball.metrics import (
    BALL_COLUMNS,
    BALL_FRACTIONS,
    BallCounts,
    count_ball,
    plain_ball_metrics,
)
from scene_track.ball.point_files import PointTable, write_points
from scene_track.data.frame_store import read_frame
from scene_track.data.targets import PIXEL_CENTRE
from scene_track.data.video import Video
from scene_track.tracking.inference import SequenceTracks
from scene_track.tracking.split_report import SplitReport, clip_size, drawn_every
from scene_track.viz.clips import write_clip, write_png

_SHEET_FRAMES = 12


class BallReport(SplitReport):
    """Counts the balls of clips; see ``SplitReport``."""

    WRITES: ClassVar[tuple[str, ...]] = (
        "tracks/*.csv", "overlays/*.png", "clips/*.gif", "clips/*.mp4",
    )  # fmt: skip
    RESULTS: ClassVar[str] = "tracks/*.csv"
    OBJECTIVE: ClassVar[str] = "pck_5"
    COLUMNS: ClassVar[tuple[str, ...]] = (*BALL_COLUMNS, "frames_per_second")
    FRACTIONS: ClassVar[tuple[str, ...]] = BALL_FRACTIONS

    zero = staticmethod(BallCounts.zero)
    plain = staticmethod(plain_ball_metrics)

    def __init__(self, videos: Sequence[Video], benchmark: str) -> None:
        """See ``SplitReport.__init__``.

        Raises:
            ValueError: ``benchmark`` is one of boxes.
        """
        if benchmark != "auto":
            raise ValueError(f"benchmark={benchmark} is of boxes, and this is a ball: leave it out")
        super().__init__(videos, benchmark)
        self.benchmark = None
        self._shown: list[tuple[Video, PointTable]] = []

    @staticmethod
    def write_tracks(folder: Path, tracks: SequenceTracks) -> None:
        """See ``SplitReport.write_tracks``: ``<clip>.csv``, one row per frame."""
        write_points(folder / f"{tracks.video.name}.csv", ball_table(tracks))

    def count(self, sequence: Video, tracks: SequenceTracks) -> None:
        """See ``SplitReport.count``."""
        found = ball_table(tracks)
        truth = _points_of(sequence)[np.searchsorted(sequence.frames, found.frames)]
        size = sequence.info.size
        self.counts[sequence.name] = count_ball(truth, found.points, size)
        self._shown.append((sequence, found))

    def pictures(self, folder: Path, combined: dict[str, Any]) -> None:
        """See ``SplitReport.pictures``: one sheet of frames spread over each clip."""
        for sequence, found in self._shown:
            write_png(folder / "overlays" / f"{sequence.name}.png", _sheet(sequence, found))

    @staticmethod
    def write_clip(path: Path, footage: Video, tracks: SequenceTracks, *, width: int) -> None:
        """See ``SplitReport.write_clip``."""
        info, found = footage.info, ball_table(tracks)
        size = clip_size(footage, width)
        points = dict(zip(found.frames.tolist(), found.points, strict=True))

        def frames() -> Iterator[tuple[int, NDArray[Any], NDArray[np.float64]]]:
            for position, frame in enumerate(footage.frames.tolist()):
                if frame in points:
                    picture = read_frame(footage, position, size).permute(1, 2, 0).numpy()
                    yield frame, picture, points[frame]

        every = drawn_every(path, info.frame_rate)
        drawn = draw_flight(frames(), info.size, name=footage.name, every=every)
        write_clip(path, drawn, info.frame_rate / every)


def ball_table(tracks: SequenceTracks) -> PointTable:
    """The one ball of every frame, in pixels of the footage."""
    count, rows = len(tracks.frames), tracks.table
    xy, confidence = np.full((count, 2), np.nan), np.zeros(count)
    at = np.searchsorted(tracks.frames, rows.frames)
    xy[at] = rows.boxes[:, :2] + rows.boxes[:, 2:] / 2 - PIXEL_CENTRE
    confidence[at] = rows.confidence
    visible = np.asarray(np.isfinite(xy).all(axis=1), dtype=np.int64)
    return PointTable(frames=tracks.frames, xy=xy, visibility=visible, confidence=confidence)


def _points_of(sequence: Video) -> NDArray[np.float64]:
    """``[F, 3]`` ground truth.

    Raises:
        ValueError: the sequence has boxes.
    """
    if sequence.points is None:
        raise ValueError(
            f"{sequence.name} has boxes, and a ball is compared with points: type dataset=tracknet"
        )
    return sequence.points


def _sheet(sequence: Video, found: PointTable) -> NDArray[np.uint8]:
    """Frames spread over a clip, at the size of the footage: a ball is only a few pixels."""
    size = sequence.info.size
    sheet = BallVisualiser(max_frames=_SHEET_FRAMES, columns=3, panel_width=448, around=32)
    count = min(_SHEET_FRAMES, len(found))
    for row in np.linspace(0, len(found) - 1, count).round().astype(int).tolist():
        position = int(np.searchsorted(sequence.frames, found.frames[row]))
        picture = read_frame(sequence, position, size).permute(1, 2, 0).numpy()
        truth = _points_of(sequence)[position]
        caption = f"{sequence.name} frame {found.frames[row]}"
        sheet.add_frame(picture, None, found.points[row], truth, size, caption)
    return sheet.picture()
