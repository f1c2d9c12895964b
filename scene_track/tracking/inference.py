"""A trained model over whole videos: windows in, tracks out, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scene_track.data.batch import SceneBatch
from scene_track.data.mot_files import BoxTable
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel, SceneState
from scene_track.tracking.streaming import IdentityTracker, TrackedFrame


def to_pixels(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """``[N, 4]`` cxcywh 0-1 to left, top, width, height in pixels; ``size`` is (height, width)."""
    height, width = size
    scaled = boxes.reshape(-1, 4) * np.array((width, height, width, height), dtype=np.float64)
    return np.concatenate((scaled[:, :2] - scaled[:, 2:] / 2, scaled[:, 2:]), axis=1)


def original_size(batch: SceneBatch) -> tuple[int, int]:
    """(height, width) in pixels of the footage behind a batch of one clip."""
    return int(batch.original_size[0, 0]), int(batch.original_size[0, 1])


def track_window(
    model: SceneModel, predictions: ScenePredictions, batch: SceneBatch, tracker: IdentityTracker
) -> Iterator[tuple[int, TrackedFrame]]:
    """Feed the frames of one window (B = 1) to the tracker, padding left out.

    Yields:
        Position of the frame in the window, and its tracks.

    Raises:
        ValueError: more than one clip in the batch, or a model without a pointer head.
    """
    if len(batch.sequence_ids) != 1:
        raise ValueError(f"tracking streams one window at a time, got {len(batch.sequence_ids)}")
    if model.identity is None:
        raise ValueError("the model has no pointer head (model.identity=null): it makes no tracks")
    tokens = model.identity.tokens(predictions.tokens[0]).float()
    boxes, scores = predictions.boxes[0].float(), predictions.exist_conf[0, :, :, 0].float()
    labels = predictions.cls_logits[0].argmax(-1)
    clock = (batch.frame_indices[0].float() / batch.frame_rate[0]).tolist()
    for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
        yield t, tracker.update(model.identity, boxes[t], scores[t], labels[t], tokens[t], clock[t])


@dataclass
class SequenceTracks:
    """The tracks of one sequence.

    Attributes:
        name: of the sequence.
        table: frames, ids, boxes (left, top, width, height in pixels of the footage), confidence.
    """

    name: str
    table: BoxTable


@torch.inference_mode()
def track_videos(
    model: SceneModel,
    batches: Iterable[SceneBatch],
    tracker: IdentityTracker,
    *,
    device: torch.device,
    half: bool,
) -> Iterator[SequenceTracks]:
    """Stream windows (B = 1, in the order of each video) through model and tracker.

    Args:
        model: with a pointer head, in evaluation mode on ``device``.
        batches: windows; a new sequence id starts a new video.
        tracker: assigns identities; reset at every new video.
        device: where the model is.
        half: run the model in bfloat16.

    Yields:
        The tracks of each sequence as soon as its last window is done.

    Raises:
        ValueError: the model has no pointer head.
    """
    name: str | None = None
    state: SceneState | None = None
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
    for batch in batches:
        if batch.sequence_ids[0] != name:
            if name is not None:
                yield SequenceTracks(name, _table(rows))
            name, state, rows = batch.sequence_ids[0], None, []
            tracker.reset()
        batch = batch.to(device)
        seconds = batch.frame_indices.float() / batch.frame_rate.unsqueeze(1)
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            predictions, state = model(batch.frames, seconds, batch.padding_mask, None, state)
        numbers = batch.frame_indices[0].tolist()
        for t, tracks in track_window(model, predictions, batch, tracker):
            pixels = to_pixels(tracks.boxes, original_size(batch))
            rows.append((numbers[t], tracks.ids, pixels, tracks.scores))
    if name is not None:
        yield SequenceTracks(name, _table(rows))


def _table(
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]],
) -> BoxTable:
    """One table of all frames' tracks."""
    if not sum(len(ids) for _, ids, _, _ in rows):
        return BoxTable.empty()
    return BoxTable.from_arrays(
        frames=np.concatenate([np.full(len(ids), frame) for frame, ids, _, _ in rows]),
        ids=np.concatenate([ids for _, ids, _, _ in rows]),
        boxes=np.concatenate([boxes for _, _, boxes, _ in rows]),
        confidence=np.concatenate([scores for _, _, _, scores in rows]),
    )
