"""Small videos for trackers that go by position: who walks where, and what is seen of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene_track.data.mot_files import BoxTable
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import Video
from scene_track.tracking.tracker import Detections, VideoInfo

VIDEO = VideoInfo(name="story", frame_rate=20.0, height=200, width=400)


def seen(
    xs: list[float],
    frame: int = 1,
    scores: list[float] | None = None,
    ids: list[int] | None = None,
) -> Detections:
    """People of one size in a row at these centres (0-1), found exactly; ``ids`` who they are."""
    boxes = torch.tensor([(x, 0.5, 0.1, 0.4) for x in xs]).view(-1, 4)
    return Detections(
        frame=frame,
        seconds=frame / VIDEO.frame_rate,
        boxes=boxes,
        scores=torch.tensor(scores if scores is not None else [0.9] * len(xs)),
        labels=torch.zeros(len(xs), dtype=torch.long),
        true_boxes=boxes.clone() if ids is not None else None,
        true_ids=torch.tensor(ids, dtype=torch.long) if ids is not None else None,
    )


def walk(name: str = "walk", people: int = 4, frames: int = 40, seed: int = 0) -> Video:
    """A sequence of people who wander about, one box each in every frame, without pictures."""
    random = np.random.default_rng(seed)
    start = random.uniform(60, 300, (1, people, 2)) * (1.0, 0.3)
    steps = random.normal(0, 2, (frames, people, 2))
    corner = (start + steps.cumsum(axis=0)).reshape(-1, 2)
    size = np.tile((30.0, 60.0), (frames * people, 1))
    table = BoxTable.from_arrays(
        frames=np.repeat(np.arange(1, frames + 1), people),
        ids=np.tile(np.arange(1, people + 1), frames),
        boxes=np.concatenate((corner, size), axis=1),
    )
    return Video(
        name=name,
        folder=Path(name),
        info=SequenceInfo(name, "img1", VIDEO.frame_rate, frames, 400, 200, ".jpg"),
        frames=np.arange(1, frames + 1),
        files=tuple(Path(f"{t:08d}.jpg") for t in range(1, frames + 1)),
        table=table,
        labels=np.zeros(len(table), dtype=np.int64),
        xyz=None,
        labelled=True,
    )
