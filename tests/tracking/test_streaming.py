"""Tracking stories, told to the tracker by an untrained pointer head."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from scene_track.config.shipped import build_option
from scene_track.data.video import MotFolder, Video
from scene_track.metrics.tracking import TrackingSequence, count_tracking, tracking_metrics
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.inference import associate
from scene_track.tracking.noisy_truth import Noise, truth_as_detections
from scene_track.tracking.streaming import IdentityTracker
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo
from tests.compose import shipped
from tests.tracking.stories import walk


@cache
def head() -> PointerIdentity:
    """Untrained, so it goes by the motion prior alone."""
    torch.manual_seed(0)
    return shipped("model.identity", dim=16, width=16, heads=2).eval()


VIDEO = VideoInfo(name="story", frame_rate=20.0, height=64, width=96)


def tracker_of(**thresholds) -> IdentityTracker:
    tracker = build_option("tracker", "identity", **thresholds)
    tracker.start(VIDEO, head())
    return tracker


def detections(xs: list[float], scores: list[float] | None = None, t: int = 0) -> Detections:
    return Detections(
        frame=t + 1,
        seconds=t / 20,
        boxes=torch.tensor([(x, 0.5, 0.08, 0.2) for x in xs]).view(-1, 4),
        scores=torch.tensor(scores if scores is not None else [0.9] * len(xs)),
        labels=torch.zeros(len(xs), dtype=torch.long),
        tokens=torch.zeros(len(xs), 16),
    )


def by_place(tracks: TrackedFrame) -> dict[float, int]:
    return dict(zip(tracks.boxes[:, 0].round(3).tolist(), tracks.ids.tolist(), strict=True))


def frame(tracker: IdentityTracker, xs: list[float], scores: list[float] | None = None, t: int = 0):
    (tracks,) = tracker.update(detections(xs, scores, t))
    return by_place(tracks)


def test_tracks_keep_their_identity_whatever_the_order_of_detections() -> None:
    tracker = tracker_of()
    first = frame(tracker, [0.2, 0.5, 0.8])
    second = frame(tracker, [0.81, 0.21, 0.51], t=1)
    assert [second[0.21], second[0.51], second[0.81]] == [first[0.2], first[0.5], first[0.8]]
    assert sorted(first.values()) == [1, 2, 3]


def test_a_track_can_be_continued_for_so_long_and_no_longer() -> None:
    for misses, kept in ((3, True), (4, False)):
        tracker = tracker_of(max_gap=0.2)  # four frames
        born = frame(tracker, [0.3])[0.3]
        for t in range(misses):
            assert frame(tracker, [], t=t + 1) == {}
        back = frame(tracker, [0.3], t=misses + 1)[0.3]
        assert (back == born) == kept
        assert kept or back == 2  # a used identity is never given again


def test_a_pause_between_two_frames_ends_no_track() -> None:
    """Nobody was missed in it; a video of one frame per second has nothing but pauses."""
    tracker = tracker_of(max_gap=0.2)
    born = frame(tracker, [0.3, 0.7])
    assert frame(tracker, [0.3, 0.7], t=20) == born
    assert frame(tracker, [0.3], t=40) == {0.3: born[0.3]}
    assert frame(tracker, [0.3, 0.7], t=60) == {0.3: born[0.3], 0.7: 3}  # missed, for too long


def test_low_detections_continue_the_tracks_left_over_and_take_none_away() -> None:
    tracker = tracker_of(exist_conf=0.5, low_conf=0.1, birth=0.6)
    born = frame(tracker, [0.3, 0.6])
    # The low one is nearer to the first track, but comes second.
    assert frame(tracker, [0.31, 0.3, 0.6], [0.9, 0.4, 0.3], t=1) == {
        0.31: born[0.3],
        0.6: born[0.6],
    }
    assert frame(tracker_of(exist_conf=0.5, low_conf=0.1), [0.3], [0.45]) == {}


def test_doubtful_detections_continue_tracks_but_start_none() -> None:
    tracker = tracker_of(exist_conf=0.4, birth=0.6)
    assert frame(tracker, [0.3], [0.5]) == {}
    born = frame(tracker, [0.3], [0.7], t=1)[0.3]
    assert frame(tracker, [0.31], [0.5], t=2)[0.31] == born
    assert frame(tracker, [0.31], [0.3], t=3) == {}


def test_two_boxes_on_one_dancer_become_one_track() -> None:
    tracker = tracker_of(duplicate_iou=0.7)
    tracks = frame(tracker, [0.3, 0.302, 0.6], [0.8, 0.9, 0.9])
    assert sorted(tracks) == [0.302, 0.6]


def test_a_detection_far_from_everything_is_new() -> None:
    tracker = tracker_of(accept=0.2)
    born = frame(tracker, [0.2])[0.2]
    tracks = frame(tracker, [0.21, 0.9], t=1)
    assert tracks[0.21] == born and tracks[0.9] == born + 1


def test_a_new_video_starts_from_nothing() -> None:
    tracker = tracker_of()
    frame(tracker, [0.2, 0.4])
    tracker.start(VIDEO, head())
    assert tracker.num_tracks == 0 and frame(tracker, [0.9])[0.9] == 1


def offline(tracker: IdentityTracker, story: list[tuple[list[float], list[float]]]):
    frames = [
        f for t, (xs, sure) in enumerate(story) for f in tracker.update(detections(xs, sure, t))
    ]
    frames += tracker.finish()
    assert [f.frame for f in frames] == list(range(1, len(story) + 1))
    return [by_place(f) for f in frames]


def test_a_candidate_becomes_a_track_and_with_a_lookahead_from_its_first_frame_on() -> None:
    story = [([0.3], [0.5]), ([0.31], [0.6]), ([0.32], [0.9])]
    causal = offline(tracker_of(candidate=0.4, birth=0.8), story)
    assert causal == [{}, {}, {0.32: 1}]
    late = offline(tracker_of(candidate=0.4, birth=0.8, lookahead=5), story)
    assert late == [{0.3: 1}, {0.31: 1}, {0.32: 1}]


def test_a_candidate_that_is_missed_once_is_forgotten() -> None:
    story = [([0.3], [0.5]), ([], []), ([0.3], [0.9])]
    assert offline(tracker_of(candidate=0.4, lookahead=5), story) == [{}, {}, {0.3: 1}]


def test_a_gap_is_filled_with_a_lookahead_only() -> None:
    story = [([0.30], [0.9]), ([], []), ([0.32], [0.9])]
    assert offline(tracker_of(), story)[1] == {}
    assert offline(tracker_of(lookahead=3, fill=3), story)[1] == {0.31: 1}


def test_filling_more_than_is_held_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracker.lookahead=4"):
        tracker_of(fill=4, lookahead=2)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video() -> None:
    lookahead = 10
    tracker = tracker_of(max_gap=0.15, candidate=0.4, lookahead=lookahead, fill=lookahead)
    most, held, out = 0, 0, 0
    for t in range(1_000):
        # Somebody new every few frames, at another place, and every third one in doubt.
        sure = 0.5 if t // 5 % 3 == 0 else 0.9
        place = 0.05 + 0.9 * ((t // 5 * 7) % 11) / 11
        out += len(tracker.update(detections([place], [sure], t)))
        most, held = max(most, tracker.num_tracks), max(held, len(tracker._held))
        assert len(tracker._rings.count) == 16
    assert most <= 3 and held == lookahead and out == 1_000 - lookahead
    assert len(tracker._held._hidden) <= 3
    assert out + len(tracker.finish()) == 1_000


def hota(tracker: Tracker, video: Video, pointer: PointerIdentity | None, noise: Noise) -> float:
    frames = list(truth_as_detections([video], noise, seed=0))
    if pointer is not None:
        for _, seen in frames:
            seen.tokens = pointer.tokens(torch.zeros(len(seen.boxes), 16), seen.scores)
    (tracks,) = associate(frames, tracker, pointer)
    counts = count_tracking(TrackingSequence(video.table, tracks.table, video.info.length))
    return float(tracking_metrics(counts)["HOTA"])


def check_untrained(video: Video, noise: Noise, behind: float) -> None:
    with torch.no_grad():
        own = hota(build_option("tracker", "identity"), video, head(), noise)
    oracle = hota(build_option("tracker", "oracle"), video, None, noise)
    assert own > oracle - behind


def test_an_untrained_head_tracks_drawn_walkers_almost_like_the_oracle() -> None:
    check_untrained(walk(people=5, frames=60), Noise(0.05, 0.05, 0.2), behind=0.04)


@pytest.mark.parametrize(
    ("noise", "behind"), [(Noise(0.05, 0.05, 0.2), 0.04), (Noise(0.2, 0.1, 1.0), 0.07)]
)
def test_an_untrained_head_tracks_real_people_almost_like_the_oracle(
    shared: Path, noise: Noise, behind: float
) -> None:
    source = MotFolder(root=shared / "data" / "mot", classes={1: "person"})
    (video,) = source.sequences(["ADL-Rundle-6:401-525"])
    check_untrained(video, noise, behind)
