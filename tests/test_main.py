"""The command ``scene-track``: verbs, help, a mistyped verb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scene_track import __version__
from scene_track.__main__ import VERBS, main


def _call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scene-track", *words])
    try:
        main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def test_verbs_are_the_entry_points(repo_root: Path) -> None:
    files = (repo_root / "scene_track").glob("[!_]*.py")
    assert set(VERBS) == {file.stem for file in files} - {"api"}


def test_help_has_one_line_per_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    for verb, line in VERBS.items():
        assert f"  {verb:<10}{line}\n" in shown
    assert _call(monkeypatch, "--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["trian"], "trian: unknown command; did you mean train?"), ([], "no command")],
)
def test_a_wrong_verb_is_one_line_and_exit_code_2(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    def shown(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    # -X importtime lists on stderr what was imported
    helped = shown(sys.executable, "-X", "importtime", "-m", "scene_track", "--help")
    assert helped.returncode == 0
    assert not {"torch", "hydra"} & {
        line.split("|")[-1].strip() for line in helped.stderr.split("\n")
    }
    by_verb = shown(sys.executable, "-m", "scene_track", "train", "--cfg", "job", "seed=7")
    by_module = shown(sys.executable, "-m", "scene_track.train", "--cfg", "job", "seed=7")
    assert by_verb.returncode == 0 and "seed: 7" in by_verb.stdout
    assert by_verb.stdout == by_module.stdout
    wrong = shown(sys.executable, "-m", "scene_track", "train", "model.backbone.freez=true")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("model.backbone.freez: unknown key; did you mean model.back")
