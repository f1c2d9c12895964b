"""Frames held back: gaps that are filled, beginnings in doubt, and memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.tracking.lookahead import HeldFrames
from scene_track.tracking.tracker import TrackedFrame


def push(
    held: HeldFrames,
    frame: int,
    people: dict[int, float],
    hidden: tuple[int, ...] = (),
    seconds: float | None = None,
):
    """People by key, each at a place along the picture; 10 frames per second without times."""
    keys = np.array(list(people), dtype=np.int64)
    boxes = np.array([(x, 0.5, 0.1, 0.3) for x in people.values()]).reshape(-1, 4)
    scores, labels = np.full(len(keys), 0.9), np.zeros(len(keys), dtype=np.int64)
    held.push(
        frame,
        frame / 10 if seconds is None else seconds,
        keys,
        boxes,
        scores,
        labels,
        np.isin(keys, hidden),
    )


def places(frames: list[TrackedFrame]) -> list[dict[int, float]]:
    return [dict(zip(f.ids.tolist(), f.boxes[:, 0].tolist(), strict=True)) for f in frames]


def test_frames_come_out_in_order_as_late_as_asked_for() -> None:
    held = HeldFrames(lookahead=2)
    out = []
    for frame in range(1, 6):
        push(held, frame, {1: 0.5})
        out.append([f.frame for f in held.release()])
        assert len(held) <= 2
    assert out == [[], [], [1], [2], [3]]
    assert [f.frame for f in held.release(everything=True)] == [4, 5]


def test_a_short_gap_is_filled_on_a_straight_line() -> None:
    held = HeldFrames(lookahead=5, fill=2)
    for frame, people in enumerate([{1: 0.2}, {}, {}, {1: 0.5}], start=1):
        push(held, frame, people)
    assert [p[1] for p in places(held.release(everything=True))] == pytest.approx(
        [0.2, 0.3, 0.4, 0.5]
    )


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_a_gap_as_long_as_the_lookahead_is_filled(gap: int) -> None:
    held = HeldFrames(lookahead=gap, fill=gap)
    out: list[TrackedFrame] = []
    for frame in range(1, gap + 3):
        push(held, frame, {1: frame / 10} if frame in (1, gap + 2) else {})
        out += held.release()
    filled = places(out + held.release(everything=True))
    assert [p[1] for p in filled] == pytest.approx([f / 10 for f in range(1, gap + 3)])


def test_gaps_are_filled_at_constant_speed_in_seconds() -> None:
    held = HeldFrames(lookahead=5, fill=2)
    for frame, (seconds, people) in enumerate([(1.0, {1: 0.1}), (1.1, {}), (2.0, {1: 1.0})]):
        push(held, frame, people, seconds=seconds)
    assert places(held.release(everything=True))[1][1] == pytest.approx(0.19)


def test_a_longer_gap_stays_open() -> None:
    held = HeldFrames(lookahead=5, fill=1)
    for frame, people in enumerate([{1: 0.2}, {}, {}, {1: 0.5}], start=1):
        push(held, frame, people)
    assert [1 in p for p in places(held.release(everything=True))] == [True, False, False, True]


def test_no_box_is_filled_in_where_somebody_else_was_seen() -> None:
    held = HeldFrames(lookahead=5, fill=2)
    for frame, people in enumerate([{1: 0.2}, {2: 0.31}, {2: 0.8}, {1: 0.5}], start=1):
        push(held, frame, people)
    filled = places(held.release(everything=True))
    assert 1 not in filled[1] and filled[2][1] == pytest.approx(0.4)


def test_a_beginning_in_doubt_is_shown_if_it_turns_out_to_be_somebody() -> None:
    held = HeldFrames(lookahead=5)
    push(held, 1, {-1: 0.2, -2: 0.7}, hidden=(-1, -2))
    push(held, 2, {-1: 0.22}, hidden=(-1,))
    held.forget(np.array([-2]))
    held.reveal(-1, 7)
    push(held, 3, {7: 0.24})
    assert places(held.release(everything=True)) == [{7: 0.2}, {7: 0.22}, {7: 0.24}]


def test_a_beginning_in_doubt_is_not_shown_if_nothing_comes_of_it() -> None:
    held = HeldFrames(lookahead=1)
    for frame in range(1, 5):
        push(held, frame, {-1: 0.2}, hidden=(-1,))
        assert all(p == {} for p in places(held.release()))
    assert places(held.release(everything=True)) == [{}]
