"""``hydra/sweeper=optuna``: goes on after a kill, repeats nothing, shared by processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from omegaconf import OmegaConf

from scene_track.sweeps import records
from scene_track.sweeps.records import Process, Trial
from scene_track.sweeps.search import SearchSweeper
from tests.sweeps.conftest import App, trials, wait_for

SEARCH = ("--multirun", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1")


def study(file: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(file) as base:
        return list(base.execute("select number, state from trials order by number"))


def searching(*, sampler: str = "TPESampler", n_trials: int = 100, **options: Any) -> SearchSweeper:
    """A search over a square that launches nothing, its study in a database in memory."""
    of_hydra = {
        "n_trials": n_trials, "n_jobs": 1, "params": None, "storage": "sqlite://",
        "study_name": None, "max_failure_rate": 0, "search_space": None,
        "custom_search_space": None,
    }  # fmt: skip
    search = SearchSweeper(sampler=getattr(optuna.samplers, sampler)(**options), **of_hydra)
    search.run = OmegaConf.create(
        {
            "monitor": {"metric": "val/hota", "mode": "max"},
            "hydra": {"overrides": {"hydra": []}, "sweeper": {"sampler": options}},
        }
    )
    search.folder, search.one_by_one = Path(), True
    search._prepare(["x=interval(-1.0,1.0)", "y=interval(-1.0,1.0)"])
    search._begin()
    return search


def test_a_sampler_that_learns_from_its_own_notes_learns() -> None:
    search = searching(sampler="CmaEsSampler", seed=1)
    heights = []
    for _ in range(50):
        trial = search._ask()
        assert trial is not None
        x, y = trial.params["x"], trial.params["y"]
        heights.append((x - 0.6) ** 2 + (y + 0.5) ** 2)
        search._study.tell(trial, -heights[-1])
    by_chance = 2 / 3 + 0.6**2 + 0.5**2  # expected of a point drawn from the square
    assert sum(heights[30:]) / 20 < by_chance / 5


def test_a_trial_without_a_claim_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searching()
    search._study.ask()  # killed before the first heartbeat
    search._study.ask().suggest_float("x", -1, 1)  # another program's
    search._settle()
    assert len(search._counted()) == 2, "they may be new"
    monkeypatch.setattr(records, "SILENT_S", -1.0)
    search._settle()
    assert [t.state.name for t in search._study.trials] == ["FAIL", "RUNNING"]
    assert len(search._counted()) == 1


def test_a_trial_whose_machine_is_silent_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "SILENT_S", 1.0)
    search = searching(n_trials=2)
    first, second = search._ask(), search._ask()
    assert first is not None and second is not None and search._ask() is None
    for _ in range(5):
        time.sleep(0.5)
        search._running = {second._trial_id}  # the first one's machine is gone
        search._beat()
        search._settle()
    assert [t.state.name for t in search._study.trials] == ["FAIL", "RUNNING", "WAITING"]
    again = search._ask()
    assert again is not None and again.params == first.params
    assert search._ask() is None


def test_a_search_survives_failures_and_finds_the_best(app: App) -> None:
    space = ("x=choice(1,2,3)", "kind=a,b")
    done = app.run(*SEARCH, "hydra.sweeper.n_trials=20", *space, "bad=number")
    assert done.returncode == 0, done.stderr
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
    assert found[2].params == found[1].params, "the point that died is tried once more"
    assert len({t.params["x"] for t in found}) == 3, "the seed is the same, the points are not"
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


def test_a_search_replaces_what_a_vanished_machine_had_waiting(app: App) -> None:
    far = Process("elsewhere", 1, 1)
    url = f"sqlite:///{app.folder}/study.db"
    begun = optuna.create_study(study_name="sweep", storage=url, direction="maximize")
    for folder in (app.sweep / "0", Path("/on/its/own/disk")):
        trial = begun.ask()
        trial.suggest_categorical("x", (1, 2))
        trial.set_user_attr("folder", str(folder))
    (app.sweep / "0").mkdir(parents=True)
    records.write(app.sweep / "0", Trial(0, "waiting", ("x=1",), process=far, study=0))
    os.utime(app.sweep / "0" / records.RECORD, (0, 0))
    done = app.run(*SEARCH, f"hydra.sweeper.storage={url}", "hydra.sweeper.n_trials=2", "x=1,2")
    assert done.returncode == 0, done.stderr
    # A point that the search draws twice is one more FAIL between the others.
    states = [s for _, s in study(app.folder / "study.db")]
    assert states[:2] == ["FAIL", "RUNNING"] and set(states[2:-1]) <= {"FAIL"}
    assert states[-1] == "COMPLETE"
    assert "still make 1 trials (trial 1 of the study, /on/its/own/disk)" in done.stdout


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
        (("hydra.sweeper.direction=minimize", "x=1,2"), "hydra.sweeper.direction plays no part"),
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
    assert "the study sweep has the other direction than monitor.mode=max" in done.stderr
