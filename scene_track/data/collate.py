"""Pads clips to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scene_track.data.batch import SceneBatch, pad_detections
from scene_track.data.feature_store import FrameKey
from scene_track.data.resumable_loader import shared
from scene_track.data.samples import Sample
from scene_track.data.visibility import Visibility


def collate_shared(samples: Sequence[Sample], length: int) -> SceneBatch:
    """As :func:`collate`, in shared memory where a loading process collates."""
    return shared(collate(samples, length))


def collate(samples: Sequence[Sample], length: int) -> SceneBatch:
    """Pads samples to a batch.

    Args:
        samples: B clips of at most ``length`` frames and of one size.
        length: T, the same for every batch, so that shapes do not change.
    """
    batch = len(samples)
    looked = any(s.features is not None for s in samples)
    shown = not looked or any(len(s.frames) for s in samples)
    height, width = samples[0].frames.shape[-2:] if shown else (0, 0)
    most = max([1, *(len(b) for s in samples for b in s.boxes)])
    frames = torch.zeros(batch, length, 3, height, width, dtype=torch.uint8)
    boxes = torch.zeros(batch, length, most, 4)
    labels = torch.zeros(batch, length, most, dtype=torch.long)
    track_ids = torch.full((batch, length, most), -1, dtype=torch.long)
    confidence = torch.zeros(batch, length, most)
    visibility = torch.full((batch, length, most), int(Visibility.UNKNOWN))
    padding_mask = torch.ones(batch, length, dtype=torch.bool)
    frame_indices = torch.zeros(batch, length, dtype=torch.long)
    placed = any(s.xyz is not None for s in samples)
    points = None
    if all(s.points is not None for s in samples):
        points = np.full((batch, length, 3), np.nan)
        points[..., 2] = Visibility.UNKNOWN
    xyz = torch.full((batch, length, most, 3), torch.nan) if placed else None
    for b, sample in enumerate(samples):
        count = len(sample.boxes)
        _place_images(frames[b], sample)
        padding_mask[b, :count] = False
        if points is not None and sample.points is not None:
            points[b, :count] = sample.points
        frame_indices[b] = sample.frame_indices[-1]
        frame_indices[b, :count] = sample.frame_indices[:count]
        for t in range(count):
            n = len(sample.boxes[t])
            boxes[b, t, :n] = sample.boxes[t]
            labels[b, t, :n] = sample.labels[t]
            track_ids[b, t, :n] = sample.track_ids[t]
            confidence[b, t, :n] = sample.confidence[t]
            visibility[b, t, : len(sample.visibility[t])] = sample.visibility[t]
            if xyz is not None and sample.xyz is not None:
                xyz[b, t, :n] = sample.xyz[t]
    stored, features = _collate_features(samples, length) if looked else (None, None)
    given = [sample.detections for sample in samples if sample.detections is not None]
    detections = pad_detections(given, length) if len(given) == batch else None
    return SceneBatch(
        frames=frames,
        boxes=boxes,
        labels=labels,
        track_ids=track_ids,
        confidence=confidence,
        visibility=visibility,
        padding_mask=padding_mask,
        sequence_ids=[s.sequence.name for s in samples],
        frame_indices=frame_indices,
        frame_rate=torch.tensor([s.sequence.info.frame_rate for s in samples]),
        original_size=torch.tensor(
            [(s.sequence.info.height, s.sequence.info.width) for s in samples]
        ),
        sequence_length=torch.tensor([len(s.sequence) for s in samples]),
        num_frames=max(1, *(len(s.boxes) for s in samples)),
        points=points,
        xyz=xyz,
        stored=stored,
        features=features,
        detections=detections,
    )


def _place_images(frames: Tensor, sample: Sample) -> None:
    """Copies a sample's images to their frames in ``[T, 3, H, W]``."""
    count = len(sample.boxes)
    if len(sample.frames) == count:
        frames[:count] = sample.frames
        return
    missing = [t for t, e in enumerate(sample.features or ()) if isinstance(e, FrameKey)]
    for t, image in zip(missing, sample.frames, strict=True):
        frames[t] = image


def _collate_features(
    samples: Sequence[Sample], length: int
) -> tuple[list[list[bool | FrameKey]], Tensor | None]:
    """``SceneBatch.stored`` and ``SceneBatch.features``."""
    stored: list[list[bool | FrameKey]] = [[False] * length for _ in samples]
    features: Tensor | None = None
    for b, sample in enumerate(samples):
        for t, entry in enumerate(sample.features or ()):
            if isinstance(entry, FrameKey):
                stored[b][t] = entry
                continue
            if features is None:
                features = torch.zeros(len(samples), length, len(entry), dtype=torch.float16)
            features[b, t] = entry
            stored[b][t] = True
    return stored, features
