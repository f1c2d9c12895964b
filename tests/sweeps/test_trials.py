"""Whatever becomes of a trial, the sweep goes on and the record says what happened."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scene_track.sweeps import records
from scene_track.sweeps.records import Process, Trial
from tests.sweeps.conftest import App, trials, wait_for

_KILLED_ONCE = """
import os
import signal
from pathlib import Path

from scene_track.sweeps import records

records.SILENT_S = 2.0
write = records.write


def killed_once(folder, trial):
    if trial.state == "running" and trial.params["x"] == "2" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, trial)


records.write = killed_once
"""


_IMPATIENT = """
from scene_track.sweeps import records

records.SILENT_S = 4.0
"""


@pytest.fixture(scope="module")
def hard_times(new_app: Callable[[], App]) -> tuple[App, subprocess.CompletedProcess[str]]:
    app = new_app()
    return app, app.run("--multirun", "x=3", "bad=no,raise,exit,kill,number,mistake,memory")


@pytest.mark.parametrize(
    ("number", "state", "reason", "fault"),
    [
        (0, "complete", None, None),
        (1, "failed", "KeyError: 'five'", "error"),
        (2, "failed", "its process ended with code 7; the end of its output: about to", "error"),
        (3, "failed", "its process was ended by SIGKILL (the kernel does that when", "error"),
        (4, "failed", "its objective is nan, not a finite number", "error"),
        (5, "failed", "x=3 is no good", "mistake"),
        (6, "failed", "out of memory", "mistake"),
    ],
)
def test_a_trial_is_recorded_and_the_others_go_on(
    hard_times: tuple[App, object], number: int, state: str, reason: str | None, fault: str | None
) -> None:
    trial = trials(hard_times[0].sweep)[number]
    assert (trial.number, trial.state, trial.fault) == (number, state, fault)
    assert (trial.reason or "").startswith(reason or "")
    assert (trial.objective is None) == (state == "failed")
    assert trial.wall_s is not None and 0 < trial.wall_s < 60
    assert (hard_times[0].sweep / str(number) / "output.log").is_file()


def test_a_grid_with_failures_ends_with_a_report_and_code_1(
    hard_times: tuple[App, subprocess.CompletedProcess[str]],
) -> None:
    app, done = hard_times
    assert done.returncode == 1
    assert "6 of 7 trials failed, the first: trial 1: KeyError: 'five'" in done.stderr
    assert "[2] about to leave" in done.stdout, "what a trial prints is seen"
    assert (app.sweep / "report.html").is_file()


def test_the_recorded_command_trains_the_trial_again(hard_times: tuple[App, object]) -> None:
    app, _ = hard_times
    command = shlex.split(trials(app.sweep)[0].command or "")
    assert command[:3] == ["python", "-m", "tiny_app"]
    done = app.run(*command[3:])
    assert done.returncode == 0, done.stderr
    assert (app.folder / "out" / "summary.json").read_text() == (
        app.sweep / "0" / "summary.json"
    ).read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bad=wrong,worse"], "2 of 2 trials failed, the first: trial 0: bad=wrong: must be"),
        (["hydra.sweep.subdir=mine"], "the folders of a sweep's trials are numbered"),
    ],
)
def test_a_sweep_of_mistakes_ends_with_code_2(app: App, words: list[str], said: str) -> None:
    done = app.run("--multirun", "x=1", *words)
    assert done.returncode == 2 and said in done.stderr


def test_values_that_need_quotes_reach_the_trial(app: App) -> None:
    odd = r"a b\,=(c)"
    done = app.run("--multirun", "x=1", f"odd='{odd}'", "hydra.sweep.dir='a sweep, of one=1'")
    assert done.returncode == 0, done.stderr
    (folder,) = records.read_all(app.folder / "a sweep, of one=1")
    assert (folder / "summary.json").is_file()


def test_a_killed_grid_goes_on_where_it_was(app: App) -> None:
    command = ("--multirun", "x=1,2", "kind=a,b", "sleep=0.2", "epochs=4")
    process = app.start(*command)
    third = app.sweep / "2" / "metrics.csv"
    wait_for(lambda: third.is_file() and third.stat().st_size > 40)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    states = [trial.state for trial in trials(app.sweep)]
    assert states == ["complete", "complete", "running"]
    before = {n: (app.sweep / n / "trial.json").read_bytes() for n in "01"}

    done = app.run(*command)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 combinations are complete: skipped" in done.stdout
    found = trials(app.sweep)
    assert [t.state for t in found] == ["complete", "complete", "failed", "complete", "complete"]
    assert found[2].fault == "died" and "process is gone" in (found[2].reason or "")
    points = [tuple(t.params.values()) for t in found if t.state == "complete"]
    assert points == [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]
    assert {n: (app.sweep / n / "trial.json").read_bytes() for n in "01"} == before
    assert not (app.sweep / "2" / "summary.json").exists(), "nobody trains on unseen"
    assert len(third.read_text().splitlines()) < 5

    again = app.run(*command)
    assert again.returncode == 0 and "4 of 4 combinations are complete" in again.stdout
    assert len(trials(app.sweep)) == 5


def test_two_processes_share_a_grid(app: App) -> None:
    command = ("--multirun", "x=1,2", "kind=a,b", "sleep=0.2")
    both = [app.start(*command) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    found = trials(app.sweep)
    assert len({tuple(t.params.values()) for t in found}) == len(found) == 4
    assert all(t.state == "complete" for t in found)


def test_what_another_machine_loses_is_trained_before_the_end(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app.folder / "sitecustomize.py").write_text(_IMPATIENT)
    monkeypatch.setenv("PYTHONPATH", str(app.folder), prepend=os.pathsep)
    far = Process("elsewhere", 1, 1)
    for number, state in enumerate(("waiting", "running", "waiting", "running")):
        folder = app.sweep / str(number)
        folder.mkdir(parents=True)
        records.write(folder, Trial(number, state, (f"x={number}",), process=far))
    process = app.start("--multirun", "x=0,1,2,3,4")
    own = app.sweep / "4"
    while process.poll() is None:
        trial = records.read(own)
        waits = trial is not None and trial.state == "complete"
        for number in "23" if waits else "0123":  # then two die, the others live on
            records.touch(app.sweep / number)
        time.sleep(0.1)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "still make 2 trials (trial 2 on elsewhere, trial 3 on elsewhere)" in out
    done = [t.overrides for t in trials(app.sweep) if t.state == "complete"]
    assert sorted(done) == [("x=0",), ("x=1",), ("x=4",)]


def test_a_trial_that_waits_for_its_launcher_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BEAT_S", 0.01)
    waiting, started = (records.claim(tmp_path, (f"x={x}",), {}) for x in "12")
    assert records.start(started, "") is not None
    assert records.start(started, "") is None, "a trial starts once"
    for folder in (waiting, started):
        os.utime(folder / records.RECORD, (0, 0))
    beats: list[int] = []
    with records.kept_waiting([waiting, started], lambda: beats.append(1)):
        wait_for(lambda: beats and (waiting / records.RECORD).stat().st_mtime > 0, 10)
    assert (started / records.RECORD).stat().st_mtime == 0, "who runs it speaks for it"


def test_ctrl_c_ends_a_sweep_and_says_how_to_go_on(app: App) -> None:
    process = app.start("--multirun", "x=1,2", "sleep=20")
    wait_for((app.sweep / "0" / "metrics.csv").is_file)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "to resume: python -m tiny_app --multirun x=1,2 sleep=20 'hydra.sweep.dir=" in err
    (trial,) = trials(app.sweep)
    assert (trial.state, trial.fault, trial.reason) == ("failed", "died", "stopped by Ctrl-C")


def test_a_worker_lost_between_start_and_first_record_is_not_waited_for(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (app.folder / "sitecustomize.py").write_text(_KILLED_ONCE)  # in the workers too
    monkeypatch.setenv("PYTHONPATH", str(app.folder), prepend=os.pathsep)
    done = app.run("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "x=1,2")
    assert done.returncode == 0, done.stderr
    assert "to be started once more" in done.stdout
    found = trials(app.sweep)
    assert sorted(t.params["x"] for t in found if t.state == "complete") == ["1", "2"]
    assert "died" in {t.fault for t in found if t.state == "failed"}


def test_the_launcher_for_clusters_on_this_machine(app: App) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    done = app.run("--multirun", *launcher, "x=1,3", "bad=exit")
    assert done.returncode == 1, done.stderr
    assert [t.state for t in trials(app.sweep)] == ["complete", "failed"]
    assert "code 7" in (trials(app.sweep)[1].reason or "")


def test_who_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = Process.this().__class__(Process.this().host, child.pid, None)
    assert Process.this().alive() is True
    assert Process(Process.this().host, os.getpid(), 1).alive() is False, "another of its number"
    child.kill()
    child.wait()
    assert other.alive() is False
    far = Trial(0, "running", (), process=Process("elsewhere", 1, 1))
    records.write(tmp_path, far)
    assert not records.is_dead(tmp_path, far)
    os.utime(tmp_path / records.RECORD, (0, 0))
    assert records.is_dead(tmp_path, far), "silent for too long"
    assert records.is_dead(tmp_path, replace(far, state="waiting")), "its sweeper would beat"


def test_a_dead_trial_is_given_up_and_cannot_start(tmp_path: Path) -> None:
    folder = records.claim(tmp_path, ("x=1",), {"x": "1"})
    assert records.bury(tmp_path) == [], "who has it waiting lives"
    waiting = trials(tmp_path)[0]
    records.write(folder, replace(waiting, process=Process(Process.this().host, os.getpid(), 1)))
    assert len(records.bury(tmp_path)) == 1
    (buried,) = trials(tmp_path)
    assert (buried.state, buried.fault) == ("failed", "died")
    assert records.start(folder, "") is None
    records.give_up(folder, waiting, "changed meanwhile")
    assert trials(tmp_path) == [buried]


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / records.RECORD).write_text(json.dumps({"number": 1}))
    with pytest.raises(ValueError, match="no record of a trial"):
        records.read(tmp_path)
    trial = Trial(3, "complete", ("a=1",), {"a": "1"}, objective=math.pi)
    records.write(tmp_path, trial)
    assert records.read(tmp_path) == trial
