"""The oracle: perfect on perfect boxes, fair about false ones, blind without ground truth."""

from __future__ import annotations

import pytest
import torch

from scene_track.config.shipped import build_option
from scene_track.data.noise import EXACT, Noise
from scene_track.metrics.tracking import TrackingSequence, count_tracking, tracking_metrics
from scene_track.tracking.inference import associate
from scene_track.tracking.noisy_truth import truth_as_detections
from scene_track.tracking.oracle import OracleTracker
from scene_track.tracking.tracker import TrackedFrame, Tracker
from tests.tracking.stories import VIDEO, seen, walk


def started(**settings) -> OracleTracker:
    tracker = build_option("tracker", "oracle", **settings)
    tracker.start(VIDEO, None)
    return tracker


def step(tracker: Tracker, detections) -> TrackedFrame:
    (frame,) = tracker.update(detections)
    return frame


def metrics(tracker: Tracker, noise: Noise, seed: int = 0) -> dict:
    sequence = walk(people=6, seed=seed)
    (tracks,) = associate(truth_as_detections([sequence], noise, seed=seed), tracker, None)
    return tracking_metrics(
        count_tracking(TrackingSequence(sequence.table, tracks.table, sequence.info.length))
    )


def test_perfect_boxes_are_tracked_perfectly() -> None:
    figures = metrics(build_option("tracker", "oracle", duplicate_iou=1.0), EXACT)
    assert figures["HOTA"] == pytest.approx(1, abs=1e-3)
    assert figures["IDF1"] == figures["MOTA"] == 1 and figures["IDSW"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_association_of_the_same_detections_is_better(seed: int) -> None:
    ceiling = metrics(build_option("tracker", "oracle", exist_conf=0.1, birth=0.9), Noise(), seed)
    tracked = metrics(build_option("tracker", "bytetrack", keep=0.1), Noise(), seed)
    for name in ("HOTA", "AssA", "IDF1"):
        assert ceiling[name] >= tracked[name], name


def test_people_who_swap_places_between_frames_are_still_themselves() -> None:
    tracker = started()
    first = step(tracker, seen([0.2, 0.8], 1, ids=[70, 7]))
    second = step(tracker, seen([0.8, 0.2], 2, ids=[70, 7]))
    assert sorted(first.ids) == sorted(second.ids) == [1, 2]
    place = {i: x for i, x in zip(first.ids.tolist(), first.boxes[:, 0], strict=True)}
    for i, x in zip(second.ids.tolist(), second.boxes[:, 0], strict=True):
        assert x == pytest.approx(1 - place[i])


def test_each_identity_goes_to_one_detection_and_the_total_overlap_decides() -> None:
    detections = seen([0.30, 0.33], 1, scores=[0.6, 0.6], ids=[1, 2])
    # Both detections overlap the first person; only this pairing serves both.
    detections.true_boxes = torch.tensor([(0.29, 0.5, 0.1, 0.4), (0.31, 0.5, 0.1, 0.4)])
    tracker = started()
    frame = step(tracker, detections)
    # Who is who is told by a frame in which they stand apart.
    apart = step(tracker, seen([0.2, 0.8], 2, ids=[1, 2]))
    assert len(frame.ids) == 2
    assert frame.ids[frame.boxes[:, 0].argsort()].tolist() == (
        apart.ids[apart.boxes[:, 0].argsort()].tolist()
    )


def test_sure_false_positives_count_and_doubtful_ones_do_not() -> None:
    tracker = started(exist_conf=0.3, birth=0.85)
    everyone = set()
    for t in (1, 2):
        detections = seen([0.2, 0.5, 0.8], t, scores=[0.4, 0.9, 0.8], ids=[1, 2, 3])
        detections.true_boxes = torch.tensor([(0.2, 0.5, 0.1, 0.4)])
        detections.true_ids = torch.tensor([1])
        frame = step(tracker, detections)
        assert sorted(frame.boxes[:, 0].round(3)) == [0.2, 0.5]
        assert len(set(frame.ids.tolist())) == 2
        everyone |= set(frame.ids.tolist())
    assert len(everyone) == 3  # the person, and a new nobody in each frame


def test_a_frame_without_anybody_in_it() -> None:
    empty = seen([], 1, ids=[])
    assert not len(step(started(), empty).ids)


def test_without_ground_truth_one_sentence_says_so() -> None:
    with pytest.raises(ValueError, match="oracle.*ground truth.*frame 3 has none"):
        started().update(seen([0.5], 3))
