"""The code that a network's features come from, as hashes of its files.

Special here: an installed package has a version that says what its code is; a checkout (this
project, Meta's DINOv3, a person's own backbone) has none, or one that nobody raises with every
change. So the files themselves count, by their content and not by where they lie: two machines with
the same code agree.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

_OURS = __name__.partition(".")[0]
_LIBRARY = tuple(
    Path(folder).resolve()
    for key in ("stdlib", "platstdlib")
    if (folder := sysconfig.get_paths().get(key))
)


def source_digests(network: nn.Module) -> dict[str, str]:
    """SHA-256 of the files without a version that a network's classes are made of.

    These are the files of the classes of all its modules, of what those inherit from, and of the
    classes, functions and modules that such a file names at its top level, and so on. Files of
    installed packages and of Python itself are left out; this project's own always count.

    Args:
        network: a built network.

    Returns:
        The first 16 digits of each file's hash by the name of its module, sorted.
    """
    waiting = [kind.__module__ for part in network.modules() for kind in type(part).__mro__]
    digests: dict[str, str] = {}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module = sys.modules.get(name)
        file = None if module is None else _file_of(module)
        if module is None or file is None:
            continue
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        waiting += _named_by(module)
    return dict(sorted(digests.items()))


def _file_of(module: ModuleType) -> Path | None:
    """The file of a module that has no version to go by."""
    name = getattr(module, "__file__", None)
    if name is None:  # built in, or typed at a prompt
        return None
    file = Path(name)
    if module.__name__.partition(".")[0] == _OURS:
        return file
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    library = any(file.resolve().is_relative_to(folder) for folder in _LIBRARY)
    return None if installed or library else file


def _named_by(module: ModuleType) -> Iterator[str]:
    """Modules of what a module's top level names."""
    # A package also holds those of its modules that happen to be imported by now.
    package = hasattr(module, "__path__")
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            if not package and not hasattr(value, "__path__"):
                yield value.__name__
        elif callable(value):
            home: Any = getattr(value, "__module__", None)
            if isinstance(home, str):
                yield home
