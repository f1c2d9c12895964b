"""The baselines behind our contract: same boxes in, their identities out, their clock right."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
import trackers
from hydra.utils import get_object

from scene_track.config.shipped import build_option, option_values
from scene_track.data.noise import Noise
from scene_track.tracking.baselines import Baseline
from scene_track.tracking.inference import associate
from scene_track.tracking.noisy_truth import truth_as_detections
from scene_track.tracking.tracker import Detections, TrackedFrame
from tests.tracking.stories import VIDEO, seen, walk

BASELINES = ("sort", "bytetrack", "ocsort", "botsort", "cbiou")
every_baseline = pytest.mark.parametrize("option", BASELINES)


def started(option: str = "bytetrack", **settings) -> Baseline:
    tracker = build_option("tracker", option, **settings)
    tracker.start(VIDEO, None)
    return tracker


def step(tracker: Baseline, detections: Detections) -> TrackedFrame:
    (frame,) = tracker.update(detections)
    assert frame.frame == detections.frame
    return frame


@every_baseline
def test_stock_settings_are_the_librarys_own(option: str) -> None:
    library = getattr(trackers, get_object(option_values("tracker", option)["_target_"]).LIBRARY)
    theirs = {k: p.default for k, p in inspect.signature(library).parameters.items()}
    ours = option_values("tracker", option)
    shared = ours.keys() - {"_target_", "keep", "duplicate_iou"}
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
    # What it has beyond these is the clock, which is the video's, and code.
    beyond = {"frame_rate", "state_estimator_class", "iou", "instant_first_frame_activation"}
    assert theirs.keys() - shared <= beyond | {"enable_cmc", "cmc_method", "cmc_downscale"}


@every_baseline
def test_people_keep_their_identity_whatever_the_order_of_detections(option: str) -> None:
    tracker = started(option, minimum_consecutive_frames=1)
    step(tracker, seen([0.2, 0.5, 0.8]))  # a track is shown once something has continued it
    second = step(tracker, seen([0.81, 0.21, 0.51], 2))
    third = step(tracker, seen([0.52, 0.22, 0.82], 3))
    assert sorted(second.ids) == [1, 2, 3]

    def who(frame: TrackedFrame) -> list[int]:
        return frame.ids[np.argsort(frame.boxes[:, 0])].tolist()

    assert who(second) == who(third)


@every_baseline
def test_the_boxes_that_come_out_are_those_that_went_in(option: str) -> None:
    tracker = started(option)
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


@every_baseline
def test_a_new_video_starts_from_nothing(option: str) -> None:
    tracker = started(option)
    frames = [seen([0.2, 0.6], t) for t in range(1, 6)]
    first = [step(tracker, detections).ids.tolist() for detections in frames]
    tracker.start(VIDEO, None)
    assert [step(tracker, detections).ids.tolist() for detections in frames] == first
    assert sorted(first[-1]) == [1, 2]  # and numbers start again


@every_baseline
@pytest.mark.parametrize("empty", [True, False], ids=["empty frames", "no frames"])
def test_how_long_a_track_is_remembered_is_a_time_not_a_number_of_frames(
    option: str, empty: bool
) -> None:
    # For a second, which is 20 frames of this video: after 15 somebody is still known, after 25 he
    # is somebody new, whether these frames were empty or could not be read.
    for skipped, known in ((15, True), (25, False)):
        tracker = started(option, lost_track_buffer=30, minimum_consecutive_frames=1)
        born = [step(tracker, seen([0.5], t)).ids.tolist() for t in range(1, 5)][-1]
        for t in range(5, 5 + skipped) if empty else ():
            assert not len(step(tracker, seen([], t)).ids)
        after = [step(tracker, seen([0.5], 5 + skipped + t)).ids.tolist() for t in range(2)][-1]
        assert len(born) == len(after) == 1 and (after == born) == known


@every_baseline
def test_against_the_library_called_directly(option: str) -> None:
    import supervision

    frames = list(truth_as_detections([walk(people=6)], Noise(), seed=3))
    tracker = build_option("tracker", option, keep=0.0, duplicate_iou=1.0)
    (ours,) = associate(frames, tracker, None)
    off = {"enable_cmc": False} if option == "botsort" else {}
    library = getattr(trackers, tracker.LIBRARY)(frame_rate=VIDEO.frame_rate, **off)
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


def test_without_the_package_one_sentence_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match=r"pip install .*\[baselines\]"):
        build_option("tracker", "bytetrack")
