"""Metrics of all sequences as a table of plain text, and as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from scene_track.metrics.tracking import TrackingCounts, tracking_metrics

FRACTIONS = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "IDR", "MOTA", "MOTP")
_COUNTS = ("IDSW", "FP", "FN", "TP", "Frag", "MT", "ML")
_SPEED = "frames_per_second"


def plain_metrics(counts: TrackingCounts) -> dict[str, Any]:
    """Metrics with lists in place of arrays, ready for JSON."""
    metrics = tracking_metrics(counts)
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in metrics.items()}


def format_table(
    scores: dict[str, Any],
    columns: Sequence[str] = (*FRACTIONS, *_COUNTS),
    fractions: Collection[str] = FRACTIONS,
) -> str:
    """Lay out the scores of a split as plain text.

    Args:
        scores: ``{"combined": metrics, "sequences": {name: metrics}}``, as of
            :func:`scene_track.score.score_folders`; each may have ``frames_per_second`` besides its
            metrics.
        columns: names of metrics, and ``frames_per_second``; by default those of boxes.
        fractions: the metrics that are shown in percent.

    Returns:
        One line per sequence and COMBINED, below a line of headings.
    """
    rows = [("sequence", *("frames/s" if key == _SPEED else key for key in columns))]
    for name, metrics in [*scores["sequences"].items(), ("COMBINED", scores["combined"])]:
        rows.append((name, *(_cell(key, metrics[key], fractions) for key in columns)))
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


def _cell(key: str, value: float | None, fractions: Collection[str]) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if key in fractions:
        return f"{100 * value:.2f}"
    if key.startswith("l2_"):
        return f"{value:.2f}"
    return f"{value:.1f}" if key == _SPEED else str(value)
