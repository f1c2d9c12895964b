"""Draw the README's animation: the model's tracker beside ByteTrack, on the same detections.

    python docs/figures/tracks.py checkpoint=outputs/runs/NAME/TIME
    python docs/figures/tracks.py checkpoint=outputs/runs/NAME/TIME dataset.val=[dance0027]

Words are those of ``scene_track.evaluate``. Takes the first validation video, runs the model once,
gives its detections to both trackers (ByteTrack with its stock parameters), and writes
``docs/figures/tracks.gif``, every second frame at the speed of life. Below each half stands how
many identities the tracker has given out so far, and how many people there are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from scene_track.config.paths import config_dir
from scene_track.config.shipped import build_option
from scene_track.data.frame_store import read_frame
from scene_track.data.video import Video
from scene_track.tracking.inference import SequenceTracks, associate, detect_videos
from scene_track.training.trained_run import load_run
from scene_track.viz.boxes import Frame, Trails, captioned, draw_boxes
from scene_track.viz.clips import write_clip

WIDTH = 272  # pixels of one half
KEPT_BITS = 0xF8  # of each colour: fewer colours make a small file
EVERY = 2  # frames
TARGET = Path(__file__).with_name("tracks.gif")


def halves(video: Video, tracks: SequenceTracks, name: str) -> Iterator[Frame]:
    """The frames of one half."""
    info = video.info
    size = (round(info.height * WIDTH / info.width), WIDTH)
    people = len(np.unique(video.table.ids))
    trails, seen = Trails(), set()
    for position, number in enumerate(video.frames.tolist()):
        rows = tracks.table.at(number)
        scale = np.array((info.width, info.height), dtype=np.float64)
        middle = (rows.boxes[:, :2] + rows.boxes[:, 2:] / 2) / scale
        boxes = np.concatenate((middle, rows.boxes[:, 2:] / scale), axis=1)
        trails.update(boxes, rows.ids)
        seen |= set(rows.ids.tolist())
        if position % EVERY == 0:
            image = read_frame(video, position, size).permute(1, 2, 0).numpy()
            drawn = draw_boxes(trails.paint(image.copy()), boxes, rows.ids)
            yield captioned(drawn, f"{name}: {len(seen)} identities, {people} people")


def main() -> None:
    """The command line."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("evaluate", overrides=sys.argv[1:], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    run = load_run(cfg)
    run.data.prepare_data()
    run.to_device()
    video = run.data.sequences("val")[0]
    windows = run.data.stream_dataloader("val")
    detections = []
    for info, found in detect_videos(
        run.model, windows, device=run.device, precision=run.autocast, read=run.evaluator.read
    ):
        if info.name != video.name:
            break
        detections.append((info, found))
    trackers = {"scene_track": run.tracker, "ByteTrack": build_option("tracker", "bytetrack")}
    sides = []
    for name, tracker in trackers.items():
        (tracks,) = associate(iter(detections), tracker, run.model.identity)
        sides.append(halves(video, tracks, name))
    frames = (np.concatenate(pair, axis=1) & KEPT_BITS for pair in zip(*sides, strict=True))
    write_clip(TARGET, frames, video.info.frame_rate / EVERY)
    print(f"{TARGET}: {video.name}, {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
