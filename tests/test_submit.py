"""The submit command: from a checkpoint, from result files, and what stands in the way."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scene_track.submit import submit
from tests.compose import command

# A model of a few steps is sure of nobody.
EVERYBODY = ("tracker.birth=0.0", "tracker.exist_conf=0.0")


@pytest.fixture
def packed(run_folder: Path, tmp_path: Path, composed: Callable) -> Path:
    """The zip of a checkpoint; its result files lie in the folder of that name."""
    path = tmp_path / "new" / "s.zip"
    submit(composed("submit", f"checkpoint={run_folder}", f"output={path}", *EVERYBODY))
    return path


def test_the_tracks_of_a_checkpoint_and_of_its_files_are_packed_alike(
    packed: Path, tiny_dance: list[str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["tracker/dance0001.txt"]  # of the split without truth
        assert len(archive.read("tracker/dance0001.txt").splitlines()) >= 10
    folder = packed.with_suffix("")
    done = command(
        "submit", [f"predictions={folder}", "dataset=synthetic_dance", *tiny_dance], tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    again = packed.parent / "submission_test.zip"
    assert again.read_bytes() == packed.read_bytes()
    assert done.stdout.startswith(f"{again}: 1 sequences, 10 frames, ")


def test_what_exists_stays_unless_told(
    packed: Path, run_folder: Path, composed: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("submit", f"checkpoint={run_folder}", f"output={packed}", *EVERYBODY)
    before = packed.read_bytes()
    with pytest.raises(ValueError, match=r"s.zip exists: type overwrite=true"):
        submit(composed(*typed))
    packed.unlink()
    with pytest.raises(ValueError, match=r"1 result files and there is no s.zip .*stopped"):
        submit(composed(*typed))
    submit(composed(*typed, "overwrite=true"))
    assert packed.read_bytes() == before
    assert "read back and sound" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "neither of checkpoint and predictions typed: type checkpoint=RUN_OR_CKPT"),
        (["checkpoint={run}", "predictions={run}"], "both of checkpoint and predictions typed"),
        (["checkpoint={run}", "output=x.tar"], "output=x.tar: expected a zip file, type output="),
        (["predictions={run}"], "whose sequences are these? Type dataset=OPTION too"),
    ],
)
def test_wrong_commands_say_what_to_type(
    words: list[str], message: str, run_folder: Path, composed: Callable
) -> None:
    typed = [word.format(run=run_folder) for word in words]
    with pytest.raises(ValueError, match=re.escape(message)):
        submit(composed("submit", *typed))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no result file .* type predictions="),
        ({"x": ""}, "no result file for 1 of 1 sequences: dance0001.txt; put them there"),
        ({"dance0001": "", "x": ""}, "no sequence of the test split for x.txt, expected only"),
        ({"dance0001": "11,1,2,3,4,5,1\n"}, r"frame is 11, expected 1 to 10 \(seqLength\)"),
        ({"dance0001": "1,0,2,3,4,5\n"}, "is not written: .* expected identities from 1"),
        ({"dance0001": "1,1,2,3,0,5\n"}, "is not written: .* a width and height above 0"),
    ],
)
def test_result_files_that_cannot_be_packed(
    files: dict[str, str],
    message: str,
    tmp_path: Path,
    tiny_dance: list[str],
    composed: Callable,
) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    typed = [f"predictions={folder}", "dataset=synthetic_dance", *tiny_dance]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        submit(composed("submit", *typed))
    assert list(tmp_path.iterdir()) == [folder]


def test_unsorted_rows_are_sorted_and_an_empty_file_is_warned_of(
    tmp_path: Path,
    tiny_dance: list[str],
    composed: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, output = tmp_path / "found", tmp_path / "s.zip"
    folder.mkdir()
    (folder / "dance0001.txt").write_text("2,1,2,3,4,5,1\n1,2,2,3,4,5,1\n1,1,2,3,4,5,1\n")
    typed = [
        f"predictions={folder}",
        f"output={output}",
        "overwrite=true",
        "dataset=synthetic_dance",
        *tiny_dance,
    ]
    submit(composed("submit", *typed))
    with zipfile.ZipFile(output) as archive:
        rows = archive.read("tracker/dance0001.txt").decode().splitlines()
    assert [row[:3] for row in rows] == ["1,1", "1,2", "2,1"]
    assert "nothing was found" not in caplog.text
    (folder / "dance0001.txt").write_text("\n")
    submit(composed("submit", *typed))
    assert "nothing was found in 1 of 1 sequences: dance0001; the server accepts" in caplog.text
