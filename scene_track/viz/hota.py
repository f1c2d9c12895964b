"""Plots HOTA, DetA and AssA over the localisation threshold alpha."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_hota(metrics: Mapping[str, Any], output: Path) -> None:
    """Draws the curves into a PNG.

    Args:
        metrics: with ``alphas`` and ``HOTA_alpha``, ``DetA_alpha``, ``AssA_alpha``, each ``[19]``
            in 0-1, and their means ``HOTA``, ``DetA``, ``AssA`` (see
            ``scene_track.metrics.tracking``).
        output: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in ("HOTA", "DetA", "AssA"):
        label = f"{name} {100 * metrics[name]:.1f}"
        axes.plot(metrics["alphas"], metrics[f"{name}_alpha"], marker=".", label=label)
    axes.set(xlabel="localisation threshold alpha (IoU)", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(output))
