"""Track a video into a folder: how fast beside the model alone, and does memory stay the same?

    python -m benchmarks.predict RUN video.mp4 --repeats 5    # frames/s of everything, of the model
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import scene_track
from scene_track.api import Run, _boxes_of
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


@dataclass(frozen=True)
class Rate:
    """How fast a number of frames went.

    Attributes:
        wall: frames per second.
        cpu_ms: milliseconds of the processor per frame, all threads together.
    """

    wall: float
    cpu_ms: float


def whole(run: Run, video: Path, frames: int | None, folder: Path, boxes: Path | None) -> Rate:
    """Track the first frames of a video into a folder, as the command does."""
    footage = open_footage(video)
    footage.frames = itertools.islice(footage.frames, frames)
    cpu, stop = time.process_time(), threading.Event()
    done = write_tracks(run, footage, folder, detections=boxes, video="mp4", width=1280, stop=stop)
    cpu = time.process_time() - cpu
    size = (folder / "video.mp4").stat().st_size / 1e6
    print(f"{done.summary}, {size:.1f} MB of video")
    return Rate(done.frames_per_second, 1000 * cpu / done.last)


def alone(run: Run, video: Path, boxes: Path | None) -> Rate:
    """The model on the first frames of a video, whose images are ready; no tracker."""
    footage = open_footage(video)
    images = [frame.image for frame in itertools.islice(footage.frames, ALONE)]
    given = None if boxes is None else _boxes_of(boxes, footage)
    fitted = [(frame, run._fit(frame)) for frame in open_footage(images, footage.frame_rate).frames]
    parts = (fitted[n : n + run.window] for n in range(0, len(fitted), run.window))
    windows = [run._window(part, footage, run.window, given) for part in parts]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in run._detect(windows):
        pass
    count = len(fitted)
    return Rate(count / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, help="of the video; all, or 2000 drawn ones")
    parser.add_argument("--repeats", type=int, default=1, help="pairs; the medians are printed")
    parser.add_argument("--detections", choices=["drawn"])
    typed = parser.parse_args()
    run = scene_track.load(typed.run)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        video, boxes = typed.video, None
        if video is None:
            video = scratch / "drawn.mp4"
            draw_video(video, typed.frames or 2000, scratch / "boxes.txt")
            boxes = scratch / "boxes.txt" if typed.detections else None
        print(f"before: {resident_mib():.0f} MiB")
        stop = threading.Event()
        watch = threading.Thread(target=watch_memory, args=(scratch, stop), daemon=True)
        watch.start()
        # In turn, so that what else the machine does is the same for both.
        pairs = [
            (whole(run, video, typed.frames, scratch, boxes), alone(run, video, boxes))
            for _ in range(typed.repeats)
        ]
        stop.set()
        print(f"after: {resident_mib():.0f} MiB")
        for what in ("wall", "cpu_ms"):
            together, model = (
                np.median([getattr(rate, what) for rate in rates])
                for rates in zip(*pairs, strict=True)
            )
            print(f"{what}: everything {together:.1f}, the model alone {model:.1f}")
        ratios = np.array([together.wall / model.wall for together, model in pairs])
        print(f"ratio: predict against the model alone: {np.median(ratios):.2f} {ratios.round(2)}")


if __name__ == "__main__":
    main()
