"""Metrics of all sequences as a table of plain text, and as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scene_track.ball.metrics import BallCounts, ball_metrics
from scene_track.metrics.tracking import TrackingCounts, tracking_metrics

_FRACTIONS = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "IDR", "MOTA", "MOTP")
_COUNTS = ("IDSW", "FP", "FN", "TP", "Frag", "MT", "ML")
_SPEED = "frames_per_second"
_BALL_FRACTIONS = (
    "pck_2",
    "pck_4",
    "pck_5",
    "pck_10",
    "f1_wasb",
    "f1_tracknetv3",
    "visibility_accuracy",
)
BALL_COLUMNS = (*_BALL_FRACTIONS, "l2_median", "l2_mean")
"""Columns of the table of a ball."""


def plain_metrics(counts: TrackingCounts) -> dict[str, Any]:
    """Metrics with lists in place of arrays, ready for JSON."""
    metrics = tracking_metrics(counts)
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in metrics.items()}


def plain_ball_metrics(counts: BallCounts) -> dict[str, Any]:
    """Figures of a ball for JSON, which knows no infinity: nothing found, no distance (None)."""
    return {k: v if math.isfinite(v) else None for k, v in ball_metrics(counts).items()}


def format_table(scores: dict[str, Any], columns: Sequence[str] | None = None) -> str:
    """Lay out the scores of a split as plain text.

    Args:
        scores: ``{"combined": metrics, "sequences": {name: metrics}}``, as of
            :func:`scene_track.score.score_folders`; each may have ``frames_per_second`` besides its
            metrics.
        columns: names of metrics, and ``frames_per_second``; fractions are shown in percent. None:
            the most important ones of boxes, or of a ball.

    Returns:
        One line per sequence and COMBINED, below a line of headings.
    """
    if columns is None:
        columns = BALL_COLUMNS if "pck_5" in scores["combined"] else (*_FRACTIONS, *_COUNTS)
    rows = [("sequence", *("frames/s" if key == _SPEED else key for key in columns))]
    for name, metrics in [*scores["sequences"].items(), ("COMBINED", scores["combined"])]:
        rows.append((name, *(_cell(key, metrics[key]) for key in columns)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _cell(key: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if key in _FRACTIONS or key in _BALL_FRACTIONS:
        return f"{100 * value:.2f}"
    if key.startswith("l2_"):
        return f"{value:.2f}"
    return f"{value:.1f}" if key == _SPEED else str(value)
