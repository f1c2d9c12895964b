"""The campaign of faults: ``python -m tests.faults.campaign [part=count ...]``.

    python -m tests.faults.campaign                         # all parts
    python -m tests.faults.campaign images=1000             # one part with its number
    python -m tests.faults.campaign training=50 workers=2   # with two loading processes

Prints one line per part, which docs/reliability.md quotes. ``tests/faults/test_faults.py`` is the
short version.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from scene_track.data.video import MotFolder
from tests.faults import kills, malformed

PARTS = {
    "images": 1000,
    "malformed": 200,
    "cache": 50,
    "training": 50,
    "sweep": 50,
    "export": 50,
    "predict": 50,
}
SEED = 1


def run(part: str, count: int, workers: int, folder: Path) -> str:
    """One part; a line about it."""
    if part == "images":
        return "; ".join(malformed.damaged_images(folder, kind, count) for kind in ("jpeg", "png"))
    if part == "malformed":
        return "; ".join(
            f"{kind} {malformed.campaign(kind, folder, count)}" for kind in malformed.KINDS
        )
    if part == "training":
        return str(kills.training(folder, count, workers, SEED))
    if part == "sweep":
        return str(kills.sweep(folder, count, SEED))
    trained = [*kills.MINIMAL, *kills.dataset(folder / "data"), f"hydra.run.dir={folder / 'run'}"]
    job = kills.command("train", trained, folder)
    assert kills.end(kills.start(job, folder / "log"), 600) == 0, (folder / "log").read_text()
    root = next((folder / "data").glob("v*"))
    if part == "cache":
        videos = MotFolder(root=root, classes={1: "person"}).sequences("train")
        return str(kills.cache(folder, videos, count, SEED))
    words = [f"checkpoint={folder / 'run'}"]
    words += ["format=safetensors"] if part == "export" else [f"source={next(root.glob('val/*'))}"]
    return str(
        kills.command_with_files(folder, part, words, folder / "files", count, SEED),
    )


def main() -> None:
    """The command line."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    workers = int(words.pop("workers", "0"))
    parts = {part: int(count) for part, count in words.items()} or PARTS
    if unknown := parts.keys() - PARTS.keys():
        sys.exit(f"unknown part {', '.join(unknown)}; there are {', '.join(PARTS)}, workers")
    for part, count in parts.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            line = run(part, count, workers, Path(folder))
        print(f"{part}: {line} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
