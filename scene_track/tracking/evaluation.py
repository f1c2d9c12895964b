"""Scoring whole videos window by window: what validation and ``evaluate`` have in common.

Windows of a video arrive in order and each frame goes through the tracker once
(``inference.Association``). The report of the head's evaluator then counts a finished video against
its ground truth as it stands in the files, in float64 and original pixels. ``evaluate`` does the
same with the same report, so both print the same figures.

Counts are added in the order of the videos' names: average precision ranks equal scores in the
order in which they come, and several processes would otherwise differ from one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from scene_track.data.batch import SceneBatch
from scene_track.data.video import Video
from scene_track.tracking.inference import (
    Association,
    ReadDetections,
    SequenceTracks,
    video_of,
)
from scene_track.tracking.split_report import SplitReport
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo

_Part = TypeVar("_Part")
_Shown = TypeVar("_Shown")


class Evaluator(ABC, Generic[_Shown]):
    """Tracks the windows of whole videos as they arrive and counts the result.

    ``_Shown`` is what a subclass keeps of a frame until its tracks are final, to draw it.
    """

    LOGS: ClassVar[tuple[str, ...]]
    """Names of the metrics that it logs, ``val/loss`` included; ``monitor.metric`` must be one."""

    GIVES: ClassVar[str]
    """What its detections are, ``boxes`` or ``points``; compared with the tracker's ``READS``."""

    report: ClassVar[type[SplitReport]]
    """Counts and shows the tracks of a split, here and in ``evaluate``."""

    read: ReadDetections
    """Turns predictions of a window (B = 1) into detections, frame by frame."""

    def __init__(self, *, tracker: Tracker, visualiser: Any) -> None:
        """Store the parts.

        Args:
            tracker: turns detections into tracks.
            visualiser: collects frames for the image of the epoch; None draws nothing.
        """
        self.tracker, self.visualiser = tracker, visualiser
        self.reset()

    def reset(self, videos: Iterable[Video] = ()) -> None:
        """Forget all counts.

        Args:
            videos: those whose windows will come, with their ground truth.
        """
        self._videos = {video.name: video for video in videos}
        self._association: Association | None = None
        self._counts = self.report(list(self._videos.values()), "auto")
        if self.visualiser is not None:
            self.visualiser.reset()

    @torch.no_grad()
    def update(self, model: Any, predictions: Any, batch: SceneBatch) -> None:
        """Take the next window (B = 1) of a video, whose model's pointer head assigns identities.

        Raises:
            ValueError: more than one clip in the batch, or a tracker that needs a pointer head that
                the model has not.
        """
        video = video_of(batch)
        if self._association is None:
            self._association = Association(self.tracker, model.identity, self._release)
        # The pointer head is trained in float32 and runs so in ``evaluate``. Under Lightning's
        # autocast, in which a validation step runs, it would assign other identities.
        with torch.autocast(batch.frames.device.type, enabled=False):
            for t, detections in self.read(model, predictions, batch):
                shown = self.show(predictions, batch, t, detections)
                self._finish(self._association.push(video, detections, shown))

    def compute(self) -> dict[str, float]:
        """Figures over all videos of all processes, by short name (``hota``, ``pck_5``, ...).

        Every process must call it (see ``gather_parts``), and every one gets the same figures.
        """
        if self._association is not None:
            self._finish(self._association.finish())
        counts = {k: v for part in gather_parts(self._counts.counts) for k, v in part.items()}
        self._counts.counts = counts
        return self.figures(self._counts.total())

    def picture(self) -> NDArray[np.uint8] | None:
        """``[H, W, 3]`` uint8 contact sheet of the epoch; None without frames."""
        return self.visualiser.picture() if self.visualiser else None

    @abstractmethod
    def figures(self, total: Any) -> dict[str, float]:
        """The logged figures of the counts of all videos."""

    def show(
        self, predictions: Any, batch: SceneBatch, t: int, detections: Detections
    ) -> _Shown | None:
        """What is kept of frame ``t`` of a window to draw it later; None if it is not drawn."""
        return None

    def draw(self, video: VideoInfo, tracks: TrackedFrame, shown: _Shown) -> None:
        """Offers a frame whose tracks are final, and of which something is kept, to be drawn."""
        raise NotImplementedError

    def _release(self, video: VideoInfo, tracks: TrackedFrame, shown: _Shown | None) -> None:
        if shown is not None:
            self.draw(video, tracks, shown)

    def finished(self, video: Video, tracks: SequenceTracks) -> None:
        """Counts a video that has ended, or as much of it as was shown."""
        self._counts.count(video, tracks)

    def _finish(self, tracks: SequenceTracks | None) -> None:
        if tracks is None or not len(tracks.frames):
            return
        video = self._videos.get(tracks.video.name)
        if video is None:
            raise ValueError(
                f"no ground truth for {tracks.video.name}: reset() was given"
                f" {sorted(self._videos) or 'no video'}"
            )
        last = int(tracks.frames[-1])
        if last < int(video.frames[-1]):  # trainer.limit_val_batches cut the video short
            video = replace(video.between(int(video.frames[0]), last), name=video.name)
        self.finished(video, tracks)


def gather_parts(part: _Part) -> list[_Part]:
    """What every process holds, by rank, in every process; in one process only ``part``.

    A collective: every process must call it equally often, also one without anything to give.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [part]
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
