"""The report of a sweep: ``trials.csv``, ``trials.json``, ``report.html``, and a table."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from scene_track.io.atomic import write_atomic
from scene_track.sweeps.results import Result, SweepResults, importance, read_sweep

PAGE = "report.html"
_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_POINTS = 400  # of one curve on the page
_WIDEST = 32  # characters of a parameter in the table


def report(folder: Path) -> Path:
    """Write the report of a sweep into its folder and print its table."""
    sweep = read_sweep(folder)
    data = as_data(sweep)
    images = read_images(sweep.best.folder) if sweep.best is not None else []
    write_atomic(folder / "trials.csv", _as_csv(data))
    write_atomic(folder / "trials.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
    write_atomic(folder / PAGE, page(sweep, data, images))
    print(_table(sweep))
    print(f"trials.csv, trials.json and {PAGE} in {folder}", flush=True)
    return folder / PAGE


def as_data(sweep: SweepResults) -> dict[str, Any]:
    """Everything but the curves and images, as plain data."""
    shares = {}
    for key in sweep.params:  # a trial that was stopped early has no comparable objective
        trials = [r.trial for r in sweep.results if r.trial.state == "complete"]
        trials = [t for t in trials if key in t.params and t.objective is not None]
        objectives = [t.objective for t in trials if t.objective is not None]
        shares[key] = asdict(importance([t.params[key] for t in trials], objectives))
    return {
        "sweep": "/".join(sweep.folder.absolute().parts[-2:]),
        "monitor": sweep.monitor,
        "mode": sweep.mode,
        "best": None if sweep.best is None else sweep.best.trial.number,
        "params": sweep.params,
        "metrics": sweep.metrics,
        "importance": shares,
        "trials": [_trial(result, sweep.folder) for result in sweep.results],
    }


def _trial(result: Result, sweep: Path) -> dict[str, Any]:
    trial = asdict(result.trial)
    del trial["overrides"], trial["process"]
    begun = result.trial.started
    return {
        **trial,
        "started": begun and datetime.fromtimestamp(begun).isoformat(" ", "seconds"),
        "metrics": dict(result.metrics),
        "folder": os.path.relpath(result.folder, sweep),
    }


def _as_csv(data: dict[str, Any]) -> str:
    """One row per trial: its record, parameters, and the best value of each metric."""
    stream = io.StringIO()
    last = ("reason", "wall_s", "started", "folder", "command")
    metrics = [f"metric/{name}" for name in data["metrics"]]
    names = ["trial", "state", data["monitor"], *data["params"], *metrics, *last]
    rows = csv.DictWriter(stream, names, lineterminator="\n")
    rows.writeheader()
    for t in data["trials"]:
        best = {f"metric/{name}": value for name, value in t["metrics"].items()}
        record = {"trial": t["number"], "state": t["state"], data["monitor"]: t["objective"]}
        rows.writerow({**record, **t["params"], **best, **{key: t[key] for key in last}})
    return stream.getvalue()


def _table(sweep: SweepResults) -> str:
    """The trials for the terminal, best first, with the reasons of failures."""
    head = ["trial", "state", sweep.monitor, *sweep.params, "time"]
    rows = [
        [
            f"{r.trial.number}{' *' if r is sweep.best else ''}",
            r.trial.state,
            "" if r.trial.objective is None else f"{r.trial.objective:.4f}",
            *(r.trial.params.get(key, "")[:_WIDEST] for key in sweep.params),
            "" if r.trial.wall_s is None else str(timedelta(seconds=round(r.trial.wall_s))),
        ]
        for r in sweep.ranked
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in [head, ["-" * w for w in widths], *rows]]  # fmt: skip
    failed = [r.trial for r in sweep.results if r.trial.state == "failed"]
    lines += ["", *(f"trial {t.number} failed: {t.reason}" for t in failed)]
    if sweep.best is not None:
        lines.append(f"best (*): {sweep.best.trial.command}")
    return "\n".join(lines)


def page(sweep: SweepResults, data: dict[str, Any], images: Sequence[dict[str, Any]]) -> str:
    """The page: one HTML file that needs no other."""
    curves = {
        str(result.trial.number): {
            # At most so many points, evenly spaced, with the last one.
            name: [
                [float(f"{x:.6g}") for x in point]
                for point in points[::-1][:: -(-len(points) // _MOST_POINTS)][::-1]
            ]
            for name, points in result.curves.items()
        }
        for result in sweep.results
    }
    content = json.dumps({**data, "curves": curves, "pictures": images}, allow_nan=False)
    # "</script>" in a value would end the script that holds it.
    text = content.replace("<", "\\u003c")
    return _TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", text, 1)


def read_images(folder: Path) -> list[dict[str, Any]]:
    """The first and the last validation image of a run: ``step`` and ``url``, a ``data:`` URL."""
    files = sorted((folder / "viz").glob("epoch_*_step_*.png"))  # of callbacks.pictures
    ends = dict.fromkeys([*files[:1], *files[-1:]])
    start = "data:image/png;base64,"
    return [
        {
            "step": int(f.stem.rpartition("_")[2]),
            "url": start + base64.b64encode(f.read_bytes()).decode(),
        }
        for f in ends
    ]
