"""Base class of reports: counts and shows the tracks of one kind of object."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scene_track.data.video import Video
from scene_track.metrics.table import FRACTIONS, format_table
from scene_track.tracking.inference import SequenceTracks
from scene_track.viz.clips import GIF_MAX_FPS


class SplitReport(ABC):
    """Counts the tracks of a split, sequence by sequence, and shows them.

    Attributes:
        benchmark: whose preprocessing is applied before counting; None where there is none.
        counts: raw counts by the name of the video; they add up.
    """

    WRITES: ClassVar[tuple[str, ...]]
    """Patterns of all files that it writes into the folder of an evaluation."""
    RESULTS: ClassVar[str]
    """Pattern of the result files among them."""
    OBJECTIVE: ClassVar[str]
    """The metric that an evaluation returns."""
    COLUMNS: ClassVar[tuple[str, ...]]
    """Metrics of the table for the terminal."""
    FRACTIONS: ClassVar[tuple[str, ...]] = FRACTIONS
    """Those of them that are shown in percent."""

    benchmark: Any

    @abstractmethod
    def __init__(self, videos: Sequence[Video], benchmark: str) -> None:
        """Count nothing yet; videos without ground truth are not counted.

        Raises:
            ValueError: ``benchmark`` is not ``auto`` nor of ``metrics.benchmark.BENCHMARKS``.
        """
        self.counts: dict[str, Any] = {}

    @staticmethod
    @abstractmethod
    def zero() -> Any:
        """Counts of nothing."""

    @staticmethod
    @abstractmethod
    def plain(counts: Any) -> dict[str, Any]:
        """Metrics of counts, ready for JSON."""

    @staticmethod
    @abstractmethod
    def write_tracks(folder: Path, tracks: SequenceTracks) -> None:
        """Write the result file of a sequence into a folder that exists."""

    @abstractmethod
    def count(self, sequence: Video, tracks: SequenceTracks) -> None:
        """Compare the tracks of a labelled sequence with its ground truth."""

    def total(self) -> Any:
        """Counts of all videos, added in the order of their names."""
        return sum((self.counts[name] for name in sorted(self.counts)), self.zero())

    def scores(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """Metrics of all sequences together and of each by name; None without ground truth."""
        if not self.counts:
            return None
        return self.plain(self.total()), {n: self.plain(c) for n, c in self.counts.items()}

    @abstractmethod
    def pictures(self, folder: Path, combined: dict[str, Any]) -> None:
        """Draw the plots that every evaluation writes."""

    def table(self, scores: dict[str, Any]) -> str:
        """The table for the terminal, of ``{"combined": …, "sequences": …}``."""
        return format_table(scores, self.COLUMNS, self.FRACTIONS)

    @staticmethod
    @abstractmethod
    def write_clip(path: Path, footage: Video, tracks: SequenceTracks, *, width: int) -> None:
        """Draw the tracks of a sequence on its frames, read once more, as ``.gif`` or ``.mp4``.

        Wider footage is scaled down to ``width`` pixels.
        """


def clip_size(footage: Video, width: int) -> tuple[int, int]:
    """(height, width) of a clip at most ``width`` pixels wide."""
    width = min(width, footage.info.width)
    return max(1, round(footage.info.height * width / footage.info.width)), width


def drawn_every(path: Path, frame_rate: float) -> int:
    """Of how many frames a clip shows one: a GIF of fast footage drops some, at its real speed."""
    return math.ceil(frame_rate / GIF_MAX_FPS) if path.suffix == ".gif" else 1
