"""The command ``scene-track VERB …``: each verb runs the entry point ``scene_track.VERB``.

``scene-track train seed=2``, ``python -m scene_track train seed=2`` and
``python -m scene_track.train seed=2`` do the same. Nothing is imported before the verb is known.
"""

from __future__ import annotations

import difflib
import runpy
import sys

from scene_track import __version__

VERBS = {
    "train": "Train a model, or many with --multirun",
    "evaluate": "Track whole videos with a checkpoint and score the tracks",
    "predict": "Track a video with a checkpoint and draw the tracks",
    "compare": "Compare a checkpoint's tracker with known ones on the same detections",
    "submit": "Pack tracks for the DanceTrack server",
    "export": "Write a checkpoint as ONNX or safetensors, for other programs",
    "score": "Score result files of any tracker against ground truth",
    "report": "Write the report of a sweep",
    "weights": "Say where DINOv3 weights belong, and check the files that are there",
}


def main() -> None:
    """The command line.

    Raises:
        SystemExit: with code 2 if the verb is missing or unknown, else with that of the verb.
    """
    verb = sys.argv[1] if len(sys.argv) > 1 else None
    if verb in ("-h", "--help"):
        print(_help())
    elif verb == "--version":
        print(f"scene_track {__version__}")
    elif verb is None:
        sys.exit(_refuse("no command"))
    elif verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sys.exit(_refuse(f"{verb}: unknown command{hint}"))
    else:
        del sys.argv[1]
        # As `python -m` does, so that logs, sweeps and worker processes name the same module.
        runpy.run_module(f"scene_track.{verb}", run_name="__main__", alter_sys=True)


def _help() -> str:
    lines = [f"  {verb:<10}{line}" for verb, line in VERBS.items()]
    return "\n".join(
        [
            "usage: scene-track COMMAND [key=value ...] [flags]",
            "",
            *lines,
            "",
            "scene-track COMMAND --help lists the options of a command.",
        ]
    )


def _refuse(what: str) -> int:
    print(f"scene-track: {what}; commands: {', '.join(VERBS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
