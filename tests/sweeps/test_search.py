"""``hydra/sweeper=optuna``: goes on after a kill, repeats nothing, shared by processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import TrialState

from scene_track.sweeps import records
from scene_track.sweeps.records import Process, Trial
from scene_track.sweeps.search import Search, _counted, _tell
from scene_track.sweeps.space import Space, split
from tests.sweeps.conftest import App, trials, wait_for

SEARCH = ("--multirun", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1")


def study(file: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(file) as base:
        return list(base.execute("select number, state from trials order by number"))


def searching(*, sampler: str = "TPESampler", n_trials: int = 100, **options: Any) -> Search:
    """A search that launches nothing, its study in a data base in memory."""
    config = {
        "monitor": {"metric": "val/hota", "mode": "max"},
        "hydra": {"overrides": {"hydra": []}, "sweeper": {"sampler": options}},
    }
    run: Any = SimpleNamespace(config=OmegaConf.create(config), folder=Path(), one_by_one=True)
    of_hydra = {
        "n_trials": n_trials, "n_jobs": 1, "params": None, "storage": "sqlite://",
        "study_name": None, "max_failure_rate": 0, "search_space": None,
        "custom_search_space": None,
    }  # fmt: skip
    return Search(run, getattr(optuna.samplers, sampler)(**options), of_hydra)


def space_of(*overrides: str) -> Space:
    return split(OverridesParser.create().parse_overrides(list(overrides)))[0]


def test_a_sampler_that_learns_from_its_own_notes_learns() -> None:
    search = searching(sampler="CmaEsSampler", seed=1)
    study, space = search._open(), space_of("x=interval(-1.0,1.0)", "y=interval(-1.0,1.0)")
    heights = []
    for _ in range(50):
        trial = search._ask(study, space)
        assert trial is not None
        x, y = trial.params["x"], trial.params["y"]
        heights.append((x - 0.6) ** 2 + (y + 0.5) ** 2)
        study.tell(trial, -heights[-1])
    by_chance = 2 / 3 + 0.6**2 + 0.5**2  # expected of a point drawn from the square
    assert sum(heights[30:]) / 20 < by_chance / 5


def test_the_genetic_sampler_breeds() -> None:
    search = searching(sampler="NSGAIISampler", seed=1, population_size=4)
    study, space = search._open(), space_of("x=interval(-1.0,1.0)", "y=interval(-1.0,1.0)")
    for _ in range(12):
        trial = search._ask(study, space)
        assert trial is not None
        study.tell(trial, trial.params["x"])
    inherited = [len({t.params[key] for t in study.trials}) for key in "xy"]
    assert min(inherited) < 12, "a child has a coordinate of a parent"


def test_a_trial_has_its_owner_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    search, space = searching(), space_of("x=interval(-1.0,1.0)", "y=interval(-1.0,1.0)")
    study = search._open()
    ask = study.ask

    def killed() -> None:
        ask()
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "ask", killed)
    with pytest.raises(KeyboardInterrupt):
        search._ask(study, space)
    assert study.trials[0].user_attrs["process"] == asdict(Process.this())
    search._settle(study)
    assert study.trials[0].state == TrialState.FAIL and not _counted(study)


def test_a_trial_without_owner_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searching()
    study = search._open()
    study.ask()
    study.ask().suggest_float("x", -1, 1)  # another program's
    search._settle(study)
    assert _counted(study) == 2, "they may be new"
    monkeypatch.setattr(records, "SILENT_S", -1.0)
    search._settle(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "RUNNING"] and _counted(study) == 1


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


def test_a_search_replaces_what_a_vanished_machine_had_waiting(app: App) -> None:
    far = Process("elsewhere", 1, 1)
    url = f"sqlite:///{app.folder}/study.db"
    begun = optuna.create_study(study_name="sweep", storage=url, direction="maximize")
    (app.sweep / "0").mkdir(parents=True)
    for folder in (app.sweep / "0", Path("/on/its/own/disk")):
        trial = begun.ask()
        trial.set_user_attr("process", asdict(far))
        trial.set_user_attr("folder", str(folder))
    records.write(app.sweep / "0", Trial(0, "waiting", ("x=1",), process=far, study=0))
    os.utime(app.sweep / "0" / records.RECORD, (0, 0))
    done = app.run(*SEARCH, f"hydra.sweeper.storage={url}", "hydra.sweeper.n_trials=2", "x=1,2")
    assert done.returncode == 0, done.stderr
    assert [s for _, s in study(app.folder / "study.db")] == ["FAIL", "RUNNING", "COMPLETE"]
    assert (
        "1 of 2 trials are made by other processes: trial 1 of the study on elsewhere; run the"
        " same command again later" in done.stdout
    )


def test_a_search_looks_once_more_for_what_others_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    search, space = searching(n_trials=2), space_of("x=interval(-1.0,1.0)")
    study = search._open()
    mine, other = search._ask(study, space), search._ask(study, space)
    assert mine is not None and other is not None
    study.tell(mine, 1.0)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    far = Process(Process.this().host, gone.pid, 1)
    other.set_user_attr("process", asdict(far))
    looked: list[bool] = []
    monkeypatch.setattr(search.run, "look_again", lambda: looked.append(True), raising=False)
    assert search._ask(study, space) is None
    assert search._finds_lost(study) and looked == [True]
    assert search._ask(study, space) is not None, "one in place of it"


def test_two_processes_may_tell_of_the_same_trial() -> None:
    study = searching()._open()
    trial = study.ask()
    for _ in range(2):
        _tell(study, trial, Trial(0, "complete", (), objective=0.5, reason="as the record says"))
    assert study.trials[0].value == 0.5


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
