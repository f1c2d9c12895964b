from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scene_track.compare import compare
from scene_track.config import paths
from scene_track.evaluate import evaluate
from scene_track.export import export
from scene_track.io.atomic import held
from scene_track.submit import submit


def _fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "scene_track"
    (package / "config").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "config" / "paths.py"))
    return package


def test_conf_inside_the_package_wins_as_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _fake_package(tmp_path, monkeypatch)
    for folder in (package / "conf", package.parent / "conf"):
        folder.mkdir()
        (folder / "config.yaml").touch()
    assert Path(paths.config_dir()) == package / "conf"


def test_a_conf_folder_of_somebody_else_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_fake_package(tmp_path, monkeypatch).parent / "conf").mkdir()
    with pytest.raises(FileNotFoundError, match="install the package again"):
        paths.config_dir()


@pytest.mark.parametrize("command", [compare, evaluate, export, submit])
def test_an_output_that_another_command_writes_is_refused(tmp_path: Path, command) -> None:
    (tmp_path / "a.ckpt").touch()
    output = tmp_path / "o"
    cfg = OmegaConf.create(
        {
            "checkpoint": str(tmp_path / "a.ckpt"),
            "output": f"{output}.zip" if command is submit else str(output),
            "overwrite": True,
            "split": "val",
            "format": "onnx",
            "predictions": None,
        }
    )
    with held(output, "output"), pytest.raises(ValueError, match="held"):
        command(cfg)


def test_an_output_that_appears_when_it_is_complete_is_not_there_before(tmp_path: Path) -> None:
    known = {"overwrite": False, "what": "a test", "appears": True}
    again = pytest.raises(ValueError, match="output=FOLDER")
    (tmp_path / ".o.lock").mkdir()  # of a command that was killed
    with paths.output_folder(tmp_path / "o", **known):
        assert not (tmp_path / "o").exists()
        with again, paths.output_folder(tmp_path / "o", **known):
            pass
    assert not any(tmp_path.iterdir())
