"""The report's page: one HTML file with everything in it, data, code and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scene_track.sweeps.pictures import Picture
from scene_track.sweeps.results import SweepResults

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACE = "/*DATA*/null"
_MOST_POINTS = 400  # of one curve; a screen has no more


def page(sweep: SweepResults, data: dict[str, Any], pictures: Sequence[Picture]) -> str:
    """The text of the page.

    Args:
        sweep: gives the curves.
        data: what ``trials.json`` holds.
        pictures: of the best trial.
    """
    curves = {
        str(result.trial.number): {
            name: [[_round(x) for x in point] for point in _thinned(points)]
            for name, points in result.curves.items()
        }
        for result in sweep.results
    }
    content = {**data, "curves": curves, "pictures": [asdict(picture) for picture in pictures]}
    # "</script>" in a value would end the script that holds it.
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text, 1)


def _thinned(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Evenly chosen points of a long curve, the last one among them."""
    every = -(-len(points) // _MOST_POINTS)
    return list(points[::-1][::every][::-1]) if every > 1 else list(points)


def _round(value: float) -> float:
    return float(f"{value:.6g}")
