"""Compose the product's own configuration in tests, at a size that trains in a blink."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from scene_track.config.paths import config_dir
from scene_track.data.batch import SceneBatch
from scene_track.data.boxes import to_pixels
from scene_track.data.mot_files import BoxTable
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import Video

TINY = (
    "model.dim=32",
    "model.temporal_encoder.heads=2",
    "model.decoder.num_queries=8",
    "model.decoder.heads=2",
    "model.proposals.candidates=20",
    "model.identity.width=32",
    "model.identity.heads=2",
)
# A whole run in seconds.
MINIMAL = ("debug=minimal", *TINY, "model.backbone.depth=1")


def command(
    module: str, arguments: Sequence[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """An entry point as a user types it, in ``folder``."""
    return subprocess.run(
        [sys.executable, "-m", f"scene_track.{module}", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def compose_run(overrides: Sequence[str] = (), name: str = "config") -> DictConfig:
    """The configuration of a run, as the command line would compose it."""
    return copy.deepcopy(_composed(name, *overrides))


@cache
def _composed(name: str, *overrides: str) -> DictConfig:
    # Composing takes 0.15 s, and many tests ask for the same.
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.experiment_name, cfg.run_dir = "test", "unused"
        del cfg["hydra"]
    return cfg


def shipped(key: str, *overrides: str, **changes: Any) -> Any:
    """Builds one node of the shipped configuration, such as ``shipped("head.criterion")``.

    Constructors have no defaults for values that stand in YAML, so a test that wants the shipped
    values asks for them here.

    Args:
        key: dotted key of a node with a ``_target_``.
        overrides: as on the command line.
        changes: constructor arguments that replace those of the node.
    """
    return instantiate(OmegaConf.select(compose_run(overrides), key), **changes)


def arguments(key: str, *overrides: str, **changes: Any) -> dict[str, Any]:
    """Constructor arguments of a shipped node, where a test builds the class itself.

    Args:
        key: dotted key of a node with a ``_target_``.
        overrides: as on the command line.
        changes: arguments that replace those of the node.
    """
    node = OmegaConf.to_container(OmegaConf.select(compose_run(overrides), key), resolve=True)
    assert isinstance(node, dict)
    return {str(k): v for k, v in node.items() if k not in ("_target_", "_partial_")} | changes


def make_batch(
    clips: int = 2,
    frames: int = 3,
    objects: int = 3,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
) -> SceneBatch:
    """A batch of noise pictures in which ``objects`` boxes drift to the right."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(clips, 1, objects, 2, generator=generator) * 0.5 + 0.2
    drift = 0.02 * torch.arange(frames).view(1, frames, 1, 1) * torch.tensor((1.0, 0.0))
    extent = torch.full((clips, frames, objects, 2), 0.2)
    index = torch.arange(1, frames + 1).expand(clips, frames)
    return SceneBatch(
        frames=torch.randint(
            0, 256, (clips, frames, 3, *size), dtype=torch.uint8, generator=generator
        ),
        boxes=torch.cat((start + drift, extent), dim=-1),
        labels=torch.zeros(clips, frames, objects, dtype=torch.long),
        track_ids=torch.arange(objects).expand(clips, frames, objects).clone(),
        confidence=torch.ones(clips, frames, objects),
        visibility=torch.ones(clips, frames, objects, dtype=torch.long),
        padding_mask=torch.zeros(clips, frames, dtype=torch.bool),
        sequence_ids=[f"s{i}" for i in range(clips)],
        frame_indices=index.clone(),
        frame_rate=torch.full((clips,), 20.0),
        original_size=torch.tensor([(64, 96)] * clips),
        sequence_length=torch.full((clips,), frames),
    )


def videos_of(*batches: SceneBatch) -> list[Video]:
    """The videos that windows (B = 1) are of, with their ground truth, for an evaluator."""
    windows: dict[str, list[SceneBatch]] = {}
    for batch in batches:
        windows.setdefault(batch.sequence_ids[0], []).append(batch)
    return [_video_of(name, parts) for name, parts in windows.items()]


def feed(evaluator: Any, model: Any, *windows: tuple[Any, SceneBatch]) -> dict[str, float]:
    """What an evaluator computes of these windows, pairs of predictions and batch."""
    evaluator.reset(videos_of(*(batch for _, batch in windows)))
    for predictions, batch in windows:
        evaluator.update(model, predictions, batch)
    return evaluator.compute()


def _video_of(name: str, batches: list[SceneBatch]) -> Video:
    height, width = (int(side) for side in batches[0].original_size[0])
    frames, columns = [], []
    for batch in batches:
        for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
            frame, valid = int(batch.frame_indices[0, t]), batch.valid[0, t]
            frames.append(frame)
            boxes = to_pixels(batch.boxes[0, t, valid].double().numpy(), (height, width))
            labels = batch.labels[0, t, valid].numpy()
            ids = batch.track_ids[0, t, valid].numpy()
            columns.append((np.full(len(ids), frame), ids, boxes, labels))
    rows = [np.concatenate(column) for column in zip(*columns, strict=True)]
    points = [b.points[0][~b.padding_mask[0].numpy()] for b in batches if b.points is not None]
    rate = float(batches[0].frame_rate[0])
    return Video(
        name=name,
        folder=Path(name),
        info=SequenceInfo(name, "img1", rate, max(frames), width, height, ".jpg"),
        frames=np.array(frames),
        files=tuple(Path(f"{frame:06d}.jpg") for frame in frames),
        table=BoxTable.from_arrays(*rows[:3]),
        labels=rows[3],
        xyz=None,
        labelled=True,
        points=np.concatenate(points) if points else None,
    )


def without_objects(batch: SceneBatch) -> SceneBatch:
    """The same pictures with nobody in them."""
    batch.track_ids = torch.full_like(batch.track_ids, -1)
    batch.boxes = torch.zeros_like(batch.boxes)
    batch.confidence = torch.zeros_like(batch.confidence)
    batch.visibility = torch.full_like(batch.visibility, -1)
    return batch


# Options that only go with a ball's data set.
OF_A_BALL = {
    "model": ("heatmap",),
    "head": ("heatmap",),
    "recipe": ("ball",),
    "tracker": ("ball", "peak"),
}

# Options that only go with boxes from files.
OF_BOXES = {"model": ("association",), "head": ("association",)}

# What makes a ball's model tiny, as TINY does for people.
TINY_BALL = (
    "dataset=tracknet",
    "model.dim=16",
    "model.temporal_encoder.heads=2",
    "model.decoder.channels=[8,8,8]",
    "model.detail.channels=[8]",
)


def make_ball_batch(
    clips: int = 2, frames: int = 3, size: tuple[int, int] = (32, 48), seed: int = 0
) -> SceneBatch:
    """A batch of noise pictures in which one ball flies to the right."""
    batch = make_batch(clips, frames, 1, size, seed)
    batch.boxes[..., 2:] = 0
    visible = torch.ones(clips, frames, 1, dtype=torch.float64)
    height, width = batch.original_size[0].tolist()
    pixels = batch.boxes[:, :, 0, :2].double() * torch.tensor((width, height)) - 0.5
    batch.points = torch.cat((pixels, visible), dim=-1).numpy()
    batch.track_ids.fill_(1)
    return batch


def without_ball(batch: SceneBatch) -> SceneBatch:
    """The same pictures, in which the ball is known to be absent."""
    batch = without_objects(batch)
    batch.visibility.fill_(0)
    assert batch.points is not None
    batch.points[..., :2], batch.points[..., 2] = float("nan"), 0
    return batch
