"""Choosing thresholds: never worse than stock, never another choice, for every tracker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scene_track.config.shipped import build_option, option_values
from scene_track.data.noise import Noise
from scene_track.metrics.tracking import TrackingSequence, count_tracking, tracking_metrics
from scene_track.models.identity import PointerIdentity
from scene_track.tracking import tuning
from scene_track.tracking.baselines import ByteTrack
from scene_track.tracking.inference import associate
from scene_track.tracking.noisy_truth import truth_as_detections
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo
from scene_track.tracking.truth import read_truth
from scene_track.tracking.tuning import (
    BASELINES,
    GRIDS,
    Tunable,
    Tuned,
    beginning,
    candidates,
    light,
    tune,
)
from tests.tracking.stories import seen, walk

pytestmark = pytest.mark.slow

SEQUENCES = {name: walk(name, people=6, seed=seed) for seed, name in enumerate(("a", "b"))}
FRAMES = list(truth_as_detections(SEQUENCES.values(), Noise(), seed=0))
TRUTH = read_truth(SEQUENCES.values(), "dancetrack")
BYTETRACK = Tunable.baseline("bytetrack", duplicate_iou=0.8)


def hota(tracker: ByteTrack) -> float:
    counts = [
        count_tracking(TrackingSequence(SEQUENCES[t.video.name].table, t.table, 40))
        for t in associate(FRAMES, tracker, None)
    ]
    return float(tracking_metrics(counts[0] + counts[1])["HOTA"])


def test_the_choice_is_never_worse_than_stock_where_it_was_made() -> None:
    for seed in (0, 1):
        found = tune(BYTETRACK, FRAMES, TRUTH, combinations=8, seed=seed)
        assert found.stock_hota == pytest.approx(hota(build_option("tracker", "bytetrack")))
        assert found.hota == pytest.approx(
            hota(build_option("tracker", "bytetrack", **found.parameters))
        )
        assert found.best_hota >= found.hota >= found.stock_hota
        assert found.tried == 8 and found.sequences == ("a", "b")


def test_a_gain_that_may_be_chance_does_not_displace_the_stock_settings() -> None:
    found = tune(BYTETRACK, FRAMES, TRUTH, combinations=20, seed=0)
    assert found.best_hota - found.stock_hota > 0
    assert found.gain_error is not None and found.gain_error > 0
    if found.best_hota - found.stock_hota <= found.gain_error:
        assert found.hota == found.stock_hota
    else:
        assert found.hota == found.best_hota


class Misses(Tracker):
    """Copies the ground truth, except in frames that it does not see."""

    def __init__(self, *, missed: set[int]) -> None:
        self.missed = missed

    def start(self, video: VideoInfo, head: PointerIdentity | None) -> None:
        pass

    def update(self, detections: Detections) -> list[TrackedFrame]:
        assert detections.true_ids is not None and detections.true_boxes is not None
        rows = slice(0 if detections.frame in self.missed else None)
        ids = detections.true_ids.numpy()[rows]
        boxes = detections.true_boxes.double().numpy()[rows]
        return [TrackedFrame(detections.frame, ids, boxes, np.ones(len(ids)), ids * 0)]


def single(monkeypatch: pytest.MonkeyPatch, frames: int, stock: set[int], other: set[int]) -> Tuned:
    """The choice between two sets of missed frames of one video, 20 frames a second."""
    video = walk("one", people=3, frames=frames)
    points: list[dict[str, Any]] = [{"missed": stock}, {"missed": other}]
    monkeypatch.setattr(tuning, "candidates", lambda *_, **__: points)
    seen_there = truth_as_detections([video], Noise(), seed=0)
    return tune(
        *(Tunable("sort", Misses, points[0]), seen_there, read_truth([video], "dancetrack")),
        combinations=2,
        seed=0,
    )


def test_a_gain_on_a_single_video_must_stand_out_from_block_to_block(monkeypatch) -> None:
    everywhere = single(monkeypatch, 200, set(range(1, 201, 4)), set(range(1, 201, 8)))
    assert everywhere.gain_error is not None
    assert everywhere.best_hota - everywhere.stock_hota > 3 * everywhere.gain_error > 0
    assert everywhere.hota == everywhere.best_hota
    # Better in one half of the video and nearly as much worse in the other.
    by_turns = single(monkeypatch, 200, set(range(1, 61)), set(range(101, 155)))
    assert by_turns.gain_error is not None
    assert 0 < by_turns.best_hota - by_turns.stock_hota < by_turns.gain_error
    assert by_turns.hota == by_turns.stock_hota

    def hota_without(block: range, missed: set[int]) -> float:
        video = walk("one", people=3, frames=200)
        kept = ~np.isin(video.table.frames, list(block))
        found = kept & ~np.isin(video.table.frames, list(missed))
        sequence = TrackingSequence(video.table.select(kept), video.table.select(found), 200)
        return float(tracking_metrics(count_tracking(sequence))["HOTA"])

    blocks = [range(first, first + 20) for first in range(1, 201, 20)]
    gains = [
        hota_without(b, set(range(101, 155))) - hota_without(b, set(range(1, 61))) for b in blocks
    ]
    expected = (0.9 * sum((gain - sum(gains) / 10) ** 2 for gain in gains)) ** 0.5
    assert by_turns.gain_error == pytest.approx(expected, abs=1e-3)


def test_a_single_video_of_less_than_two_seconds_changes_nothing(monkeypatch) -> None:
    found = single(monkeypatch, 39, set(range(1, 40, 2)), {1})
    assert found.gain_error is None
    assert found.hota == found.stock_hota < found.best_hota


def test_several_rounds_keep_the_stock_settings_in_the_race() -> None:
    many = {f"s{seed}": walk(f"s{seed}", people=5, frames=20, seed=seed) for seed in range(6)}
    frames = list(truth_as_detections(many.values(), Noise(), seed=0))
    found = tune(BYTETRACK, frames, read_truth(many.values(), "dancetrack"), combinations=9, seed=0)
    assert len(found.sequences) == 6 and found.tried == 9
    counts = [
        count_tracking(TrackingSequence(many[t.video.name].table, t.table, 20))
        for t in associate(frames, build_option("tracker", "bytetrack", **found.parameters), None)
    ]
    total = sum(counts[1:], start=counts[0])
    assert found.hota == pytest.approx(tracking_metrics(total)["HOTA"])
    assert found.best_hota >= found.hota >= found.stock_hota > 0


def test_one_combination_is_the_stock_one() -> None:
    found = tune(BYTETRACK, FRAMES, TRUTH, combinations=1, seed=0)
    assert found.hota == found.stock_hota
    stock = option_values("tracker", "bytetrack")
    assert found.parameters.items() <= stock.items()


@pytest.mark.parametrize("option", BASELINES)
def test_candidates_are_different_repeatable_and_what_the_tracker_takes(option: str) -> None:
    tunable = Tunable.baseline(option, duplicate_iou=0.8)
    first = candidates(option, tunable.stock, 40, seed=0)
    stock = option_values("tracker", option)
    assert first[0].items() <= stock.items() and first[0].keys() == GRIDS[option].keys()
    assert len(first) == 40 and first == candidates(option, tunable.stock, 40, seed=0)
    assert first != candidates(option, tunable.stock, 40, seed=1)
    assert len({tuple(point.items()) for point in first}) == 40
    for point in first:
        tunable.build(**point)
    with pytest.raises(ValueError, match="expected at least 1"):
        candidates(option, tunable.stock, 0, seed=0)


def test_thresholds_rise_and_buffers_grow() -> None:
    stock = Tunable.baseline("cbiou", duplicate_iou=0.8).stock
    for point in candidates("cbiou", stock, 60, seed=0):
        scores = ("keep", "high_conf_det_threshold", "track_activation_threshold")
        assert [point[name] for name in scores] == sorted(point[name] for name in scores)
        assert point["buffer_ratio_first"] <= point["buffer_ratio_second"]


def test_frames_that_were_gated_once_tune_to_the_same() -> None:
    lightened = [(v, light(d, 0.8)) for v, d in FRAMES]
    assert tune(BYTETRACK, FRAMES, TRUTH, combinations=3, seed=0) == tune(
        BYTETRACK, lightened, TRUTH, combinations=3, seed=0
    )


def test_nothing_below_the_lowest_keep_is_stored() -> None:
    kept = light(seen([0.2, 0.5, 0.8], 1, [0.05, 0.15, 0.9]), 0.8)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.15])


def test_the_beginning_of_a_video_has_its_name_and_its_rows() -> None:
    cut = beginning(SEQUENCES["a"], 10)
    assert cut.name == "a" and len(cut) == 10 and cut.table.frames.max() == 10
    assert beginning(SEQUENCES["a"], 40) is SEQUENCES["a"]


def test_no_frames_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no frames"):
        tune(BYTETRACK, [], {}, combinations=2, seed=0)
