"""The scoring command: its figures, its table, and one line for everything that can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scene_track.score import score
from tests.compose import command, compose_run

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


def run(words: list[str]) -> None:
    score(compose_run(words, "score"))


def fails(words: list[str]) -> str:
    """The one line that a call fails with."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        run(words)
    return str(caught.value)


def test_writes_the_figures_of_every_sequence(folders) -> None:
    run(arguments(folders))
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
    run(arguments(folders)[:2])
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
        run(arguments(folders, *words))
        scores = json.loads(folders[2].read_text())
        assert scores["combined"]["FP"] == false
    assert "benchmark: mot17 (by the ground truth)" in capsys.readouterr().out


def test_an_output_that_exists_stays_unless_told(folders) -> None:
    folders[2].write_text("mine")
    assert "exists, type overwrite=true" in fails(arguments(folders))
    assert folders[2].read_text() == "mine"
    run(arguments(folders, "overwrite=true"))
    assert "combined" in json.loads(folders[2].read_text())


def test_a_missing_prediction_file_is_named_but_an_empty_one_is_fine(folders) -> None:
    (folders[1] / "small_a_noise.txt").unlink()
    message = fails(arguments(folders))
    assert "1 of 4 sequences: small_a_noise.txt" in message and "empty file" in message
    assert not folders[2].exists()
    (folders[1] / "small_a_noise.txt").touch()
    run(arguments(folders))


def test_a_prediction_without_ground_truth_is_named(folders) -> None:
    (folders[1] / "typo.txt").touch()
    assert "no ground truth for typo.txt" in fails(arguments(folders))


def test_wrong_rows_are_named_with_file_and_line(folders) -> None:
    file = folders[1] / "small_a_noise.txt"
    first = file.read_text().splitlines()[0]
    file.write_text(f"{first}\n{first}\n")
    message = fails(arguments(folders))
    assert "small_a_noise.txt: 1 fault: line 2: id" in message
    file.write_text("999,1,0,0,5,5,1,-1,-1,-1\n")
    assert "line 1: frame is 999, expected 1 to 60 (seqLength)" in fails(arguments(folders))


def test_incomplete_ground_truth_is_named(folders) -> None:
    (folders[0] / "small_a_noise" / "seqinfo.ini").unlink()
    assert "seqinfo.ini: no such file" in fails(arguments(folders))
    (folders[0] / "small_e_exact_ties" / "gt" / "gt.txt").unlink()
    assert "no gt/gt.txt in small_e_exact_ties" in fails(arguments(folders))


def test_wrong_folders_say_what_was_expected(folders, tmp_path) -> None:
    truth, found, output = folders
    swapped = fails(arguments((found, truth, output)))
    assert "holds no sequence, expected <seq>/gt/gt.txt" in swapped
    inside = fails(arguments((truth / "small_a_noise", found, output)))
    assert f"type ground_truth={truth}" in inside
    assert "no such folder" in fails(arguments((tmp_path / "x", found, output)))
    assert "no such folder" in fails(arguments((truth, tmp_path / "x", output)))
    assert "is a folder" in fails(arguments((truth, found, tmp_path)))


def test_runs_as_a_module_and_explains_itself(folders, tmp_path) -> None:
    explained = command("score", ["--help"], tmp_path)
    assert explained.returncode == 0 and "predictions" in explained.stdout
    wrong = command("score", ["predictions=x"], tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.startswith("ground_truth is required")
    fine = command("score", arguments(folders), tmp_path)
    assert fine.returncode == 0 and folders[2].exists()
    assert {path.name for path in tmp_path.iterdir()} == {"truth", "tracks", "scores.json"}
