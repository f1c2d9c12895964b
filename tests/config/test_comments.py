"""Every option is in ``conf/`` with a comment: what README, `--help` and people rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scene_track.config.paths import config_dir

_CONF = Path(config_dir())
# The others change values of options that stand, with their comments, in a file of another group.
_FILES = [
    file
    for file in sorted(_CONF.rglob("*.yaml"))
    if not file.read_text(encoding="utf-8").startswith("# @package _global_")
]


def _leaves(file: Path) -> set[str]:
    """Names of the keys of a file that have a value."""
    return set(re.findall(r"^ *(\w+): *[^ #\n]", file.read_text(encoding="utf-8"), re.MULTILINE))


def _leaves_without_comment(file: Path) -> Iterator[str]:
    """Keys with a value of their own and no comment beside them or above them.

    A comment on a line of its own also speaks for the next keys, until one has a comment beside it.
    """
    covered = in_defaults = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("#"):
            covered = True
            continue
        if line and not line[0].isspace():
            in_defaults = line.startswith("defaults:")
        found = re.match(r"\s*(\w+): *(.*)", line)
        if found is None or in_defaults:
            covered = False
            continue
        key, value = found.groups()
        if key in ("_target_", "_partial_") or re.fullmatch(r"\$\{[^{}]*\}", value):
            continue  # which class; follows another key
        if "# " in value:
            covered = False
        elif not value:
            covered = False  # a node
        elif not covered:
            yield f"{number}: {line.strip()}"


@pytest.mark.parametrize("file", _FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_option_has_a_comment(file: Path) -> None:
    bases = file.parent.glob("_*.yaml")  # a comment in a base speaks for the files made from it
    known = {key for base in bases if base != file for key in _leaves(base)}
    bare = _leaves_without_comment(file)
    assert [line for line in bare if line.split(": ")[1] not in known] == []
