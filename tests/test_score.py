"""The scoring command: its figures, its table, and one line for everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scene_track.score import main

GOLDEN = Path(__file__).parent / "golden" / "mot_metrics"
CASES = ("small_a_noise", "small_d_zero_marked_bignoise", "small_e_exact_ties", "edge_empty_pred")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Ground truth and predictions of a few golden cases in the layout of the challenge."""
    truth, found = tmp_path / "truth", tmp_path / "tracks"
    found.mkdir()
    for case in CASES:
        (truth / case / "gt").mkdir(parents=True)
        shutil.copy(GOLDEN / case / "gt.txt", truth / case / "gt" / "gt.txt")
        shutil.copy(GOLDEN / case / "seqinfo.ini", truth / case / "seqinfo.ini")
        shutil.copy(GOLDEN / case / "pred.txt", found / f"{case}.txt")
    return truth, found, tmp_path / "scores.json"


def arguments(folders: tuple[Path, Path, Path], *more: str) -> list[str]:
    truth, found, output = folders
    return [f"ground_truth={truth}", f"predictions={found}", f"output={output}", *more]


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a failing call leaves on stderr."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("score: ") and err.count("\n") == 1
    return err


def test_writes_the_figures_of_every_sequence(folders, capsys) -> None:
    assert main(arguments(folders)) == 0
    scores = json.loads(folders[2].read_text())
    assert set(scores) == {"combined", "sequences", "benchmark"}
    assert set(scores["sequences"]) == set(CASES)
    for case in CASES:
        expected = json.loads((GOLDEN / case / "expected.json").read_text())
        for key in ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "IDR", "MOTA", "MOTP"):
            assert scores["sequences"][case][key] == pytest.approx(expected[key], abs=1e-9)
        for key in ("IDSW", "FP", "FN", "TP", "Frag", "MT", "PT", "ML", "IDTP"):
            assert scores["sequences"][case][key] == expected[key]
    for key in ("IDSW", "FP", "FN"):
        parts = (figures[key] for figures in scores["sequences"].values())
        assert scores["combined"][key] == sum(parts)
    assert scores["combined"].keys() == scores["sequences"][CASES[0]].keys()


def test_prints_an_aligned_table_in_percent(folders, capsys) -> None:
    assert main(arguments(folders)[:2]) == 0
    *lines, rules = capsys.readouterr().out.splitlines()
    assert rules == "benchmark: dancetrack (by the ground truth)"
    assert lines[0].split()[:2] == ["sequence", "HOTA"]
    assert len({len(line) for line in lines}) == 1
    row = next(line for line in lines if line.startswith("small_a_noise"))
    assert row.split()[1] == "75.36"
    assert lines[-1].startswith("COMBINED")
    assert not folders[2].exists()


def test_distractors_of_mot17_cost_nothing(folders, capsys) -> None:
    """Every box of a sequence found twice: once as it is, once where a statue stands."""
    truth, found, _ = folders
    for case in CASES[1:]:
        shutil.rmtree(truth / case)
        (found / f"{case}.txt").unlink()
    (truth / CASES[0] / "gt" / "gt.txt").write_text("1,1,0,0,9,9,1,1,1\n1,2,50,0,9,9,0,7,1\n")
    (found / f"{CASES[0]}.txt").write_text("1,1,0,0,9,9,1,-1,-1,-1\n1,2,50,0,9,9,1,-1,-1,-1\n")
    for words, false in ((("benchmark=dancetrack",), 1), (("overwrite=true",), 0)):
        assert main(arguments(folders, *words)) == 0
        scores = json.loads(folders[2].read_text())
        assert scores["combined"]["FP"] == false
    assert "benchmark: mot17 (by the ground truth)" in capsys.readouterr().out
    assert "mot18" in fails(arguments(folders, "overwrite=true", "benchmark=mot18"), capsys)


def test_order_of_frames_does_not_matter(folders) -> None:
    """Within a frame the order stays: exact ties are decided by it, in every implementation."""
    assert main(arguments(folders)) == 0
    before = json.loads(folders[2].read_text())
    for file in folders[1].iterdir():
        rows = file.read_text().splitlines()
        backwards = sorted(rows, key=lambda row: -int(row.split(",")[0]))
        file.write_text("\n\n".join(backwards))
    assert main(arguments(folders, "overwrite=true")) == 0
    after = json.loads(folders[2].read_text())
    assert after == before


def test_an_output_that_exists_stays_unless_told(folders, capsys) -> None:
    folders[2].write_text("mine")
    assert "exists, type overwrite=true" in fails(arguments(folders), capsys)
    assert folders[2].read_text() == "mine"
    assert main(arguments(folders, "overwrite=true")) == 0
    assert "combined" in json.loads(folders[2].read_text())


def test_a_missing_prediction_file_is_named_but_an_empty_one_is_fine(folders, capsys) -> None:
    (folders[1] / "small_a_noise.txt").unlink()
    message = fails(arguments(folders), capsys)
    assert "1 of 4 sequences: small_a_noise.txt" in message and "empty file" in message
    assert not folders[2].exists()
    (folders[1] / "small_a_noise.txt").touch()
    assert main(arguments(folders)) == 0


def test_a_prediction_without_ground_truth_is_named(folders, capsys) -> None:
    (folders[1] / "typo.txt").touch()
    assert "no ground truth for typo.txt" in fails(arguments(folders), capsys)


def test_wrong_rows_are_named_with_file_and_line(folders, capsys) -> None:
    file = folders[1] / "small_a_noise.txt"
    first = file.read_text().splitlines()[0]
    file.write_text(f"{first}\n{first}\n")
    message = fails(arguments(folders), capsys)
    assert "small_a_noise.txt: 1 fault: line 2: id" in message
    file.write_text("999,1,0,0,5,5,1,-1,-1,-1\n")
    assert "line 1: frame is 999, expected 1 to 60 (seqLength)" in fails(arguments(folders), capsys)


def test_incomplete_ground_truth_is_named(folders, capsys) -> None:
    (folders[0] / "small_a_noise" / "seqinfo.ini").unlink()
    assert "seqinfo.ini: no such file" in fails(arguments(folders), capsys)
    (folders[0] / "small_e_exact_ties" / "gt" / "gt.txt").unlink()
    assert "no gt/gt.txt in small_e_exact_ties" in fails(arguments(folders), capsys)


def test_wrong_folders_say_what_was_expected(folders, tmp_path, capsys) -> None:
    truth, found, output = folders
    swapped = fails(arguments((found, truth, output)), capsys)
    assert "holds no sequence, expected <seq>/gt/gt.txt" in swapped
    inside = fails(arguments((truth / "small_a_noise", found, output)), capsys)
    assert f"type ground_truth={truth}" in inside
    assert "no such folder" in fails(arguments((tmp_path / "x", found, output)), capsys)
    assert "no such folder" in fails(arguments((truth, tmp_path / "x", output)), capsys)
    assert "is a folder" in fails(arguments((truth, found, tmp_path)), capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "ground_truth is missing, type ground_truth=DIR"),
        (["ground_truth=x"], "predictions is missing"),
        (["ground_thruth=x"], "unknown key 'ground_thruth', did you mean ground_truth?"),
        (["seed=1"], "unknown key 'seed' (keys: ground_truth"),
        (["ground_truth="], "expected key=value"),
        (["--predictions"], "expected key=value"),
        (["predictions=x", "predictions=y"], "predictions is given twice"),
        (["ground_truth=x", "predictions=x", "overwrite=yes"], "expected true or false"),
    ],
)
def test_wrong_arguments(words: list[str], message: str, capsys) -> None:
    assert message in fails(words, capsys)


def test_runs_as_a_module_and_explains_itself(folders, tmp_path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scene_track.score", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    explained = run("--help")
    assert explained.returncode == 0 and "predictions=DIR" in explained.stdout
    wrong = run("predictions=nowhere")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    fine = run(*arguments(folders))
    assert fine.returncode == 0 and folders[2].exists()
