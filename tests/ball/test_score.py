"""``score`` on a ball: from CSV files on disk to figures, and one line when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from scene_track.score import score
from tests.compose import compose_run

HEADER = "file name,visibility,x-coordinate,y-coordinate,status\n"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two clips, and what was found in them: half of it right."""
    truth, found = tmp_path / "truth", tmp_path / "tracks"
    found.mkdir()
    for clip, offset in (("Clip1", 0), ("Clip2", 9)):
        folder = truth / "game1" / clip
        folder.mkdir(parents=True)
        rows, results = [HEADER], ["frame,visibility,x,y,confidence\n"]
        for n in range(4):
            Image.new("RGB", (64, 36)).save(folder / f"{n:04d}.jpg")
            rows.append(f"{n:04d}.jpg,1,{10 + n}.5,12,0\n" if n else "0000.jpg,0,,,0\n")
            results.append(f"{n},1,{10.5 + n + offset},12,0.9\n" if n else "0,0,,,0.1\n")
        (folder / "Label.csv").write_text("".join(rows))
        (found / f"game1_{clip}.csv").write_text("".join(results))
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


def test_writes_the_figures_of_every_clip(folders, capsys) -> None:
    run(arguments(folders))
    scores = json.loads(folders[2].read_text())
    first, second = (scores["sequences"][f"game1_{clip}"] for clip in ("Clip1", "Clip2"))
    assert first["pck_2"] == 1 and first["l2_median"] == 0 and first["f1_wasb"] == 1
    assert second["pck_5"] == 0 and second["pck_10"] == 1 and second["l2_mean"] == 9
    assert scores["combined"]["pck_5"] == 0.5 and scores["combined"]["fp1_wasb"] == 3
    assert scores["combined"]["visibility_accuracy"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["sequence", "pck_2"]
    assert lines[-2].split()[0] == "COMBINED" and lines[-2].split()[1] == "50.00"


def test_one_game_or_one_clip_may_be_scored(folders) -> None:
    truth, found, output = folders
    run(arguments((truth / "game1", found, output)))
    (found / "game1_Clip2.csv").unlink()
    run(arguments((truth / "game1" / "Clip1", found, output), "overwrite=true"))
    assert list(json.loads(output.read_text())["sequences"]) == ["game1_Clip1"]


def test_the_folder_one_is_in_may_be_scored(folders, monkeypatch) -> None:
    truth, found, output = folders
    monkeypatch.chdir(truth / "game1")
    run(arguments((Path("."), found, output)))
    assert list(json.loads(output.read_text())["sequences"]) == ["game1_Clip1", "game1_Clip2"]
    monkeypatch.chdir(truth / "game1" / "Clip1")
    run(arguments((Path(".."), found, output), "overwrite=true"))


def test_a_bad_row_is_told_without_options_that_score_has_not(folders) -> None:
    label = folders[0] / "game1" / "Clip1" / "Label.csv"
    label.write_text(label.read_text().replace("0002.jpg,1,12.5", "0002.jpg,1,99"))
    line = fails(arguments(folders))
    assert "line 4: x is 99, outside" in line and "on_error" not in line


def test_nothing_found_at_all_is_written_as_null(folders, capsys) -> None:
    for file in folders[1].iterdir():
        file.write_text("Frame,Visibility,X,Y\n" + "".join(f"{n},0,0,0\n" for n in range(4)))
    run(arguments(folders))
    assert json.loads(folders[2].read_text())["combined"]["l2_median"] is None
    assert capsys.readouterr().out.splitlines()[-2].split()[-1] == "-"


def test_a_result_with_holes_is_named(folders) -> None:
    (folders[1] / "game1_Clip1.csv").write_text("frame,visibility,x,y\n0,0,,\n1,1,5,5\n3,1,5,5\n")
    error = fails(arguments(folders))
    assert "game1_Clip1.csv" in error and "1 fault: no row for 1 frames: 2" in error
    assert not folders[2].exists()


def test_missing_and_superfluous_files_are_named(folders) -> None:
    (folders[1] / "typo.csv").touch()
    assert "no ground truth for typo.csv" in fails(arguments(folders))
    (folders[1] / "typo.csv").unlink()
    (folders[1] / "game1_Clip2.csv").unlink()
    assert "1 of 2 sequences: game1_Clip2.csv" in fails(arguments(folders))
    for file in folders[1].iterdir():
        file.rename(file.with_suffix(".txt"))
    assert "no result file (.csv) in it, type predictions=FOLDER_OF_CSV" in fails(
        arguments(folders)
    )


def test_ground_truth_that_is_not_whole(folders) -> None:
    label = folders[0] / "game1" / "Clip2" / "Label.csv"
    label.write_text(f"{HEADER}0000.jpg,1,70,12,0\n")
    assert "line 2: x is 70, outside the image (64x36 pixels)" in fails(arguments(folders))
    label.unlink()
    assert "Label.csv: no such file" in fails(arguments(folders))
    for file in (folders[0] / "game1").glob("*/*.*"):
        file.unlink()
    error = fails(arguments(folders))
    assert "or <game>/<clip>/Label.csv of a ball" in error
