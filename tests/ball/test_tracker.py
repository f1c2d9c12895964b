"""Stories of a ball: a flicker elsewhere, a gap, a bounce, a false start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scene_track.config.shipped import build_option
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo

VIDEO = VideoInfo("clip", 30.0, 360, 640)


def play(tracker: Tracker, frames: list[list[tuple[float, float, float]]]) -> list[float | None]:
    """The x of the ball that is shown in each frame, of peaks (x, y, heat) per frame."""
    tracker.start(VIDEO, None)
    done = []
    for number, peaks in enumerate(frames):
        places = torch.tensor([(x, y, 0.0, 0.0) for x, y, _ in peaks]).reshape(-1, 4)
        heat = torch.tensor([score for *_, score in peaks])
        labels = torch.zeros(len(peaks), dtype=torch.long)
        done += tracker.update(Detections(number, number / 30, places, heat, labels))
    done += tracker.finish()
    assert [frame.frame for frame in done] == list(range(len(frames)))
    assert all(len(frame.ids) <= 1 for frame in done)
    return [round(float(f.boxes[0, 0]), 4) if len(f.ids) else None for f in done]


def flight(count: int, speed: float = 0.02) -> list[list[tuple[float, float, float]]]:
    """A ball that flies to the right."""
    return [[(0.2 + speed * n, 0.5, 0.8)] for n in range(count)]


def test_the_hottest_peak_frame_by_frame() -> None:
    frames = [[(0.2, 0.5, 0.4), (0.7, 0.5, 0.6)], [(0.2, 0.5, 0.2)], []]
    assert play(build_option("tracker", "peak", threshold=0.3), frames) == [0.7, None, None]


def test_a_hot_flicker_far_away_is_passed_over() -> None:
    frames = flight(8)
    frames[4].append((0.9, 0.1, 0.95))
    shown = play(build_option("tracker", "ball"), frames)
    assert shown == [round(0.2 + 0.02 * n, 4) for n in range(8)]
    assert play(build_option("tracker", "peak"), frames)[4] == 0.9


def test_a_faint_ball_near_its_path_is_kept_and_elsewhere_it_is_not() -> None:
    frames = flight(6)
    frames[4] = [(0.28, 0.5, 0.15)]
    assert play(build_option("tracker", "ball"), frames)[4] == 0.28
    frames[4] = [(0.9, 0.5, 0.15)]
    assert play(build_option("tracker", "ball"), frames)[4] is None


def test_a_ball_is_taken_up_again_behind_a_gap_and_the_gap_is_filled_on_demand() -> None:
    frames = flight(10)
    frames[4] = frames[5] = []
    causal = play(build_option("tracker", "ball"), frames)
    assert causal[4] is None and causal[5] is None and causal[6] == 0.32
    filled = play(build_option("tracker", "ball", lookahead=4, fill=3), frames)
    assert filled == [round(0.2 + 0.02 * n, 4) for n in range(10)]
    assert play(build_option("tracker", "ball", lookahead=4, fill=1), frames)[4] is None


def test_a_ball_behind_a_jump_in_the_numbers_of_frames_is_another_one() -> None:
    tracker = build_option("tracker", "ball", max_misses=6)
    label = torch.zeros(1, dtype=torch.long)

    def links(frame: int) -> bool:
        tracker.start(VIDEO, None)
        for number, x in ((0, 0.2), (frame, 0.3)):
            place, heat = torch.tensor([[x, 0.5, 0, 0]]), torch.tensor([0.8])
            tracker.update(Detections(number, 0.0, place, heat, label))
        return len(tracker._tracks) == 1 and tracker._tracks[0].key == 1

    assert links(7) and not links(8) and not links(100)


def test_a_hit_that_turns_the_ball_around() -> None:
    frames = [[(0.5 - 0.02 * abs(n - 4), 0.5, 0.8)] for n in range(9)]
    assert None not in play(build_option("tracker", "ball"), frames)


def test_a_false_start_gives_way_to_the_ball() -> None:
    frames = [[(0.9, 0.9, 0.6)], [(0.9, 0.9, 0.5)], *flight(8)]
    assert play(build_option("tracker", "ball"), frames)[-1] == pytest.approx(0.34)


def test_the_gate_is_round_in_pixels() -> None:
    start = [[(0.5, 0.5, 0.8)], [(0.5, 0.5, 0.8)]]
    tracker = build_option("tracker", "ball", gate=0.06, threshold=0.3)
    inside, outside = [(0.5, 0.5 + 0.1, 0.29)], [(0.5, 0.5 + 0.12, 0.29)]  # of the height
    assert play(tracker, [*start, inside])[2] == 0.5
    assert play(tracker, [*start, outside])[2] is None


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="type tracker.lookahead=3"):
        build_option("tracker", "ball", fill=3)
    with pytest.raises(ValueError, match=r"tracker.candidate=0.5 is above tracker.threshold=0.3"):
        build_option("tracker", "ball", candidate=0.5)


def test_memory_does_not_grow() -> None:
    tracker = build_option("tracker", "ball", lookahead=3, fill=2)
    tracker.start(VIDEO, None)
    generator = np.random.default_rng(0)
    for number in range(500):
        places = torch.from_numpy(generator.random((5, 4)))
        heat = torch.from_numpy(generator.random(5))
        labels = torch.zeros(5, dtype=torch.long)
        tracker.update(Detections(number, number / 30, places, heat, labels))
        assert len(tracker._tracks) <= 5 * (tracker.max_misses + 1)
