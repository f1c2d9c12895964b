"""The report of a sweep: ``trials.csv``, ``trials.json``, ``report.html``, a table, TensorBoard."""

from __future__ import annotations

from pathlib import Path

from scene_track.io.atomic import write_atomic
from scene_track.sweeps.hparams import write_hparams
from scene_track.sweeps.importance import Importance, importance
from scene_track.sweeps.page import page
from scene_track.sweeps.pictures import pictures
from scene_track.sweeps.results import SweepResults, read_sweep
from scene_track.sweeps.table import as_csv, as_data, as_json, terminal

PAGE = "report.html"


def report(folder: Path) -> Path:
    """Write the report of a sweep into its folder and print its table.

    Args:
        folder: of the sweep; it may still be going on.

    Returns:
        The page.

    Raises:
        FileNotFoundError: there is no sweep.
    """
    sweep = read_sweep(folder)
    shares = importances(sweep)
    data = as_data(sweep, shares)
    shown = pictures(sweep.best.folder) if sweep.best is not None else []
    write_atomic(folder / "trials.csv", as_csv(sweep))
    write_atomic(folder / "trials.json", as_json(data))
    write_atomic(folder / PAGE, page(sweep, data, shown))
    write_hparams(sweep)
    print(terminal(sweep))
    print(f"trials.csv, trials.json and {PAGE} in {folder}", flush=True)
    return folder / PAGE


def importances(sweep: SweepResults) -> dict[str, Importance]:
    """What each parameter explains; trials that were stopped early have no comparable objective."""
    found = {}
    for key in sweep.params:
        pairs = [
            (r.trial.params[key], r.objective)
            for r in sweep.results
            if r.trial.state == "complete" and key in r.trial.params and r.objective is not None
        ]
        values, objectives = [v for v, _ in pairs], [o for _, o in pairs]
        found[key] = importance(values, objectives)
    return found
