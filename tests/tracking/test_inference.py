"""Videos to tracks: the time that is charged to each of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from scene_track.tracking.inference import associate
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo


class Slow(Tracker):
    """Sees nobody, and takes its time over it."""

    def start(self, video: VideoInfo, head: object) -> None:
        """Nothing to do."""

    def update(self, detections: Detections) -> list[TrackedFrame]:
        """Sleeps for ten milliseconds."""
        time.sleep(0.01)
        nobody = np.zeros(0, np.int64)
        empty = np.zeros((0, 4))
        return [TrackedFrame(detections.frame, nobody, empty, np.zeros(0), nobody)]


def test_each_video_is_charged_for_model_and_tracker_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]  # moved by hand: a busy machine must not decide
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def frames():
        for name, count in (("a", 3), ("b", 2)):
            for frame in range(1, count + 1):
                time.sleep(0.03)  # reading the frame
                boxes = torch.zeros(0, 4)
                none = torch.zeros(0)
                seen = Detections(frame, 0.0, boxes, none, none.long(), compute_s=1.0)
                yield VideoInfo(name, 20.0, 100, 200), seen

    spent = {}
    for tracks in associate(frames(), Slow(), None):
        time.sleep(0.05)  # counting and writing
        spent[tracks.video.name] = tracks
    assert {name: tracks.num_frames for name, tracks in spent.items()} == {"a": 3, "b": 2}
    for name, count in (("a", 3), ("b", 2)):
        assert spent[name].compute_s == pytest.approx(1.01 * count)
        assert spent[name].frames_per_second == pytest.approx(count / spent[name].compute_s)
