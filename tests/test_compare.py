"""The comparison from the command line, on the run of two epochs that all such tests share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from scene_track.compare import compare
from scene_track.evaluate import evaluate
from tests.compose import command

Compared = tuple[subprocess.CompletedProcess[str], Path, list[str]]
QUICK = ["tuning_sequences=2", "tuning_combinations=3"]


@pytest.fixture(scope="module")
def compared(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """What was said, the folder it was written to, and what was typed."""
    folder = tmp_path_factory.mktemp("comparison")
    arguments = [f"checkpoint={run_folder}", f"output={folder / 'out'}", *QUICK]
    return command("compare", arguments, folder), folder / "out", arguments


def test_one_table_with_every_row(compared: Compared) -> None:
    done, folder, _ = compared
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((folder / "comparison.json").read_text())
    assert list(result["rows"]) == [
        "own tracker, causal",
        "own tracker, tuned",
        *(
            f"{name}, {what}"
            for name in ("SORT", "ByteTrack", "OC-SORT", "BoT-SORT", "C-BIoU")
            for what in ("stock", "tuned")
        ),
        "oracle association",
        "ByteTrack, tuned, on exact truth",
        "ByteTrack, tuned, on noisy truth",
    ]
    report = (folder / "comparison.md").read_text()
    assert report in done.stdout
    for name, row in result["rows"].items():
        assert f"| {name} " in report
        assert {"HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA", "IDSW", "FP", "FN"} <= row.keys()
        assert row["frames_per_second"] > 0
    noisy = result["rows"]["ByteTrack, tuned, on noisy truth"]
    assert "5% missed, 5% jitter, 0.2 false a frame" in noisy["boxes"]
    assert result["rows"]["ByteTrack, tuned, on exact truth"]["HOTA"] > 0.3
    assert result["epochs"] in ([1], [2]) and result["benchmark"] == "dancetrack"
    assert result["frames"] == 10
    assert result["precision"] in ("32-true", "bf16-mixed")
    # Against ByteTrack on noisy truth, tuned and stock.
    assert "60%" in report and len(result["ratios"]) == 3
    for ratio in result["ratios"].values():
        share = min(ratio["HOTA"] or 0, ratio["IDF1"] or 0)
        assert ratio["met"] == (share >= 0.6) or None in ratio.values()
    # As it is against the stock baselines, tuned against the tuned ones.
    assert len(result["differences"]) == 10 and result["spread"] is None
    for found in result["differences"]:
        own, other = result["rows"][found["own"]], result["rows"][found["against"]]
        assert found["HOTA"]["difference"] == pytest.approx(own["HOTA"] - other["HOTA"])
        assert found["HOTA"]["beyond_noise"] is None  # one run tells nothing of it


def test_thresholds_were_chosen_on_training_sequences(compared: Compared, run_folder: Path) -> None:
    result = json.loads((compared[1] / "comparison.json").read_text())
    (run,) = result["runs"]
    assert len(run["tuning"]) == 8
    for found in run["tuning"].values():
        assert found["tried"] == 3 and len(found["sequences"]) == 2
        assert found["hota"] >= found["stock_hota"]
    # What is to be typed for them is a command's words.
    report = (compared[1] / "comparison.md").read_text()
    chosen = run["tuning"]["own tracker, tuned"]["parameters"]
    assert f"`tracker.exist_conf={chosen['exist_conf']:g} " in report
    assert "`tracker=cbiou tracker.keep=" in report


def test_runs_of_several_seeds_give_mean_spread_and_noise(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    last = next((run_folder / "checkpoints").glob("last*.ckpt"))
    other = tmp_path / "other.ckpt"
    content = torch.load(last, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.startswith("model.identity") and value.is_floating_point():
            content["state_dict"][name] = value + 0.05 * torch.randn_like(value)
    torch.save(content, other)
    output = tmp_path / "o"
    typed = [f"checkpoint=[{run_folder},{other}]", f"output={output}", "baselines=[bytetrack]"]
    mean = compare(composed("compare", *typed, *QUICK, "clips=1", "clip_width=64"))
    result = json.loads((output / "comparison.json").read_text())
    own = [run["rows"]["own tracker, causal"]["HOTA"] for run in result["runs"]]
    assert len(own) == 2 and mean == pytest.approx(sum(own) / 2)
    spread = result["spread"]["own tracker, causal"]["HOTA"]
    assert spread == pytest.approx(abs(own[0] - own[1]) / 2**0.5)
    gains = [
        run["rows"]["own tracker, causal"]["HOTA"] - run["rows"]["ByteTrack, stock"]["HOTA"]
        for run in result["runs"]
    ]
    found = result["differences"][0]["HOTA"]
    # Student's t of one degree of freedom at 97.5 %.
    assert found["error"] == pytest.approx(12.706 * abs(gains[0] - gains[1]) / 2, rel=1e-3)
    assert found["beyond_noise"] == (abs(sum(gains) / 2) > found["error"])
    (clip,) = (output / "clips").iterdir()
    with Image.open(clip) as image:
        assert image.width == 2 * 64  # the two runs side by side


def test_the_same_run_twice_is_not_two_runs(run_folder: Path, composed: Callable) -> None:
    with pytest.raises(ValueError, match="different runs"):
        compare(composed("compare", f"checkpoint=[{run_folder},{run_folder}]"))


def test_the_models_own_row_is_what_evaluation_says(
    compared: Compared, run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    evaluate(composed("evaluate", f"checkpoint={run_folder}", f"output={tmp_path / 'e'}"))
    scores = json.loads((tmp_path / "e" / "metrics.json").read_text())["combined"]
    row = json.loads((compared[1] / "comparison.json").read_text())["rows"]["own tracker, causal"]
    for name in ("HOTA", "IDF1", "MOTA", "FN"):
        assert row[name] == pytest.approx(scores[name])


def test_nothing_is_overwritten_unless_asked(compared: Compared, composed: Callable) -> None:
    _, folder, arguments = compared
    before = (folder / "comparison.json").read_bytes()
    with pytest.raises(ValueError, match="holds comparison.json: type overwrite=true"):
        compare(composed("compare", *arguments))
    assert (folder / "comparison.json").read_bytes() == before


def test_a_split_without_ground_truth_is_refused_in_one_sentence(
    run_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = command(
        "compare", [f"checkpoint={run_folder}", "split=test", f"output={output}"], tmp_path
    )
    assert done.returncode == 2 and not output.exists()
    assert "compare needs ground truth" in done.stderr and "split=val" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_training_split_is_not_compared_on_under_any_name(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    typed = [f"checkpoint={run_folder}", f"output={tmp_path / 'out'}", "dataset.val=train"]
    with pytest.raises(ValueError, match="is also in the training split"):
        compare(composed("compare", *typed))


def test_a_lookahead_is_shown_beside_its_causal_self(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    typed = [f"checkpoint={run_folder}", f"output={tmp_path / 'out'}", "++tracker.lookahead=3"]
    quick = ["tuning_sequences=1", "tuning_combinations=1", "baselines=[bytetrack]"]
    compare(composed("compare", *typed, *quick))
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(result["rows"])[:2] == ["own tracker, causal", "own tracker, as configured"]
    assert len(result["ratios"]) == 6


def test_what_is_in_the_table_anyway_is_not_compared_with_itself(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    typed = ("compare", f"checkpoint={run_folder}", f"output={tmp_path}/o", "tracker=oracle")
    with pytest.raises(ValueError, match="OracleTracker.*type tracker=identity"):
        compare(composed(*typed))
