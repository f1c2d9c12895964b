"""Association time: our tracker and those of `trackers` on the same detections, in one run.

    python benchmarks/association.py                          # 10 drawn people, seconds
    python benchmarks/association.py --people 40 --frames 300
    python benchmarks/association.py --detections FOLDER/dancetrack0004.txt --size 1920 1080
    python benchmarks/association.py --training               # what a training step costs, a minute

Prints frames per second of each tracker alone (no model, nothing read or written), the median of a
few rounds in which they take turns, and the ratio to ByteTrack. Seconds are those of the processor,
so other work on the machine disturbs little. Our head is untrained: its weights do not change its
time. `--detections` takes MOT rows (frame, id, left, top, width, height, score).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray

from scene_track.config.paths import config_dir
from scene_track.config.shipped import build_option
from scene_track.data.box_clips import BoxStream
from scene_track.data.collate import collate
from scene_track.data.detections import BoxVideo
from scene_track.data.mot_files import BoxTable
from scene_track.data.noise import Noise
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import Video
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.inference import associate
from scene_track.tracking.tracker import Detections, VideoInfo
from scene_track.train import build_module

Frames = list[tuple[VideoInfo, Detections]]


def drawn_rows(people: int, frames: int, missed: float = 0.1) -> NDArray[np.float64]:
    """MOT rows of people who wander about, some of them missed."""
    random = np.random.default_rng(0)
    center = random.uniform((200, 200), (1720, 880), (people, 2))
    rows = []
    for frame in range(1, frames + 1):
        center = np.clip(center + random.normal(0, 8, (people, 2)), (100, 150), (1820, 930))
        for x, y in center[random.random(people) >= missed]:
            rows.append((frame, -1, x - 50, y - 150, 100, 300, random.uniform(0.7, 1)))
    return np.array(rows)


def frames_of(rows: NDArray[np.float64], size: tuple[int, int], limit: int) -> Frames:
    """Detections of each frame."""
    width, height = size
    video = VideoInfo("drawn", 20.0, height, width)
    frames = []
    for number in range(1, min(int(rows[:, 0].max()), limit) + 1):
        own = rows[rows[:, 0] == number]
        corner = own[:, 2:6] / (width, height, width, height)
        boxes = np.concatenate((corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]), axis=1)
        detections = Detections(
            frame=number,
            seconds=number / video.frame_rate,
            boxes=torch.from_numpy(boxes).float(),
            scores=torch.from_numpy(own[:, 6]).float().clamp(0, 1),
            labels=torch.zeros(len(own), dtype=torch.long),
        )
        frames.append((video, detections))
    return frames


def shipped_head(overrides: list[str]) -> PointerIdentity:
    """The pointer head of the shipped configuration."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return instantiate(compose("config", overrides=overrides).model.identity).eval()


def training_costs(people: int) -> None:
    """Print the time of training steps of the head over the length of a clip and their number."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=["input=boxes", "experiment_name=drawn", "run_dir=drawn"])
    module = build_module(cfg).train()
    print(f"{people} people; processor time of losses and gradients, median of 5, 1 thread")
    for clips, length in ((1, 32), (2, 32), (4, 32), (8, 32), (4, 16), (4, 64), (4, 128)):
        stream = BoxStream([BoxVideo.of(drawn_video(people, length), Noise())], length=length)
        batch = collate([stream[0]] * clips, length)
        times = []
        for _ in range(6):  # the first one warms up
            start = time.process_time()
            module.losses(batch, denoise=True)[1]["total"].backward()
            times.append(time.process_time() - start)
            module.zero_grad()
        step = 1e3 * statistics.median(times[1:])
        share = step / clips / length
        print(f"{clips} clips x {length:3d} frames {step:7.1f} ms, {share:6.3f} ms a frame")


def drawn_video(people: int, frames: int) -> Video:
    """The same people as a video with ground truth and without images."""
    rows = drawn_rows(people, frames, missed=0.0)
    ids = np.tile(np.arange(1, people + 1), frames)
    table = BoxTable.from_arrays(rows[:, 0].astype(np.int64), ids, rows[:, 2:6])
    return Video(
        name="drawn",
        folder=Path("drawn"),
        info=SequenceInfo("drawn", "img1", 20.0, frames, 1920, 1080, ".jpg"),
        frames=np.arange(1, frames + 1),
        files=tuple(Path(f"{number}.jpg") for number in range(1, frames + 1)),
        table=table,
        labels=np.zeros(len(table), dtype=np.int64),
        xyz=None,
        labelled=True,
    )


def main() -> None:
    """Time all and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--detections", type=Path, help="file with MOT rows instead")
    parser.add_argument("--size", type=int, nargs=2, default=(1920, 1080), help="width, height")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training", action="store_true", help="time training steps instead")
    parser.add_argument("overrides", nargs="*", help="of the head, such as model.identity.depth=1")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.training:
        return training_costs(args.people)
    if args.detections is None:
        rows = drawn_rows(args.people, args.frames)
    else:
        rows = np.loadtxt(args.detections, delimiter=",", ndmin=2)
    frames = frames_of(rows, tuple(args.size), args.frames)
    head = shipped_head(args.overrides)
    with torch.no_grad():
        for _, seen in frames:
            # Detections of a model come with their tokens; their content does not matter here.
            seen.tokens = torch.randn(len(seen.boxes), head.norm.normalized_shape[0])
    names = ("identity", "bytetrack", "ocsort")
    trackers = {name: build_option("tracker", name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds + 1):  # the first one warms up
        for name, tracker in trackers.items():
            start = time.process_time()
            list(associate(frames, tracker, head))
            times[name].append(time.process_time() - start)
    rates = {name: len(frames) / statistics.median(times[name][1:]) for name in names}
    mean = np.mean([len(seen.boxes) for _, seen in frames])
    print(f"{len(frames)} frames x {mean:.1f} detections, 1 thread, median of {args.rounds}")
    for name, rate in rates.items():
        print(f"{name:10s} {rate:7.0f} frames/s  {rate / rates['bytetrack']:5.2f} x bytetrack")


if __name__ == "__main__":
    main()
