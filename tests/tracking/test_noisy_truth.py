"""Ground truth with stated errors: the rates hold, the seed decides, the truth stays beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scene_track.data.noise import EXACT, Noise
from scene_track.tracking.noisy_truth import truth_as_detections
from tests.tracking.stories import walk

LONG = walk(people=5, frames=1200)


def test_without_noise_it_is_the_ground_truth() -> None:
    sequence = walk()
    frames = list(truth_as_detections([sequence], EXACT, seed=0))
    assert [d.frame for _, d in frames] == sequence.frames.tolist()
    video = frames[0][0]
    assert (video.name, video.frame_rate, video.height, video.width) == ("walk", 20.0, 200, 400)
    scale = torch.tensor((video.width, video.height, video.width, video.height)).double()
    for position, (_, d) in enumerate(frames):
        rows = sequence.rows(position)
        corner = (d.boxes.double() * scale).numpy()
        corner[:, :2] -= corner[:, 2:] / 2
        np.testing.assert_allclose(corner, sequence.table.boxes[rows], atol=1e-3)
        assert (d.scores == 1).all() and d.tokens is None
        assert d.true_ids is not None and d.true_ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("misses", [0.05, 0.3])
def test_misses_hold(misses: float) -> None:
    noise = Noise(misses=misses, jitter=0, false_positives=0)
    found = sum(len(d.boxes) for _, d in truth_as_detections([LONG], noise, seed=1))
    share = 1 - found / len(LONG.table)
    assert share == pytest.approx(misses, abs=4 * np.sqrt(misses * (1 - misses) / 6000))


def test_jitter_holds_on_centre_and_size() -> None:
    errors = []
    for _, d in truth_as_detections([LONG], Noise(0, 0.05, 0), seed=1):
        assert d.true_boxes is not None
        shift = (d.boxes[:, :2] - d.true_boxes[:, :2]) / d.true_boxes[:, 2:]
        errors.append(torch.cat((shift, (d.boxes[:, 2:] / d.true_boxes[:, 2:]).log()), dim=1))
    error = torch.cat(errors)
    assert error.std(0).numpy() == pytest.approx(np.full(4, 0.05), rel=0.05)
    assert error.mean(0).abs().max() < 0.003


def test_false_positives_hold_and_look_like_people_of_the_video() -> None:
    noise = Noise(misses=1, jitter=0, false_positives=0.2)
    frames = [d for _, d in truth_as_detections([LONG], noise, seed=1)]
    counts = np.array([len(d.boxes) for d in frames])
    assert counts.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.2 / 1200))
    assert counts.var() == pytest.approx(0.2, rel=0.3)  # Poisson: variance = mean
    boxes = torch.cat([d.boxes for d in frames])
    assert boxes[:, 2:].numpy() == pytest.approx(np.tile((30 / 400, 60 / 200), (len(boxes), 1)))
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    assert (low > -1e-6).all() and (high < 1 + 1e-6).all()
    assert boxes[:, 0].std() > 0.2  # all over the place


def test_scores_tell_true_from_false_but_not_always() -> None:
    true, false = (
        torch.cat([d.scores for _, d in truth_as_detections([LONG], noise, seed=1)])
        for noise in (Noise(0, 0.05, 0), Noise(1, 0, 0.5))
    )
    assert true.mean() > false.mean() + 0.2
    assert 0 < (false > true.median()).float().mean() < 0.2


def test_the_seed_and_the_name_decide_not_the_company() -> None:
    def boxes(sequences, seed: int) -> torch.Tensor:
        return torch.cat(
            [
                d.boxes
                for v, d in truth_as_detections(sequences, Noise(), seed=seed)
                if v.name == "walk"
            ]
        )

    alone = boxes([walk()], 1)
    assert torch.equal(alone, boxes([walk("other", seed=3), walk()], 1))
    different = boxes([walk()], 2)
    assert alone.shape != different.shape or not torch.equal(alone, different)


def test_frames_with_gaps_keep_their_numbers() -> None:
    whole = walk()
    part = whole.between(11, 20)
    assert [d.frame for _, d in truth_as_detections([part], EXACT, seed=0)] == list(range(11, 21))


def test_a_sequence_without_ground_truth_is_refused() -> None:
    bare = replace(walk(), labelled=False)
    with pytest.raises(ValueError, match="walk has no gt/gt.txt"):
        list(truth_as_detections([bare], EXACT, seed=0))
