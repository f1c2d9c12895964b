"""Packages that are written for a test, importable while it runs."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scene_track.config.signature import find_target, read_signature


@pytest.fixture(scope="module")
def importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Writes files by name and makes their folder importable: ``importable({"mine.py": text})``."""
    before = set(sys.modules)
    folders: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:

        def write(files: Mapping[str, str]) -> Path:
            folder = tmp_path_factory.mktemp("importable")
            folders.append(folder)
            for name, text in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(textwrap.dedent(text))
            patch.syspath_prepend(str(folder))
            importlib.invalidate_caches()
            return folder

        yield write
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if any(str(folder) in file for folder in folders):
            del sys.modules[name]
    find_target.cache_clear()
    read_signature.cache_clear()
