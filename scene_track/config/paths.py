"""Where the configuration lies, in a checkout, an editable install and a wheel, from any folder.

A wheel carries ``conf/`` inside the package; a checkout has it beside the package.
"""

from __future__ import annotations

from pathlib import Path


def config_dir() -> str:
    """Absolute path of the folder that holds ``config.yaml``.

    Returns:
        The first of ``<package>/conf`` and ``<package>/../conf`` that holds a ``config.yaml``.

    Raises:
        FileNotFoundError: neither does.
    """
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "conf", package.parent / "conf")
    for candidate in candidates:
        if (candidate / "config.yaml").is_file():
            return str(candidate)
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"no config.yaml: looked in {looked}; install the package again (pip install -e .)"
    )
