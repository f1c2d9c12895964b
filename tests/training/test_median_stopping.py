"""The median rule: whom it stops, when, and what it leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial
from scene_track.training.median_stopping import MedianStopping


def others(sweep: Path, *curves: Sequence[float], state: Any = "complete") -> None:
    """Trials with the curves that they left."""
    for values in curves:
        number = len(list(sweep.glob("*")))
        folder = sweep / str(number)
        folder.mkdir(parents=True)
        process = records.Process.this()
        records.write(folder, Trial(number, state, (), process=process))
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "epoch", "val/hota"])
            rows.writerows([10 * n, n, value] for n, value in enumerate(values))


def rule(sweep: Path, *, mode: Any = "max", min_trials: int = 3, warmup_epochs: int = 1):
    return MedianStopping(
        run_dir=str(sweep / "mine"),
        sweep_dir=str(sweep),
        monitor="val/hota",
        mode=mode,
        min_trials=min_trials,
        warmup_epochs=warmup_epochs,
    )


def epochs(tiny: Any, sweep: Path, scores: list[float], callback: MedianStopping) -> int:
    """How many epochs a run with these scores is given."""
    module = tiny.TinyModule(scores=scores)
    tiny.fit(sweep / "mine", module=module, extra=[callback], max_epochs=len(scores))
    summary = json.loads((sweep / "mine" / "summary.json").read_text())
    assert summary["status"] == "finished"
    return len({epoch for epoch, _ in module.seen})


def test_a_bad_trial_is_stopped_after_the_warm_up(tiny: Any, tmp_path: Path) -> None:
    others(tmp_path, [0.2, 0.4, 0.6], [0.3, 0.5, 0.7], [0.1, 0.2, 0.3])
    assert epochs(tiny, tmp_path, [0.15, 0.3, 0.9], rule(tmp_path)) == 2
    left = json.loads((tmp_path / "mine" / "stopped_early.json").read_text())
    assert left["reason"] == (
        "val/hota 0.3000 after epoch 2 is worse than the median 0.4000 of 3 other trials"
    )


def test_a_fair_trial_goes_on(tiny: Any, tmp_path: Path) -> None:
    """Its best so far counts, as that of the others does; as good as the median is not worse."""
    others(tmp_path, [0.2, 0.4, 0.5], [0.3, 0.5, 0.6], [0.1, 0.2, 0.3])
    for scores in ([0.5, 0.1, 0.1], [0.1, 0.4, 0.6]):
        assert epochs(tiny, tmp_path, scores, rule(tmp_path)) == 3
    assert not (tmp_path / "mine" / "stopped_early.json").exists()


def test_who_is_compared_with(tiny: Any, tmp_path: Path) -> None:
    others(tmp_path, [0.9, 0.9, 0.9])
    others(tmp_path, [0.9], [0.8], state="stopped")  # did not come so far
    others(tmp_path, [0.9, 0.9, 0.9], state="failed")
    others(tmp_path, [0.9, 0.9], state="running")
    assert epochs(tiny, tmp_path, [0.1, 0.1, 0.1], rule(tmp_path, min_trials=3)) == 3
    assert epochs(tiny, tmp_path, [0.1, 0.1, 0.1], rule(tmp_path, min_trials=2)) == 2


def test_where_less_is_better(tiny: Any, tmp_path: Path) -> None:
    others(tmp_path, [0.5, 0.4, 0.3], [0.6, 0.5, 0.4])
    callback = rule(tmp_path, mode="min", min_trials=2, warmup_epochs=0)
    assert epochs(tiny, tmp_path, [0.5, 0.46, 0.4], callback) == 2
