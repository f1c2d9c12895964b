"""One clip before it is padded to a batch, and the blend of two clips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.feature_store import FrameKey
from scene_track.data.video import Video
from scene_track.data.visibility import Visibility


@dataclass
class Sample:
    """One clip, not padded.

    Attributes:
        frames: ``[T, 3, H, W]`` uint8; with ``features``, the images of all frames or of only
            those whose features are still to be computed.
        boxes: T tensors ``[N, 4]`` cxcywh, 0-1 of the canvas.
        labels: T tensors ``[N]`` int64.
        track_ids: T tensors ``[N]`` int64.
        confidence: T tensors ``[N]`` float32: 1, or the weight of a mixed clip.
        visibility: T tensors int64, see :class:`scene_track.data.visibility.Visibility`: ``[N]``,
            or ``[1]`` with 0 where a ball is known to be absent.
        points: ``[T, 3]`` float64 (x, y, visibility) of the ball as in the file; None for boxes.
        xyz: T tensors ``[N, 3]`` metres; None where the sequence has no positions.
        frame_indices: ``[T]`` int64; with T = 0 (every frame was skipped) still one number, the
            first asked for.
        sequence: the video.
        features: of each frame its features ``[R]`` float16, or the key under which they are to be
            kept; None where they were not looked up.
        detections: T tensors ``[Q, 5]`` cxcywh, 0-1 of the canvas, and score: detections in place
            of images, which then have no pixels; None with images.
    """

    frames: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    track_ids: list[Tensor]
    confidence: list[Tensor]
    visibility: list[Tensor]
    points: NDArray[np.float64] | None
    xyz: list[Tensor] | None
    frame_indices: Tensor
    sequence: Video
    features: list[Tensor | FrameKey] | None = None
    detections: list[Tensor] | None = None


def mix(first: Sample, second: Sample, weight: float) -> Sample:
    """Blends two clips frame by frame, images and targets.

    Mixup of Zhang et al., 2018, as TrackNetV3 uses it for a ball (Chen and Wang, 2023): distractors
    that look like a ball, at no cost. The targets of both stay, with the weight of their images
    as confidence; identities of the second are numbered on after those of the first. A frame of
    which either clip does not know where the ball is, is not annotated. Where the second clip is
    shorter, the first goes on alone.

    Args:
        first: gives names, numbers and length.
        second: of the same image size, with targets of the same kind.
        weight: of the first, 0-1.
    """
    shared = min(len(first.boxes), len(second.boxes))
    frames = first.frames.clone()
    blend = first.frames[:shared].float() * weight + second.frames[:shared].float() * (1 - weight)
    frames[:shared] = blend.add_(0.5).to(torch.uint8)
    offset = 1 + max([int(ids.max()) for ids in first.track_ids if len(ids)], default=0)
    result = replace(first, frames=frames)
    for name in ("boxes", "labels", "track_ids", "confidence", "visibility"):
        setattr(result, name, list(getattr(first, name)))
    result.xyz = None if first.xyz is None or second.xyz is None else list(first.xyz)
    if first.detections is not None and second.detections is not None:
        result.detections = [
            torch.cat((own, second.detections[t])) if t < shared else own
            for t, own in enumerate(first.detections)
        ]
    for t in range(shared):
        if not (_known(first, t) and _known(second, t)):
            for name in ("boxes", "labels", "track_ids", "confidence", "visibility"):
                getattr(result, name)[t] = getattr(first, name)[t][:0]
            continue
        for name in ("boxes", "labels"):
            getattr(result, name)[t] = torch.cat(
                (getattr(first, name)[t], getattr(second, name)[t])
            )
        ids = second.track_ids[t]  # -1 = an ignored region, which has no identity
        result.track_ids[t] = torch.cat(
            (first.track_ids[t], torch.where(ids < 0, ids, ids + offset))
        )
        result.confidence[t] = torch.cat(
            (first.confidence[t] * weight, second.confidence[t] * (1 - weight))
        )
        seen = torch.cat((first.visibility[t], second.visibility[t]))
        visible = seen[seen != Visibility.ABSENT]
        result.visibility[t] = visible if len(visible) else seen[:1]
        if result.xyz is not None and first.xyz is not None and second.xyz is not None:
            result.xyz[t] = torch.cat((first.xyz[t], second.xyz[t]))
    return result


def _known(sample: Sample, t: int) -> bool:
    """Whether the frame is annotated: always so for boxes."""
    return sample.points is None or len(sample.visibility[t]) > 0
