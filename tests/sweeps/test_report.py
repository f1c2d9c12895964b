"""The report: what is written, and that a browser shows it."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scene_track import report as entry
from scene_track.sweeps import records
from scene_track.sweeps.records import State, Trial
from scene_track.sweeps.report import as_data, page, read_images, report
from scene_track.sweeps.results import read_sweep

NASTY = "</script><b>&'\""
DOT = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven trials of a search, written by hand: complete, stopped early, failed, running."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "multirun.yaml").write_text("monitor: {metric: val/hota, mode: max}\n")
    states: list[State] = [*["complete"] * 4, "stopped", "failed", "running"]  # type: ignore
    for number, state in enumerate(states):
        score = 0.3 + 0.1 * number if state in records.DONE and number < 4 else 0.2
        params = {"optimizer.lr": f"{10 ** (-4 + number / 3):.6g}", "head": "ab"[number % 2]}
        reasons = {"stopped": "worse than the median", "failed": f"the loss is {NASTY}"}
        path = folder / str(number)
        path.mkdir()
        trial = Trial(
            number, state, tuple(f"{k}={v}" for k, v in params.items()), params,
            objective=score if state in records.DONE else None, reason=reasons.get(state),
            fault="error" if state == "failed" else None, process=records.Process.this(),
            started=1.7e9 + number, wall_s=60.0 + number,
            command=f"python -m scene_track.train optimizer.lr={params['optimizer.lr']}",
        )  # fmt: skip
        records.write(path, trial)
        epochs = {"complete": 4, "stopped": 2}.get(state, 1)
        with (path / "metrics.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "epoch", "train/loss", "val/hota", "lr/base"])
            for epoch in range(epochs):
                rows.writerow([10 * epoch, epoch, 1 / (epoch + 1), "", 0.1])
                rows.writerow([10 * epoch + 9, epoch, "", score * (epoch + 1) / 4, ""])
            file.write("7")  # torn by a kill
        metrics = {"val/hota": {"best": score}, "val/loss": {"best": 1 - score, "last": None}}
        if state != "running":
            (path / "summary.json").write_text(json.dumps({"metrics": metrics}))
    return folder


def test_csv_and_json_have_every_trial(sweep: Path) -> None:
    report(sweep)
    with (sweep / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows].count("complete") == 4 and len(rows) == 7
    assert float(rows[3]["val/hota"]) == pytest.approx(0.6) and rows[5]["val/hota"] == ""
    assert float(rows[3]["metric/val/loss"]) == pytest.approx(0.4)
    assert rows[1]["head"] == "b" and rows[1]["folder"] == "1"
    assert rows[1]["command"] == "python -m scene_track.train optimizer.lr=0.000215443"
    data = json.loads((sweep / "trials.json").read_text())
    assert data["best"] == 3 and data["monitor"] == "val/hota" and data["mode"] == "max"
    assert data["importance"]["optimizer.lr"]["trend"] == pytest.approx(1)
    assert data["trials"][5]["reason"].endswith(NASTY)


def test_the_table_of_the_terminal_is_sorted(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.run([f"sweep={sweep}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "state", "val/hota", "optimizer.lr", "head", "time"]
    assert lines[2].split()[:4] == ["3", "*", "complete", "0.6000"]
    assert [line.split()[0] for line in lines[3:9]] == ["2", "1", "0", "4", "5", "6"]
    assert "trial 5 failed: the loss is" in "\n".join(lines)
    assert "best (*): python -m scene_track.train optimizer.lr=0.001" in "\n".join(lines)


def test_the_page_needs_nothing_from_elsewhere(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)[^\"'+ ]*//|https?:|@import|url\(", text)
    assert NASTY not in text


def test_a_browser_shows_the_page(sweep: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs a browser to look at the page: apt-get install chromium")
    results = read_sweep(sweep)
    file = tmp_path / "report.html"
    text = page(results, as_data(results), [{"step": 7, "url": DOT}])
    # What went wrong, and what a click does, as a text that can be read from outside.
    watch = "<script>var wrong=[];onerror=m=>wrong.push(m);console.error=m=>wrong.push(m)</script>"
    click = """<script>
      const rows = () => [...document.querySelectorAll("#trials tbody tr:not(.why)")].map(
        r => r.dataset.t).join();
      const told = {first: rows()};
      document.querySelector('[data-sort="p:optimizer.lr"]').click(); told.sorted = rows();
      document.querySelector('[data-sort="p:optimizer.lr"]').click(); told.reversed = rows();
      document.getElementById("search").value = "head=a complete";
      document.getElementById("search").oninput(); told.filtered = rows();
      told.curves = document.querySelectorAll("#curves g[data-t]").length;
      told.lines = document.querySelectorAll("#parallel g[data-t]").length;
      told.dots = document.querySelectorAll("#slices circle").length;
      told.bars = document.querySelectorAll("#importance .bar").length;
      told.pictures = document.querySelectorAll("#pictures img").length;
      told.reason = document.querySelectorAll("b").length;
      document.title = JSON.stringify({...told, wrong});
    </script></body>"""
    file.write_text(text.replace("<head>", f"<head>{watch}").replace("</body>", click))
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=1000", f"file://{file}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)
    assert title, shown.stderr[-2000:]
    told = json.loads(title[1].replace("&amp;", "&"))
    assert told["wrong"] == []
    assert told["first"] == "3,2,1,0,4,5,6", "best first, without objective last"
    assert told["sorted"] == "0,1,2,3,4,5,6" and told["reversed"] == "6,5,4,3,2,1,0"
    assert told["filtered"] == "2,0", "sorted as before"
    assert (told["curves"], told["lines"], told["dots"], told["bars"]) == (7, 7, 10, 2)
    assert told["pictures"] == 1


def test_the_first_and_the_last_image_of_a_run_are_shown(tmp_path: Path) -> None:
    assert read_images(tmp_path) == []
    (tmp_path / "viz").mkdir()
    for epoch in (1, 2, 3):
        name = f"epoch_{epoch:03d}_step_{7 * epoch:06d}.png"
        (tmp_path / "viz" / name).write_bytes(base64.b64decode(DOT.partition(",")[2]))
    assert read_images(tmp_path) == [{"step": 7, "url": DOT}, {"step": 21, "url": DOT}]


def test_what_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: type sweep=FOLDER"):
        report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no trial"):
        report(tmp_path)
    for arguments in ([], ["sweeep=x"], ["sweep=a", "sweep=b"]):
        with pytest.raises(ValueError, match="type python -m scene_track.report sweep=FOLDER"):
            entry.run(arguments)


def test_a_sweep_without_an_objective_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text("monitor: {metric: val/hota, mode: min}\n")
    (tmp_path / "0").mkdir()
    records.write(tmp_path / "0", Trial(0, "complete", ("a=1",)).failed("no", "error"))
    assert report(tmp_path).is_file()
    assert json.loads((tmp_path / "trials.json").read_text())["best"] is None
