"""Curves: what is read from metrics.csv, and errors that say what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene_track.viz.curves import find_runs, main, read_curve, run

# as the logger writes it: a row per moment, empty cells elsewhere
CSV = """epoch,step,train/loss,val/hota
0,9,3.5,
0,9,,0.10
1,19,2.5,
1,19,,0.30
2,29,nan,
2,29,,0.25
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("sweep/0", "sweep/1", "alone"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(CSV)
    return tmp_path


def test_empty_cells_and_nan_are_skipped(runs: Path) -> None:
    file = runs / "alone" / "metrics.csv"
    hota = read_curve(file, "val/hota", "epoch", "a")
    assert (hota.x, hota.y) == ([0, 1, 2], [0.10, 0.30, 0.25])
    loss = read_curve(file, "train/loss", "step", "a")
    assert (loss.x, loss.y) == ([9, 19], [3.5, 2.5])


def test_a_sweep_stands_for_its_runs_with_telling_labels(runs: Path) -> None:
    assert list(find_runs([runs / "sweep", runs / "alone"])) == ["0", "1", "alone"]
    (runs / "other" / "0").mkdir(parents=True)
    (runs / "other" / "0" / "metrics.csv").write_text(CSV)
    assert list(find_runs([runs / "sweep", runs / "other"])) == ["sweep/0", "sweep/1", "other/0"]
    twice = find_runs([runs / "alone", runs / "alone" / "metrics.csv"])
    assert list(twice) == ["alone"]


def test_plot_has_a_line_per_run(runs: Path) -> None:
    output = runs / "plots" / "hota.png"
    found = run([f"runs=[{runs}/alone]", "metric=val/hota", f"output={output}"])
    assert found == output
    with Image.open(output) as image:
        one = np.asarray(image.convert("RGB")).reshape(-1, 3)
    run(
        [
            f"runs=[{runs}/sweep]",
            "metric=[val/hota,train/loss]",
            "labels=[a,b]",
            "x=step",
            f"output={output}",
        ]
    )
    with Image.open(output) as image:
        two = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(two) > 1.5 * len(one)  # two panels
    orange = [255, 127, 14]  # the second run's colour
    assert (two == orange).all(1).any() and not (one == orange).all(1).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "metric=val/hotta"}, "no column 'val/hotta'; it has: epoch, step"),
        ({"metric": "metrik=val/hota"}, "unknown: metrik"),
        ({"metric": ""}, "missing: metric"),
        ({"x": "x=time"}, "no column 'time'"),
        ({"labels": "labels=[a,b]"}, "2 labels for 1 runs"),
        ({"labels": "labels=[a"}, "cannot read"),
        ({"runs": "runs=[/nowhere/at/all]"}, "no metrics.csv at /nowhere/at/all"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    runs: Path, changes: dict[str, str], message: str, monkeypatch, capsys
) -> None:
    words = {
        "runs": f"runs=[{runs}/alone]",
        "metric": "metric=val/hota",
        "output": f"output={runs}/x.png",
    }
    arguments = [word for word in {**words, **changes}.values() if word]
    monkeypatch.setattr("sys.argv", ["curves", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed and "\n" not in printed
    assert not (runs / "x.png").exists()
