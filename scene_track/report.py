"""Report on a sweep: ``python -m scene_track.report sweep=DIR``.

Writes trials.csv, trials.json and one self-contained page, report.html, into the sweep's folder,
and prints the trials, best first. A --multirun does the same at its end. Takes about two seconds;
needs no torch, and no network to look at.

    python -m scene_track.report sweep=outputs/sweeps/synthetic_dance_scene/2026-01-01_12-00-00
    tensorboard --logdir outputs/sweeps/synthetic_dance_scene/2026-01-01_12-00-00
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from scene_track.config.shell import settle

_EXPECTED = "type python -m scene_track.report sweep=FOLDER"


def run(arguments: Sequence[str]) -> Path:
    """Do what a command line says."""
    from scene_track.sweeps.report import report

    start = "sweep="
    for word in arguments:
        if not word.startswith(start):
            raise ValueError(f"{word}: unknown; {_EXPECTED}")
    folders = [word.removeprefix(start) for word in arguments if word != start]
    if len(folders) != 1:
        raise ValueError(f"one sweep is required, found {len(folders)}: {_EXPECTED}")
    return report(Path(folders[0]))


def main() -> None:
    """Entry point: one line for an error, exit code 2."""
    settle()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    try:
        run(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
