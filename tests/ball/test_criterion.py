"""The heatmap losses: beside naive loops, by hand, and what visibility masks."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from scene_track.ball.criterion import ClassWeights, HeatmapCriterion
from scene_track.models.predictions import HeatmapPredictions
from scene_track.objectives.losses import (
    draw_point_heatmap,
    heatmap_focal_loss,
    heatmap_mse_loss,
    quality_focal_loss,
)
from tests.compose import TINY_BALL, compose_run, make_ball_batch

LOSSES = ("mse", "focal", "quality_focal")


@cache
def shipped_node() -> DictConfig:
    return compose_run(TINY_BALL).head.criterion


def criterion_of(**changes: Any) -> HeatmapCriterion:
    """The shipped criterion with other arguments."""
    return instantiate(shipped_node(), **changes)


def predictions(batch, size: tuple[int, int] = (16, 24), seed: int = 0) -> HeatmapPredictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch.padding_mask.shape, 1, *size)
    return HeatmapPredictions(torch.randn(shape, generator=generator).requires_grad_())


def test_a_gaussian_stands_on_the_point_itself() -> None:
    points = torch.tensor([[(0.35, 0.6)], [(-0.05, 0.5)]])
    heat = draw_point_heatmap(points, torch.ones(2, 1, dtype=torch.bool), 5, 10, sigma=1.3)
    for n, (x, y) in enumerate(points[:, 0].tolist()):
        for row in range(5):
            for column in range(10):
                away = (column + 0.5 - 10 * x) ** 2 + (row + 0.5 - 5 * y) ** 2
                wanted = math.exp(-away / (2 * 1.3**2))
                assert heat[n, row, column].item() == pytest.approx(wanted, abs=1e-5)


def test_no_ball_is_an_empty_map_and_two_balls_are_the_greater_of_both() -> None:
    points = torch.tensor([[(0.2, 0.5), (0.7, 0.5)]])
    both = draw_point_heatmap(points, torch.tensor([[True, True]]), 6, 8, sigma=1.0)
    one = draw_point_heatmap(points, torch.tensor([[True, False]]), 6, 8, sigma=1.0)
    other = draw_point_heatmap(points, torch.tensor([[False, True]]), 6, 8, sigma=1.0)
    torch.testing.assert_close(both, torch.maximum(one, other))
    assert (
        draw_point_heatmap(points, torch.zeros(1, 2, dtype=torch.bool), 6, 8, sigma=1.0).sum() == 0
    )


def test_quality_focal_and_mse_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, generator=generator)
    target = torch.rand(2, 3, 4, generator=generator)
    quality = quality_focal_loss(logits, target, gamma=2.0)
    squared = heatmap_mse_loss(logits, target)
    for place in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        p, y = 1 / (1 + math.exp(-logits[place].item())), target[place].item()
        entropy = -(y * math.log(p) + (1 - y) * math.log(1 - p))
        assert quality[place].item() == pytest.approx(abs(y - p) ** 2 * entropy, rel=1e-4)
        assert squared[place].item() == pytest.approx((p - y) ** 2, rel=1e-4)
    assert quality_focal_loss(torch.logit(target), target).abs().max() < 1e-9


def test_the_penalty_reduced_focal_loss_has_one_positive_the_cell_that_holds_the_ball() -> None:
    batch = make_ball_batch(clips=1, frames=1)
    batch.boxes[0, 0, 0, :2] = torch.tensor((0.37, 0.52))  # column 8 of 24, row 8 of 16
    criterion = criterion_of(loss="focal", sigma=1.5, alpha=2.0, beta=4.0)
    logits = predictions(batch).heatmap_logits
    losses = criterion(HeatmapPredictions(logits), batch)
    target = draw_point_heatmap(
        batch.boxes[0, :, :1, :2], torch.ones(1, 1, dtype=torch.bool), 16, 24, sigma=1.5
    )[0]
    total = 0.0
    for row in range(16):
        for column in range(24):
            p = torch.sigmoid(logits[0, 0, 0, row, column]).item()
            if (row, column) == (8, 8):
                total -= (1 - p) ** 2 * math.log(p)
            else:
                total -= (1 - target[row, column].item()) ** 4 * p**2 * math.log(1 - p)
    assert losses["heatmap"].item() == pytest.approx(total, rel=1e-3)
    assert target.max() < 1  # which the loss of CornerNet alone would have no positive in
    assert heatmap_focal_loss(logits[0, 0, 0], target).argmin() >= 0


def test_a_ball_that_is_mixed_in_is_a_positive_by_its_share() -> None:
    batch = make_ball_batch(clips=1, frames=1)
    batch.boxes[0, 0, 0, :2] = torch.tensor((0.37, 0.52))  # column 8 of 24, row 8 of 16
    pulls = []
    for share in (1.0, 0.5, 0.05):
        batch.confidence[...] = share
        given = predictions(batch)
        criterion_of(loss="focal")(given, batch)["total"].backward()
        assert given.heatmap_logits.grad is not None
        pulls.append(-given.heatmap_logits.grad[0, 0, 0, 8, 8].item())
    assert pulls[0] > pulls[1] > 0 > pulls[2]  # nearly no ball is nearly an empty map


@pytest.mark.parametrize("loss", LOSSES)
def test_frames_without_annotation_and_padding_teach_nothing(loss) -> None:
    batch = make_ball_batch(clips=2, frames=3)
    batch.visibility[0, 1] = -1
    batch.track_ids[0, 1] = -1
    batch.padding_mask[1, 2] = True
    given = predictions(batch)
    losses = criterion_of(loss=loss, weight_coordinate=1.0)(given, batch)
    losses["total"].backward()
    gradient = given.heatmap_logits.grad
    assert gradient is not None
    assert (gradient[0, 1] == 0).all() and (gradient[1, 2] == 0).all()
    assert all((gradient[b, t] != 0).any() for b, t in [(0, 0), (0, 2), (1, 0), (1, 1)])
    assert losses["num_targets"] == 4


@pytest.mark.parametrize("loss", LOSSES)
def test_an_absent_ball_wants_an_empty_map_and_no_place(loss) -> None:
    batch = make_ball_batch(clips=1, frames=2)
    batch.visibility[0, 1], batch.track_ids[0, 1], batch.boxes[0, 1] = 0, -1, 0.0
    criterion = criterion_of(loss=loss, weight_coordinate=1.0)
    given = predictions(batch)
    losses = criterion(given, batch)
    assert losses["num_matches"] == 1 and losses["num_targets"] == 2
    losses["total"].backward()
    assert given.heatmap_logits.grad is not None
    assert (given.heatmap_logits.grad[0, 1] >= 0).all()  # every cell is pushed down
    alone = make_ball_batch(clips=1, frames=1)
    alone.boxes[0, 0] = batch.boxes[0, 0]
    first = criterion(HeatmapPredictions(given.heatmap_logits[:, :1]), alone)
    assert losses["coordinate"] * 2 == pytest.approx(first["coordinate"].item(), rel=1e-5)


def test_a_frame_weighs_by_its_visibility() -> None:
    batch = make_ball_batch(clips=1, frames=3)
    batch.visibility[0, :, 0] = torch.tensor((1, 2, 3))
    given = predictions(batch)
    parts = []
    for t in range(3):
        one = batch.between(t, t + 1)
        logits = HeatmapPredictions(given.heatmap_logits[:, t : t + 1])
        parts.append(criterion_of()(logits, one)["heatmap"].item())
    weights = ClassWeights(absent=1.0, visible=0.5, hard=2.0, occluded=3.0)
    losses = criterion_of(class_weights=weights)(given, batch)
    wanted = (0.5 * parts[0] + 2 * parts[1] + 3 * parts[2]) / 3
    assert losses["heatmap"].item() == pytest.approx(wanted, rel=1e-5)


def test_micro_batches_add_up() -> None:
    batch = make_ball_batch(clips=2, frames=2)
    batch.visibility[1, 1], batch.track_ids[1, 1] = -1, -1
    given, criterion = predictions(batch), criterion_of()
    whole = criterion(given, batch)
    sums = 0.0
    for t in range(2):
        part = criterion(
            HeatmapPredictions(given.heatmap_logits[:, t : t + 1]), batch.between(t, t + 1)
        )
        sums += (part["total"] * part["num_targets"]).item()
    assert whole["total"].item() == pytest.approx(sums / whole["num_targets"].item(), rel=1e-5)
