"""Several trackers over the same detections: counted side by side, and what is said of it.

Rows run trackers and keep counts; counts become figures, ratios and a Markdown table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from scene_track.data.video import Video
from scene_track.metrics.tracking import (
    TrackingCounts,
    TrackingSequence,
    count_tracking,
    tracking_metrics,
)
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.inference import associate
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
from scene_track.tracking.tuning import Tuned

CRITERION = 0.6  # of a baseline's HOTA and IDF1, after three epochs

CAUSAL, CONFIGURED = "own tracker, causal", "own tracker, as configured"
STOCK, TUNED, ORACLE = "ByteTrack, stock", "ByteTrack, tuned", "oracle association"
ON_EXACT, ON_NOISY = "ByteTrack, tuned, on exact truth", "ByteTrack, tuned, on noisy truth"

_FRACTIONS = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA")
_COUNTS = ("IDSW", "FP", "FN")

Frames = Sequence[tuple[VideoInfo, Detections]]


_VERDICT = {True: "met", False: "not met", None: "no baseline to be measured by"}


@dataclass
class Row:
    """One line of the table.

    Attributes:
        tracker: who associates.
        boxes: whose boxes.
        counts: raw counts over the split; become figures at the end.
        frames: tracked so far.
        seconds: that they took, the model's included where the boxes are the model's.
    """

    tracker: Tracker
    boxes: str
    counts: TrackingCounts = field(default_factory=TrackingCounts.zero)
    frames: int = 0
    seconds: float = 0.0

    def take(
        self, frames: Frames, truth: Mapping[str, Video], head: PointerIdentity | None
    ) -> None:
        """Track whole videos and count.

        Args:
            frames: every frame of these videos, in order.
            truth: the sequences by name, with ground truth.
            head: the pointer head of the model that detected; None for trackers that need none.

        Raises:
            ValueError: the tracker cannot do with what there is.
        """
        for tracks in associate(frames, self.tracker, head):
            self.frames, self.seconds = (
                self.frames + tracks.num_frames,
                self.seconds + tracks.compute_s,
            )
            sequence = truth[tracks.video.name]
            self.counts += count_tracking(
                TrackingSequence(sequence.table, tracks.table, sequence.info.length)
            )


def summarise(rows: Mapping[str, Row], tuning: Mapping[str, Tuned]) -> dict[str, Any]:
    """Figures, ratios and times as plain data, ready for JSON.

    Args:
        rows: by name, the names above.
        tuning: what was chosen for the rows that were tuned.
    """
    figures = {name: _figures(row.counts) for name, row in rows.items()}
    own = [name for name in (CAUSAL, CONFIGURED) if name in rows]
    ratios = {
        f"{name} / {against}": {
            key: figures[name][key] / figures[against][key] if figures[against][key] else None
            for key in ("HOTA", "IDF1")
        }
        for name in own
        # The stock one too: where tuning went wrong it is the better of the two.
        for against in (ON_NOISY, TUNED, STOCK)
    }
    return {
        "rows": {
            name: {
                "boxes": row.boxes,
                **figures[name],
                "frames_per_second": row.frames / max(row.seconds, 1e-9),
            }
            for name, row in rows.items()
        },
        "ratios": {
            # None where the baseline found nothing at all: then there is nothing to be measured by.
            name: {
                **ratio,
                "met": None
                if None in ratio.values()
                else all(r is not None and r >= CRITERION for r in ratio.values()),
            }
            for name, ratio in ratios.items()
        },
        "criterion": CRITERION,
        "tuning": {name: asdict(found) for name, found in tuning.items()},
        "frames": rows[CAUSAL].frames,
    }


def _figures(counts: TrackingCounts) -> dict[str, float | int]:
    """The metrics that are one number each."""
    metrics = tracking_metrics(counts)
    return {k: v.item() if hasattr(v, "item") else v for k, v in metrics.items() if np.ndim(v) == 0}


def report(result: Mapping[str, Any]) -> str:
    """The comparison as Markdown, fractions in percent.

    Args:
        result: of ``summarise``, with ``checkpoint``, ``epochs`` (None if unknown), ``split``,
            ``sequences`` and ``seed`` beside it.
    """
    table = _table(
        ("tracker", "boxes", *_FRACTIONS, *_COUNTS),
        [
            (
                name,
                row["boxes"],
                *(f"{100 * row[key]:.1f}" for key in _FRACTIONS),
                *(str(row[key]) for key in _COUNTS),
            )
            for name, row in result["rows"].items()
        ],
    )
    epochs = result["epochs"]
    lines = [
        f"# Comparison with ByteTrack: {result['split']} split",
        "",
        f"`{result['checkpoint']}`"
        + (f", after {epochs} epoch{'s' if epochs != 1 else ''}" if epochs is not None else "")
        + f"; {result['sequences']} sequences, {result['frames']} frames, seed {result['seed']}.",
        "",
        table,
        "",
        f"Ratios, HOTA / IDF1 (criterion: {result['criterion']:.0%} of both, after 3 epochs):",
        "",
    ]
    for name, ratio in result["ratios"].items():
        shown = " / ".join(
            "-" if ratio[key] is None else f"{ratio[key]:.0%}" for key in ("HOTA", "IDF1")
        )
        lines.append(f"- {name}: {shown}, {_VERDICT[ratio['met']]}")
    lines += [
        "",
        "ByteTrack's parameters, chosen by HOTA on training sequences (the stock ones stay where"
        " the gain is not above its standard error):",
        "",
    ]
    for name, tuned in result["tuning"].items():
        chosen = ", ".join(f"{key} {value:g}" for key, value in tuned["parameters"].items())
        lines.append(
            f"- {name}: {chosen} (HOTA there {100 * tuned['hota']:.1f}, stock"
            f" {100 * tuned['stock_hota']:.1f}, best of {tuned['tried']} combinations"
            f" {100 * tuned['best_hota']:.1f}, standard error of its gain"
            f" {100 * tuned['gain_error']:.1f}; {len(tuned['sequences'])} sequences)"
        )
    speeds = ", ".join(
        f"{name} {result['rows'][name]['frames_per_second']:.1f}"
        for name in (CAUSAL, CONFIGURED, STOCK)
        if name in result["rows"]
    )
    lines += ["", f"Frames per second of model and tracker, reading left out: {speeds}."]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose source is aligned too: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    names = 2

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = tuple(
        "-" * width if place < names else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    )
    return "\n".join(line(cells) for cells in (head, rule, *rows))
