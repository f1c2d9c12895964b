"""``hydra/sweeper=optuna``: goes on after a kill, repeats nothing, shared by processes."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import optuna
import pytest
import yaml

from tests.sweeps.conftest import App, trials, wait_for

SEARCH = ("--multirun", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1")


def study(file: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(file) as base:
        return list(base.execute("select number, state from trials order by number"))


def test_a_search_survives_failures_and_finds_the_best(app: App) -> None:
    space = ("x=choice(1,2,3)", "kind=a,b")
    done = app.run(*SEARCH, "hydra.sweeper.n_trials=20", *space, "bad=number")
    assert done.returncode == 0, done.stderr
    assert "the search is over: no point without a trial" in done.stdout
    found = trials(app.sweep)
    points = [(t.params["x"], t.params["kind"]) for t in found]
    assert sorted(points) == [(x, k) for x in "123" for k in "ab"], "each once, then no more"
    assert {t.params["x"] for t in found if t.state == "failed"} == {"3"}
    assert [s for _, s in study(app.sweep / "study.db")].count("COMPLETE") == 4
    best = yaml.safe_load((app.sweep / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"x": 2, "kind": "b"} and best["best_value"] == pytest.approx(1.1)


def test_a_search_without_a_success_fails(app: App) -> None:
    done = app.run(*SEARCH, "hydra.sweeper.n_trials=2", "x=3", "kind=a,b", "bad=number")
    assert done.returncode == 1
    assert "2 of 2 trials failed" in done.stderr


def test_a_killed_search_makes_the_trials_that_are_missing(app: App) -> None:
    command = (*SEARCH, "hydra.sweeper.n_trials=3", "x=interval(1.0,3.0)", "sleep=0.2", "epochs=4")
    process = app.start(*command)
    second = app.sweep / "1" / "metrics.csv"
    wait_for(lambda: second.is_file() and second.stat().st_size > 40)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert study(app.sweep / "study.db") == [(0, "COMPLETE"), (1, "RUNNING")]
    before = (app.sweep / "0" / "trial.json").read_bytes()

    done = app.run(*command)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 trials are done" in done.stdout
    found = trials(app.sweep)
    assert [t.state for t in found] == ["complete", "failed", "complete", "complete"]
    assert found[1].fault == "died"
    assert len({t.params["x"] for t in found}) == 4, "the seed is the same, the points are not"
    assert (app.sweep / "0" / "trial.json").read_bytes() == before
    states = [state for _, state in study(app.sweep / "study.db")]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]

    again = app.run(*command)
    assert again.returncode == 0 and "3 of 3 trials are done" in again.stdout
    assert len(trials(app.sweep)) == 4


def test_a_study_that_is_only_half_made_is_completed(app: App) -> None:
    url = f"sqlite:///{app.folder}/study.db"
    optuna.storages.RDBStorage(url).create_new_study("sweep")  # killed before it set the direction
    done = app.run(*SEARCH, f"hydra.sweeper.storage={url}", "hydra.sweeper.n_trials=1", "x=1,2")
    assert done.returncode == 0, done.stderr
    assert study(app.folder / "study.db") == [(0, "COMPLETE")]


@pytest.mark.parametrize("apart", [False, True], ids=["one folder", "two folders"])
def test_two_processes_share_a_study(app: App, apart: bool) -> None:
    storage = f"hydra.sweeper.storage=sqlite:///{app.folder}/study.db"
    command = (*SEARCH, storage, "hydra.sweeper.n_trials=4", "x=interval(1.0,3.0)", "sleep=0.3")
    folders = [app.folder / name for name in (("one", "two") if apart else ("one", "one"))]
    both = [app.start(*command, f"hydra.sweep.dir={folder}") for folder in folders]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    found = [t for folder in set(folders) for t in trials(folder)]
    assert len({t.params["x"] for t in found}) == len(found) == 4, "four in all, no point twice"
    assert len({t.study for t in found}) == 4
    states = [s for _, s in study(app.folder / "study.db")]
    assert states.count("COMPLETE") == 4 and "RUNNING" not in states
    if not apart:
        assert {t.process.pid for t in found if t.process} == {p.pid for p in both}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("hydra.sweeper.direction=minimize", "x=1,2"), "hydra.sweeper.direction=minimize contr"),
        (("hydra.sweeper.storage=sqlite:////no/such/x.db", "x=1,2"), "hydra.sweeper.storage=sq"),
        (("x=1",), "nothing varies: type what is to be searched"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    app: App, arguments: tuple[str, ...], line: str
) -> None:
    done = app.run(*SEARCH, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_the_direction_follows_the_monitor(app: App) -> None:
    command = (*SEARCH, "hydra.sweeper.n_trials=2", "x=0,1", "monitor.mode=min")
    assert app.run(*command).returncode == 0
    best = yaml.safe_load((app.sweep / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"x": 0}
    done = app.run(*command[:-1])
    assert done.returncode == 2
    assert "the study sweep is to minimize, monitor.mode asks to maximize" in done.stderr
