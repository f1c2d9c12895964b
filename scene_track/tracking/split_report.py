"""Protocol of a report: counts and shows the tracks of one kind of object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from scene_track.data.video import Video
from scene_track.tracking.inference import SequenceTracks


class SplitReport(Protocol):
    """Counts the tracks of a split, sequence by sequence, and shows them."""

    WRITES: ClassVar[tuple[str, ...]]
    """Patterns of all files that it writes into the folder of an evaluation."""
    RESULTS: ClassVar[str]
    """Pattern of the result files among them."""
    OBJECTIVE: ClassVar[str]
    """The metric that an evaluation returns."""
    counts: dict[str, Any]
    """Raw counts by the name of the video; they add up."""

    @property
    def benchmark(self) -> str | None:
        """Whose preprocessing is applied before counting; None where there is none to choose."""
        ...

    def __init__(self, videos: Sequence[Video], benchmark: str) -> None:
        """Count nothing yet.

        Args:
            videos: of the split; those without ground truth are not counted.
            benchmark: whose rules hold, ``auto`` or one of ``metrics.benchmark.BENCHMARKS``.

        Raises:
            ValueError: there is no such benchmark.
        """
        ...

    @staticmethod
    def write_tracks(folder: Path, tracks: SequenceTracks) -> None:
        """Write the result file of a sequence into a folder that exists."""
        ...

    def count(self, sequence: Video, tracks: SequenceTracks) -> None:
        """Compare the tracks of a labelled sequence with its ground truth."""
        ...

    def total(self) -> Any:
        """Counts of all videos, added in the order of their names."""
        ...

    def scores(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """Metrics of all sequences together and of each by name; None without ground truth."""
        ...

    def pictures(self, folder: Path, combined: dict[str, Any]) -> None:
        """Draw the plots that every evaluation writes."""
        ...

    def table(self, scores: dict[str, Any]) -> str:
        """The table for the terminal, of ``{"combined": …, "sequences": …}``."""
        ...

    @staticmethod
    def write_clip(path: Path, footage: Video, tracks: SequenceTracks, *, width: int) -> None:
        """Draw the tracks of a sequence on its frames.

        Args:
            path: ``.gif`` or ``.mp4`` to write.
            footage: the sequence.
            tracks: its tracks.
            width: pixels; wider footage is scaled down to it.
        """
        ...
