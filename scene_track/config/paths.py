"""Where the configuration lies, in a checkout, an editable install and a wheel, from any folder.

A wheel carries ``conf/`` inside the package; a checkout has it beside the package.
"""

from __future__ import annotations

from pathlib import Path


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


def refuse_in_use(folder: Path, *, overwrite: bool, what: str) -> None:
    """Refuse an output folder that holds something.

    Raises:
        ValueError: it holds something and ``overwrite`` is false, or it is a file.
    """
    if folder.is_file():
        raise ValueError(f"output={folder} is a file, expected a folder: type output=FOLDER")
    if overwrite or not folder.exists() or not any(folder.iterdir()):
        return
    holds = min(entry.name for entry in folder.iterdir())
    raise ValueError(
        f"{folder} is not empty, it holds {holds}: type overwrite=true to replace {what} in it, or"
        " output=FOLDER"
    )
