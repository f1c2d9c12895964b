"""A trained model over whole videos: windows in, detections, tracks out.

Model and tracker work in constant memory; what grows with a video is its result alone.

Detection and association are two steps, so that several trackers can be given the same detections.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.data.boxes import to_pixels
from scene_track.data.mot_files import BoxTable
from scene_track.models.backbones.base import BackboneFeatures
from scene_track.models.clip_model import ClipModel, ModelState
from scene_track.models.identity import PointerIdentity
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


def video_of(batch: SceneBatch) -> VideoInfo:
    """The video that a window (B = 1) is cut from.

    Raises:
        ValueError: more than one clip in the batch.
    """
    if len(batch.sequence_ids) != 1:
        raise ValueError(f"tracking streams one window at a time, got {len(batch.sequence_ids)}")
    return VideoInfo(
        name=batch.sequence_ids[0],
        frame_rate=float(batch.frame_rate[0]),
        height=int(batch.original_size[0, 0]),
        width=int(batch.original_size[0, 1]),
    )


def by_frame(
    batch: SceneBatch, boxes: Tensor, scores: Tensor, labels: Tensor, tokens: Tensor | None = None
) -> Iterator[tuple[int, Detections]]:
    """The detections of each frame of a window (B = 1), padding left out.

    Args:
        batch: the window.
        boxes: ``[T, Q, 4]`` cxcywh.
        scores: ``[T, Q]``.
        labels: ``[T, Q]``.
        tokens: ``[T, Q, width]``; None without a pointer head.

    Yields:
        Position of the frame in the window, and what was seen in it.
    """
    # Trackers work on the host, a frame at a time: copied once per window. Only the oracle looks at
    # the ground truth.
    boxes, scores, labels = boxes.cpu(), scores.cpu(), labels.cpu()
    tokens = None if tokens is None else tokens.cpu()
    valid, true_boxes, true_ids = (
        field[0].cpu() for field in (batch.valid, batch.boxes, batch.track_ids)
    )
    clock, numbers = batch.seconds[0].tolist(), batch.frame_indices[0].tolist()
    for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
        yield (
            t,
            Detections(
                frame=numbers[t],
                seconds=clock[t],
                boxes=boxes[t],
                scores=scores[t],
                labels=labels[t],
                tokens=None if tokens is None else tokens[t],
                true_boxes=true_boxes[t, valid[t]],
                true_ids=true_ids[t, valid[t]],
            ),
        )


def window_detections(
    model: SceneModel, predictions: ScenePredictions, batch: SceneBatch
) -> Iterator[tuple[int, Detections]]:
    """The detections of people in one window (B = 1); see ``by_frame``."""
    head = model.identity
    scores = predictions.exist_conf[0, :, :, 0].float()
    tokens = None if head is None else head.tokens(predictions.tokens[0], scores).float()
    labels = predictions.cls_logits[0].argmax(-1)
    return by_frame(batch, predictions.boxes[0].float(), scores, labels, tokens)


ReadDetections = Callable[[Any, Any, SceneBatch], Iterator[tuple[int, Detections]]]
"""Turns a model, its predictions of one window (B = 1) and the window into detections, each with
the position of its frame; ``window_detections`` does it for people."""


class StreamState:
    """What a model carries from one window of a video to the next."""

    def __init__(self) -> None:
        """No video is open."""
        self._name: str | None = None
        self._state: ModelState | None = None

    def before(self, batch: SceneBatch) -> ModelState | None:
        """The state that the window continues; None for the first one of a video."""
        return self._state if batch.sequence_ids[0] == self._name else None

    def after(self, batch: SceneBatch, state: ModelState) -> None:
        """Keep what the window has left."""
        self._name, self._state = batch.sequence_ids[0], state


@torch.inference_mode()
def detect_videos(
    model: ClipModel,
    batches: Iterable[SceneBatch],
    *,
    device: torch.device,
    precision: torch.dtype,
    read: ReadDetections = window_detections,
    features: Callable[[SceneBatch], BackboneFeatures | None] | None = None,
) -> Iterator[tuple[VideoInfo, Detections]]:
    """Stream windows (B = 1, in the order of each video) through the model.

    Args:
        model: in evaluation mode on ``device``.
        batches: windows; a new sequence id starts a new video.
        device: where the model is.
        precision: of the autocast that the model runs in; float32 = none.
        read: turns its predictions into detections.
        features: gives the features of a window where they need not be computed.

    Yields:
        Every frame's detections, each with its video and with the time that they cost: the move to
        the device and the model, not the reading of the frames.

    Raises:
        ValueError: more than one clip in a batch.
    """
    stream = StreamState()
    for batch in batches:
        video = video_of(batch)
        started = time.perf_counter()
        batch = batch.to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            known = None if features is None else features(batch)
            predictions, state = model(
                *(batch.seen, batch.seconds, batch.padding_mask),
                *(None, stream.before(batch), known),
            )
        stream.after(batch, state)
        seen = [detections for _, detections in read(model, predictions, batch)]
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or the tracker would be charged for the model's work
        share = (time.perf_counter() - started) / max(1, len(seen))
        for detections in seen:
            detections.compute_s = share
            yield video, detections


@dataclass
class SequenceTracks:
    """The tracks of one sequence.

    Attributes:
        video: the sequence.
        table: frames, ids, boxes (left, top, width, height in pixels of the footage), confidence.
        frames: ``[F]`` int64 numbers of the frames seen, those without a track included.
        compute_s: seconds of model and tracker; reading frames, counting and writing play no part.
    """

    video: VideoInfo
    table: BoxTable
    frames: NDArray[np.int64]
    compute_s: float

    @property
    def num_frames(self) -> int:
        """Frames seen."""
        return len(self.frames)

    @property
    def frames_per_second(self) -> float:
        """Frames per second of computing."""
        return self.num_frames / max(self.compute_s, 1e-9)


class Association:
    """Turns detections into tracks, frame by frame, one video after the other.

    Validation pushes the windows that Lightning hands out, ``evaluate`` those that it reads itself:
    this is the one place where a tracker is driven.
    """

    def __init__(
        self,
        tracker: Tracker,
        head: PointerIdentity | None,
        on_frame: Callable[[VideoInfo, TrackedFrame, Any], None] | None = None,
        *,
        collect: bool = True,
    ) -> None:
        """Nothing is tracked yet.

        Args:
            tracker: started anew for every video.
            head: the pointer head of the model that detects.
            on_frame: called with every frame that has become final, and with what was pushed
                beside its detections.
            collect: keep the tracks of a video until it has ended; without, ``on_frame`` gets them
                and the tables are empty: for videos without end.
        """
        self._tracker, self._head, self._on_frame = tracker, head, on_frame
        self._collect = collect
        self._video: VideoInfo | None = None
        self._done: list[TrackedFrame] = []
        self._beside: deque[Any] = deque()  # of the frames that the tracker holds back
        self._spent = 0.0

    def push(
        self, video: VideoInfo, detections: Detections, beside: Any = None
    ) -> SequenceTracks | None:
        """Take the next frame; ``beside`` is kept for ``on_frame``.

        Returns:
            The tracks of the video before, if this frame begins another one.

        Raises:
            ValueError: the tracker needs a pointer head and there is none.
        """
        before = None
        if video != self._video:
            before = self.finish()
            self._video = video
            self._tracker.start(video, self._head)
        self._beside.append(beside)
        # Between two frames the caller or the model may be at work: only the tracker is timed.
        started = time.perf_counter()
        final = self._tracker.update(detections)
        self._spent += detections.compute_s + time.perf_counter() - started
        self._take(final)
        return before

    def finish(self) -> SequenceTracks | None:
        """The tracks of the last video; None if no frame came since the one before."""
        if self._video is None:
            return None
        started = time.perf_counter()
        final = self._tracker.finish()
        self._spent += time.perf_counter() - started
        self._take(final)
        numbers = np.array([row.frame for row in self._done], dtype=np.int64)
        tracks = SequenceTracks(self._video, _table(self._done, self._video), numbers, self._spent)
        self._video, self._done, self._spent = None, [], 0.0
        return tracks

    def _take(self, final: list[TrackedFrame]) -> None:
        if self._collect:
            self._done += final
        for frame in final:
            beside = self._beside.popleft()
            if self._on_frame is not None:
                assert self._video is not None
                self._on_frame(self._video, frame, beside)


@torch.inference_mode()
def associate(
    frames: Iterable[tuple[VideoInfo, Detections]],
    tracker: Tracker,
    head: PointerIdentity | None,
) -> Iterator[SequenceTracks]:
    """Turn the detections of videos, one after the other, into tracks; see ``Association``.

    Yields:
        The tracks of each video as soon as its last frame is done.
    """
    association = Association(tracker, head)
    for video, detections in frames:
        if (tracks := association.push(video, detections)) is not None:
            yield tracks
    if (tracks := association.finish()) is not None:
        yield tracks


def _table(frames: list[TrackedFrame], video: VideoInfo) -> BoxTable:
    """One table of all frames' tracks."""
    if not sum(len(frame.ids) for frame in frames):
        return BoxTable.empty()
    boxes = np.concatenate([frame.boxes for frame in frames])
    return BoxTable.from_arrays(
        frames=np.concatenate([np.full(len(frame.ids), frame.frame) for frame in frames]),
        ids=np.concatenate([frame.ids for frame in frames]),
        boxes=to_pixels(boxes, (video.height, video.width)),
        confidence=np.concatenate([frame.scores for frame in frames]),
    )
