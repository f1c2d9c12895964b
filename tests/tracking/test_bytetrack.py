"""ByteTrack behind our contract: same boxes in, its identities out, its clock right."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
import torch
from trackers import ByteTrackTracker

from scene_track.config.shipped import build_option, option_values
from scene_track.data.noise import Noise
from scene_track.tracking.bytetrack import ByteTrack
from scene_track.tracking.inference import associate
from scene_track.tracking.noisy_truth import truth_as_detections
from scene_track.tracking.tracker import Detections, TrackedFrame
from tests.tracking.stories import VIDEO, seen, walk


def started(**settings) -> ByteTrack:
    tracker = build_option("tracker", "bytetrack", **settings)
    tracker.start(VIDEO, None)
    return tracker


def step(tracker: ByteTrack, detections: Detections) -> TrackedFrame:
    (frame,) = tracker.update(detections)
    assert frame.frame == detections.frame
    return frame


def test_stock_settings_are_the_librarys_own() -> None:
    theirs = {k: p.default for k, p in inspect.signature(ByteTrackTracker).parameters.items()}
    ours = option_values("tracker", "bytetrack")
    shared = ours.keys() - {"_target_", "keep", "duplicate_iou"}
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
    # What it has beyond these is the clock, which is the video's, and code.
    assert theirs.keys() - shared == {"frame_rate", "state_estimator_class", "iou"}


def test_people_keep_their_identity_whatever_the_order_of_detections() -> None:
    tracker = started(minimum_consecutive_frames=1)
    step(tracker, seen([0.2, 0.5, 0.8]))  # a track is shown once something has continued it
    second = step(tracker, seen([0.81, 0.21, 0.51], 2))
    third = step(tracker, seen([0.52, 0.22, 0.82], 3))
    assert sorted(second.ids) == [1, 2, 3]

    def who(frame: TrackedFrame) -> list[int]:
        return frame.ids[np.argsort(frame.boxes[:, 0])].tolist()

    assert who(second) == who(third)


def test_the_boxes_that_come_out_are_those_that_went_in() -> None:
    tracker = started()
    noisy = list(truth_as_detections([walk()], Noise(), seed=0))
    tracker.start(noisy[0][0], None)
    shown = 0
    for _, detections in noisy:
        frame = step(tracker, detections)
        given = {tuple(box) for box in detections.boxes.double().tolist()}
        assert {tuple(box) for box in frame.boxes.tolist()} <= given
        assert len(set(frame.ids.tolist())) == len(frame.ids) and (frame.ids >= 1).all()
        scores = dict(
            zip(map(tuple, detections.boxes.double().tolist()), detections.scores, strict=True)
        )
        for box, score in zip(frame.boxes.tolist(), frame.scores, strict=True):
            assert scores[tuple(box)].item() == pytest.approx(score)
        shown += len(frame.ids)
    assert shown > 120


def test_what_is_not_kept_or_is_a_duplicate_never_reaches_it() -> None:
    def shown(**settings) -> int:
        tracker = started(**settings)
        xs, scores = [0.3, 0.302, 0.7], [0.9, 0.85, 0.65]
        step(tracker, seen(xs, 1, scores))
        return len(step(tracker, seen(xs, 2, scores)).ids)

    low = {"track_activation_threshold": 0.6}
    assert shown(**low, duplicate_iou=1.0) == 3
    assert shown(**low) == 2
    assert shown(**low, keep=0.7) == 1


def test_a_new_video_starts_from_nothing() -> None:
    tracker = started()
    for t in (1, 2):
        step(tracker, seen([0.2, 0.6], t))
    tracker.start(VIDEO, None)
    assert not len(step(tracker, seen([0.2, 0.6], 1)).ids)  # nobody is known again
    assert sorted(step(tracker, seen([0.2, 0.6], 2)).ids) == [1, 2]


def test_it_is_causal() -> None:
    frames = list(truth_as_detections([walk()], Noise(), seed=0))

    def first(count: int) -> list[list[int]]:
        tracker = build_option("tracker", "bytetrack")
        tracker.start(frames[0][0], None)
        return [step(tracker, d).ids.tolist() for _, d in frames[:count]]

    assert ByteTrack.lookahead == 0 and first(40)[:20] == first(20)


def test_time_passes_by_frame_numbers_not_by_calls() -> None:
    # Remembered for a second, which is 20 frames: after 15 skipped ones somebody is still known,
    # after 25 he is somebody new.
    for skipped, known in ((15, True), (25, False)):
        tracker = started(lost_track_buffer=30, minimum_consecutive_frames=1)
        step(tracker, seen([0.5], 1))
        born = step(tracker, seen([0.5], 2)).ids.tolist()
        after = step(tracker, seen([0.5], 3 + skipped)).ids.tolist()
        assert (after == born) == known

    # A walk at a steady pace is predicted across the gap.
    tracker = started(minimum_consecutive_frames=1)
    for t in range(1, 8):
        born = step(tracker, seen([0.2 + 0.03 * t], t)).ids.tolist()
    assert step(tracker, seen([0.2 + 0.03 * 15], 15)).ids.tolist() == born


def test_frames_with_nobody_in_them_are_frames() -> None:
    tracker = started(minimum_consecutive_frames=1)
    assert not len(step(tracker, seen([], 1)).ids)
    step(tracker, seen([0.5], 2))
    born = step(tracker, seen([0.5], 3)).ids.tolist()
    assert not len(step(tracker, seen([], 4)).ids)
    assert step(tracker, seen([0.5], 5)).ids.tolist() == born


def test_against_the_library_called_directly() -> None:
    import supervision

    frames = list(truth_as_detections([walk(people=6)], Noise(), seed=3))
    (ours,) = associate(
        frames, build_option("tracker", "bytetrack", keep=0.0, duplicate_iou=1.0), None
    )
    library = ByteTrackTracker(frame_rate=VIDEO.frame_rate)
    theirs = []
    for video, d in frames:
        cx, cy, w, h = d.boxes.double().numpy().T * np.array(
            [[video.width], [video.height], [video.width], [video.height]]
        )
        tracked = library.update(
            supervision.Detections(
                xyxy=np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), axis=1),
                confidence=d.scores.numpy(),
            )
        )
        assert tracked.tracker_id is not None
        theirs += [
            (d.frame, int(i), *box.round(6))
            for i, box in zip(tracked.tracker_id, tracked.xyxy, strict=True)
            if i >= 0
        ]
    table = ours.table
    corners = np.concatenate((table.boxes[:, :2], table.boxes[:, :2] + table.boxes[:, 2:]), axis=1)
    mine = [
        (int(f), int(i) - 1, *box.round(6))
        for f, i, box in zip(table.frames, table.ids, corners, strict=True)
    ]
    # Their numbers depend on the order within a frame; who goes with whom must not.
    assert len(mine) == len(theirs) and {(f, *box) for f, _, *box in mine} == {
        (f, *box) for f, _, *box in theirs
    }
    place = {(f, *box): i for f, i, *box in theirs}
    pairs = {(i, place[(f, *box)]) for f, i, *box in mine}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_scores_do_not_enter_the_cost() -> None:
    # Two people and two detections, the nearer of which is the less sure: nearness decides.
    tracker = started(minimum_consecutive_frames=1)
    for t in (1, 2):
        before = step(tracker, seen([0.40, 0.48], t))
    after = step(tracker, seen([0.41, 0.47], 3, [0.61, 0.99]))

    def left(frame: TrackedFrame) -> int:
        return int(frame.ids[np.argmin(frame.boxes[:, 0])])

    assert left(after) == left(before)


def test_without_the_package_one_sentence_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match=r"pip install .*\[baselines\]"):
        build_option("tracker", "bytetrack")


def test_it_takes_the_models_float32_boxes() -> None:
    detections = seen([0.3])
    assert detections.boxes.dtype == torch.float32
    tracker = started()
    step(tracker, detections)
    assert step(tracker, seen([0.3], 2)).boxes.dtype == np.float64
