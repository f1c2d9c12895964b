"""A sweep's trials as text: for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict
from datetime import datetime
from typing import Any

from scene_track.sweeps.importance import Importance
from scene_track.sweeps.results import Result, SweepResults

_WIDEST = 32


def terminal(sweep: SweepResults) -> str:
    """A table for people, the best first, with what became of the others below."""
    sign = -1 if sweep.mode == "max" else 1

    def place(result: Result) -> tuple[float, int]:
        objective = result.objective
        return (math.inf if objective is None else sign * objective, result.trial.number)

    metric = sweep.monitor
    head = ["trial", "state", metric, *sweep.params, "time"]
    rows = [
        [
            f"{r.trial.number}{' *' if r is sweep.best else ''}",
            r.trial.state,
            "" if r.objective is None else f"{r.objective:.4f}",
            *(_cut(_short(r.trial.params.get(key, ""))) for key in sweep.params),
            duration(r.trial.wall_s),
        ]
        for r in sorted(sweep.results, key=place)
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in [head, ["-" * w for w in widths], *rows]]  # fmt: skip
    failed = [r for r in sweep.results if r.trial.state == "failed"]
    lines += ["", *(f"trial {r.trial.number} failed: {r.trial.reason}" for r in failed)]
    if sweep.best is not None:
        lines += ["" if failed else None, f"best (*): {sweep.best.trial.command}"]  # type: ignore[list-item]
    return "\n".join(line for line in lines if line is not None)


def as_csv(sweep: SweepResults) -> str:
    """One row per trial: record, parameters, best value of each metric."""
    stream = io.StringIO()
    names = [f"metric/{name}" for name in sweep.metrics]
    fixed = ["trial", "state", sweep.monitor]
    last = ["reason", "wall_s", "started", "folder", "command"]
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([*fixed, *sweep.params, *names, *last])
    for r in sweep.results:
        t = r.trial
        rows.writerow(
            [
                *(t.number, t.state, t.objective),
                *(t.params.get(key) for key in sweep.params),
                *(r.metrics.get(name) for name in sweep.metrics),
                *(t.reason, t.wall_s, started(t.started), r.folder.name, t.command),
            ]
        )
    return stream.getvalue()


def as_data(sweep: SweepResults, shares: dict[str, Importance]) -> dict[str, Any]:
    """Everything but the curves, as plain data."""
    return {
        "sweep": "/".join(sweep.folder.absolute().parts[-2:]),
        "monitor": sweep.monitor,
        "mode": sweep.mode,
        "best": None if sweep.best is None else sweep.best.trial.number,
        "params": sweep.params,
        "metrics": sweep.metrics,
        "importance": {key: asdict(value) for key, value in shares.items()},
        "trials": [
            {
                "number": r.trial.number,
                "state": r.trial.state,
                "objective": r.objective,
                "params": dict(r.trial.params),
                "metrics": dict(r.metrics),
                "reason": r.trial.reason,
                "fault": r.trial.fault,
                "wall_s": r.trial.wall_s,
                "started": started(r.trial.started),
                "folder": os.path.relpath(r.folder, sweep.folder),
                "command": r.trial.command,
                "study": r.trial.study,
            }
            for r in sweep.results
        ],
    }


def as_json(data: dict[str, Any]) -> str:
    """The text of a JSON file."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def started(seconds: float | None) -> str | None:
    """A moment as people of this place write it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds).isoformat(sep=" ", timespec="seconds")


def duration(seconds: float | None) -> str:
    """A time as h:mm:ss, or m:ss."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: str) -> str:
    """A number in four digits; a text as it is."""
    try:
        return value if len(value) <= 7 else f"{float(value):.4g}"
    except ValueError:
        return value


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
