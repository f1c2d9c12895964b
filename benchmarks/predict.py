"""Track a video into a folder: how fast beside the model alone, and does memory stay the same?

    python -m benchmarks.predict RUN video.mp4            # frames/s of everything and of the model
    python -m benchmarks.predict RUN --frames 20000       # a drawn video, memory on the way
    python -m benchmarks.predict RUN --frames 20000 --detections drawn   # RUN of model=association

Everything is reading, model, tracker, drawing and encoding side by side, as ``predict`` does it;
loading the checkpoint plays no part. The model alone has its images ready and nobody beside it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import scene_track
from scene_track.api import Speeds
from scene_track.data.footage import open_footage
from scene_track.predict import write_tracks
from scene_track.viz.clips import VideoWriter

ALONE = 64  # frames that the model is measured on


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw_video(path: Path, frames: int, detections: Path) -> None:
    """Two squares on a noisy floor, and a file of their boxes."""
    floor = np.random.default_rng(0).integers(60, 120, (64, 96, 3), dtype=np.uint8)
    with VideoWriter(path, "mp4", 25) as writer, detections.open("w") as file:
        for n in range(frames):
            image, x = floor.copy(), 2 * n % 80
            image[8:24, x : x + 16] = (220, 30, 30)
            image[40:52, 8:20] = (30, 200, 30)
            writer.write(image, n / 25)
            file.write(f"{n + 1},-1,{x},8,16,16,0.95\n{n + 1},-1,8,40,12,12,0.9\n")


def watch_memory(folder: Path, stop: threading.Event) -> None:
    """Print the memory of the process while the file of tracks grows."""
    while not stop.wait(10):
        size = sum(file.stat().st_size for file in folder.glob("tracks.json"))
        print(f"{time.strftime('%X')} tracks.json {size / 1e6:6.2f} MB, {resident_mib():.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--detections", choices=["drawn"])
    typed = parser.parse_args()
    run = scene_track.load(typed.run)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        video, boxes = typed.video, None
        if video is None:
            video = scratch / "drawn.mp4"
            draw_video(video, typed.frames, scratch / "boxes.txt")
            boxes = scratch / "boxes.txt" if typed.detections else None
        print(f"before: {resident_mib():.0f} MiB")
        stop = threading.Event()
        watch = threading.Thread(target=watch_memory, args=(scratch, stop), daemon=True)
        watch.start()
        footage = open_footage(video)
        done = write_tracks(
            run,
            footage,
            scratch,
            detections=boxes,
            video="mp4",
            width=1280,
            stop=threading.Event(),
        )
        stop.set()
        print(f"after: {resident_mib():.0f} MiB\n{done.summary}")
        images = [frame.image for frame in itertools.islice(open_footage(video).frames, ALONE)]
        speeds = Speeds()
        alone = open_footage(images, footage.frame_rate)
        for _ in run.follow(alone, ahead=False, detections=boxes, speeds=speeds):
            pass
        model = speeds.frames / speeds.model.busy_s
        print(f"everything {done.frames_per_second:.1f} frames/s, the model alone {model:.1f}")
        print(f"ratio: predict against the model alone: {done.frames_per_second / model:.2f}")


if __name__ == "__main__":
    main()
