from __future__ import annotations

from pathlib import Path

import pytest

from scene_track.config import paths


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
