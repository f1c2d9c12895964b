"""Plots metrics of one or several runs, from the ``metrics.csv`` that every run writes.

    python -m scene_track.viz.curves runs=[outputs/a,outputs/b] metric=val/hota output=hota.png
    python -m scene_track.viz.curves runs=[outputs/sweep] metric=[val/hota,val/idf1] output=s.png

A folder that holds several runs, such as a sweep, adds all of them. Takes a second; needs no torch.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_OPTIONS = ("runs", "metric", "output", "x", "labels")
_FILE = "metrics.csv"


@dataclass(frozen=True)
class Curve:
    """One metric of one run: ``x`` (epoch or step) rises, ``y`` is finite."""

    label: str
    x: list[float]
    y: list[float]


def find_runs(folders: Sequence[str | Path]) -> dict[str, Path]:
    """All ``metrics.csv`` in or under some folders, by the shortest label that tells them apart.

    Raises:
        FileNotFoundError: a folder without any.
    """
    files: dict[Path, None] = {}
    for folder in map(Path, folders):
        found = [folder] if folder.is_file() else sorted(folder.rglob(_FILE))
        if not found:
            raise FileNotFoundError(
                f"no {_FILE} at {folder}: runs=[...] takes run folders under outputs/"
            )
        files |= dict.fromkeys(file.resolve() for file in found)
    named = (
        ["/".join(file.parent.parts[-depth:]) for file in files]
        for depth in range(1, max(len(file.parts) for file in files))
    )
    labels = next((some for some in named if len({*some}) == len(files)), [*map(str, files)])
    return dict(zip(labels, files, strict=True))


def read_curve(file: Path, metric: str, x: str, label: str) -> Curve:
    """The column ``metric`` of a ``metrics.csv`` over the column ``x``, sorted by it.

    Empty cells and values that are not finite are left out.

    Raises:
        ValueError: no such column (names those there are), or no value in it.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = list(rows[0]) if rows else []
    for name in (metric, x):
        if name not in columns:
            raise ValueError(f"{file} has no column {name!r}; it has: {', '.join(columns)}")
    try:
        points = [(float(row[x]), float(row[metric])) for row in rows if row[metric] and row[x]]
    except ValueError as error:
        raise ValueError(f"{file}, columns {x!r} and {metric!r}: {error}") from error
    points = sorted((a, b) for a, b in points if math.isfinite(a) and math.isfinite(b))
    if not points:
        raise ValueError(f"{file} holds no finite value of {metric!r} over {x!r}")
    return Curve(label, [a for a, _ in points], [b for _, b in points])


def plot_curves(curves: dict[str, list[Curve]], x: str, output: str | Path) -> Path:
    """Draws one panel per metric, one line per run, and returns the path of the image.

    Args:
        curves: by metric, the curves of all runs.
        x: name of the horizontal axis.
        output: image to write (.png, .svg or .pdf); its folder is made.
    """
    from matplotlib.figure import Figure  # 0.5 s that an error in the command need not wait for

    output = Path(output)
    figure = Figure(figsize=(8, 0.6 + 3.6 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 1, squeeze=False)[:, 0]
    for panel, (metric, lines) in zip(panels, curves.items(), strict=True):
        for n, curve in enumerate(lines):
            # Ten colours, then the same ones dashed.
            style = ("-", "--", ":", "-.")[n // 10 % 4]
            mark = "o" if len(curve.x) < 60 else None
            panel.plot(
                curve.x, curve.y, style, color=f"C{n % 10}", marker=mark, markersize=3,
                linewidth=1.6, label=f"{curve.label}  (last {curve.y[-1]:.4g})",
            )  # fmt: skip
        panel.set_title(metric, loc="left", fontsize=11)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    panels[-1].set_xlabel(x)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    return output


def run(arguments: Sequence[str]) -> Path:
    """Plots the ``key=value`` arguments of a command line and returns the path of the image.

    Args:
        arguments: ``runs``, ``metric``, ``output``; ``x`` (epoch or step; default epoch) and
            ``labels`` (one per run found).

    Raises:
        ValueError: an argument is unknown, missing or does not fit.
        FileNotFoundError: a run is not there.
    """
    try:
        options = dict(OmegaConf.from_dotlist(list(arguments)))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"cannot read {' '.join(arguments)!r}: {said}") from error
    unknown = [str(key) for key in options if key not in _OPTIONS]
    missing = [key for key in _OPTIONS[:3] if not options.get(key)]
    if unknown or missing:
        what = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise ValueError(
            f"{what}; write runs=[FOLDER,...] metric=val/hota output=FILE.png"
            " (and x=step, labels=[A,...])"
        )
    runs = find_runs(_strings(options["runs"]))
    labels = _strings(options["labels"]) if options.get("labels") else list(runs)
    if len(labels) != len(runs):
        raise ValueError(f"{len(labels)} labels for {len(runs)} runs: {', '.join(runs)}")
    x, named = str(options.get("x") or "epoch"), list(zip(runs.values(), labels, strict=True))
    curves = {
        metric: [read_curve(file, metric, x, label) for file, label in named]
        for metric in _strings(options["metric"])
    }
    return plot_curves(curves, x, str(options["output"]))


def _strings(value: Any) -> list[str]:
    return [str(item) for item in ([value] if isinstance(value, str) else value)]


def main() -> None:
    """Entry point: one line for an error, exit code 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    try:
        print(run(sys.argv[1:]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
