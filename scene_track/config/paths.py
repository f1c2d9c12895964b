"""Where the configuration lies, in a checkout, an editable install and a wheel, from any folder.

A wheel carries ``conf/`` inside the package; a checkout has it beside the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scene_track.io.atomic import held


def config_dir() -> str:
    """Absolute path of the folder that holds ``config.yaml``."""
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "conf", package.parent / "conf")
    for candidate in candidates:
        if (candidate / "config.yaml").is_file():
            return str(candidate)
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"no config.yaml: looked in {looked}; install the package again (pip install -e .)"
    )


@contextmanager
def output_folder(
    folder: Path, *, overwrite: bool, what: str, appears: bool = False
) -> Iterator[None]:
    """Keeps an output folder for one command at a time; see ``held``.

    With ``appears`` the folder is not there before the command puts it there, complete.

    Raises:
        ValueError: another command holds it, it holds something and ``overwrite`` is false, or it
            is a file.
    """
    if folder.is_file():
        raise ValueError(f"output={folder} is a file, expected a folder: type output=FOLDER")
    lock = folder.parent / f".{folder.name}.lock" if appears else folder
    with held(lock, "output"):
        holds = min((entry.name for entry in folder.glob("*")), default=None)
        if holds is not None and not overwrite:
            raise ValueError(
                f"{folder} is not empty, it holds {holds}: type overwrite=true to replace {what} in"
                " it, or output=FOLDER"
            )
        try:
            yield
        finally:
            if appears:  # also one that a killed command has left
                with suppress(OSError):
                    lock.rmdir()
