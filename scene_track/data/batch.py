"""One batch of clips with their ground truth.

Shape vocabulary used everywhere: B clips, T frames, M padded objects per frame, N objects, H W
pixels. Targets are stored padded (three small tensors per batch instead of B x T x 5), so that
moving a batch to a device is one copy per field and every loss is vectorised.

A ball is a box without extent. Positions mean the same everywhere: in files and metrics, 0 is the
*centre* of the first pixel (a pixel's index); in ``boxes``, 0 and 1 are the outer edges of the
canvas, so pixel x of an image W wide lies at (x + 0.5) / W, at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.feature_store import FrameKey


@dataclass
class SceneBatch:
    """A batch of clips.

    Attributes:
        frames: ``[B, T, 3, H, W]`` uint8 RGB; normalised on the device by the model. With features
            of all frames, ``[B, T, 3, 0, 0]``, unless the images were asked for.
        boxes: ``[B, T, M, 4]`` float32 cxcywh, 0-1 of the canvas; 0 where padded. A ball has width
            and height 0.
        labels: ``[B, T, M]`` int64; 0 where padded; -1 in a padded slot whose box is a region that
            is left out of all losses.
        track_ids: ``[B, T, M]`` int64; -1 where padded.
        confidence: ``[B, T, M]`` float32; 0 where padded, else 1, or, in a mixed clip, the weight
            (0-1) of the clip that the object comes from.
        visibility: ``[B, T, M]`` int64, see :class:`scene_track.data.visibility.Visibility`: 1 to 3
            for a real object, -1 where padded. A ball that is known to be absent has no real object
            but one slot with visibility 0; a frame of a ball without annotation has -1 alone.
        padding_mask: ``[B, T]`` bool, True = this frame is padding (black, without targets).
        sequence_ids: B sequence names.
        frame_indices: ``[B, T]`` int64 frame numbers as in the files (from 1); padding repeats the
            last.
        frame_rate: ``[B]`` float32 frames per second of the sequence.
        original_size: ``[B, 2]`` int64 (height, width) in pixels of the sequence's files.
        sequence_length: ``[B]`` int64 number of frames of the (possibly cut) sequence.
        num_frames: frames of the longest clip, known without waiting for a device; None = T.
        points: ``[B, T, 3]`` float64 (x, y, visibility) of the ball as in the file: pixels of the
            original video, NaN where not visible. For scoring: it stays an array on the CPU,
            wherever the batch goes. None where targets are boxes.
        xyz: ``[B, T, M, 3]`` float32 positions in metres in the camera frame; NaN where unknown.
        stored: B x T: True where ``features`` has the frame's, False where the frame is padding,
            and the frame's key where the features are still to be computed from ``frames``. None
            where features were not looked up.
        features: ``[B, T, R]`` float16 rows of a frozen network's features; None without a
            single one.
        clock: ``[B, T]`` float32 s since the start of the video, where a file states the time of
            each frame; None: frames follow each other at ``frame_rate``.
        detections: ``[B, T, Q, 5]`` float32 cxcywh, 0-1 of the canvas, and score, 0-1, of a
            detector's files; score -1 where padded. ``frames`` then have no pixels. None with
            images.
    """

    frames: Tensor
    boxes: Tensor
    labels: Tensor
    track_ids: Tensor
    confidence: Tensor
    visibility: Tensor
    padding_mask: Tensor
    sequence_ids: list[str]
    frame_indices: Tensor
    frame_rate: Tensor
    original_size: Tensor
    sequence_length: Tensor
    num_frames: int | None = None
    points: NDArray[np.float64] | None = None
    xyz: Tensor | None = None
    stored: list[list[bool | FrameKey]] | None = None
    features: Tensor | None = None
    clock: Tensor | None = None
    detections: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """What a model is given: ``detections`` where there are any, else ``frames``."""
        return self.frames if self.detections is None else self.detections

    @property
    def seconds(self) -> Tensor:
        """``[B, T]`` float32 time of each frame: ``clock``, or frame number over frame rate."""
        if self.clock is not None:
            return self.clock
        return self.frame_indices.float() / self.frame_rate.unsqueeze(1)

    @property
    def valid(self) -> Tensor:
        """``[B, T, M]`` bool, True = a real object."""
        return self.track_ids >= 0

    @property
    def ignored(self) -> Tensor:
        """``[B, T, M]`` bool, True = the box is a region in which nobody is labelled."""
        return self.labels < 0

    @property
    def annotated(self) -> Tensor:
        """``[B, T]`` bool, True = the frame of a ball is annotated.

        Not for boxes: a frame without a person has no visibility either.
        """
        return (self.visibility >= 0).any(dim=-1)

    def between(self, start: int, stop: int) -> SceneBatch:
        """Frames ``start`` to ``stop - 1`` of every clip (positions in the clip, from 0)."""
        per_frame = ("frames", "boxes", "labels", "track_ids", "confidence", "visibility",
                     "padding_mask", "frame_indices", "points", "xyz",
                     "features", "clock", "detections")  # fmt: skip
        stored = self.stored
        return replace(
            self,
            num_frames=None,
            stored=None if stored is None else [frames[start:stop] for frames in stored],
            **{
                name: value[:, start:stop]
                for name in per_frame
                if (value := getattr(self, name)) is not None
            },
        )

    @classmethod
    def unlabelled(
        cls,
        frames: Tensor,
        numbers: Sequence[int],
        seconds: Sequence[float],
        *,
        name: str,
        frame_rate: float,
        size: tuple[int, int],
        length: int,
        detections: Sequence[Tensor] | None = None,
    ) -> SceneBatch:
        """One window (B = 1) of a video that nobody has annotated.

        Args:
            frames: ``[N, 3, H, W]`` uint8, N >= 1; with detections without pixels.
            numbers: of the N frames.
            seconds: times of the N frames since the start of the video.
            name: of the video.
            frame_rate: frames per second.
            size: (height, width) of the video in pixels.
            length: T >= N; the rest is padding.
            detections: of the N frames, ``[Q, 5]`` float32 cxcywh, 0-1, and score, 0-1, each.
        """
        rest = length - len(frames)
        last = (numbers[-1], seconds[-1])
        return cls(
            frames=torch.cat((frames, frames.new_zeros(rest, *frames.shape[1:]))).unsqueeze(0),
            boxes=torch.zeros(1, length, 1, 4),
            labels=torch.zeros(1, length, 1, dtype=torch.long),
            track_ids=torch.full((1, length, 1), -1, dtype=torch.long),
            confidence=torch.zeros(1, length, 1),
            visibility=torch.full((1, length, 1), -1, dtype=torch.long),
            padding_mask=torch.arange(length).unsqueeze(0) >= len(frames),
            sequence_ids=[name],
            frame_indices=torch.tensor([[*numbers, *[last[0]] * rest]]),
            frame_rate=torch.tensor([frame_rate]),
            original_size=torch.tensor([size]),
            sequence_length=torch.tensor([numbers[-1]]),
            num_frames=len(frames),
            clock=torch.tensor([[*seconds, *[last[1]] * rest]], dtype=torch.float32),
            detections=None if detections is None else pad_detections([detections], length),
        )

    def _map(self, function: Any) -> SceneBatch:
        moved = {
            field.name: function(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def share_memory(self) -> SceneBatch:
        """The batch in memory that another process can read."""
        return self._map(lambda x: x.share_memory_())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SceneBatch:
        """The batch with every tensor on ``device``."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SceneBatch:
        """The batch in page-locked memory (called by the data loader)."""
        return self._map(lambda x: x.pin_memory())


def pad_detections(clips: Sequence[Sequence[Tensor]], length: int) -> Tensor:
    """``[B, T, Q, 5]`` of the frames of B clips, ``[Q, 5]`` each; see ``SceneBatch.detections``."""
    most = max((len(found) for frames in clips for found in frames), default=0)
    padded = torch.zeros(len(clips), length, max(most, 1), 5)
    padded[..., 4] = -1
    for b, frames in enumerate(clips):
        for t, found in enumerate(frames):
            padded[b, t, : len(found)] = found
    return padded
