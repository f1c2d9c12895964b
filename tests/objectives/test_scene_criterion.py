"""The set criterion: what a perfect answer costs, how sums add up, and what emptiness does."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from scene_track.data.batch import SceneBatch
from scene_track.models.predictions import DensePredictions, LayerPredictions, ScenePredictions
from tests.compose import TINY, compose_run, make_batch, without_objects

QUERIES = 5


def answers(batch: SceneBatch, *, sure: float = 12.0, shift: float = 0.0) -> ScenePredictions:
    """Predictions whose first queries are exactly the objects (moved by ``shift``)."""
    b, t, m = batch.track_ids.shape
    boxes = torch.rand(b, t, QUERIES, 4, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.85
    boxes[:, :, :m] = batch.boxes + shift * torch.tensor((1.0, 0.0, 0.0, 0.0))
    logits = torch.full((b, t, QUERIES, 1), -sure)
    logits[:, :, :m] = torch.where(batch.valid, sure, -sure).unsqueeze(-1)
    boxes, logits = boxes.requires_grad_(), logits.requires_grad_()
    layer = LayerPredictions(cls_logits=logits, exist_logits=logits, boxes=boxes)
    return ScenePredictions(
        bbox_center=boxes[..., :2],
        bbox_size=boxes[..., 2:],
        exist_conf=logits.sigmoid(),
        cls_logits=logits,
        tokens=torch.randn(b, t, QUERIES, 32, generator=torch.Generator().manual_seed(2)),
        layers=[layer, layer],
        dense=DensePredictions(
            heat_logits=torch.full((b, t, 1, 4, 6), -12.0), boxes=torch.full((b, t, 4, 4, 6), 0.5)
        ),
    )


@pytest.fixture
def parts():
    torch.manual_seed(0)
    cfg = compose_run(TINY)
    return instantiate(cfg.head.criterion), instantiate(cfg.model)


def test_perfect_answers_cost_nothing_in_the_set_losses(parts) -> None:
    criterion, model = parts
    batch = make_batch()
    losses = criterion(answers(batch), batch, model=model)
    for name in ("class", "exist", "l1", "giou", "aux_class", "aux_l1", "aux_giou"):
        assert losses[name] < 1e-3, name
    assert losses["num_matches"] == losses["num_targets"] == 18


def test_box_losses_are_those_of_the_hand_drawn_case(parts) -> None:
    criterion, model = parts
    batch = make_batch()
    losses = criterion(answers(batch, shift=0.05), batch, model=model)
    # Boxes of width 0.2 moved by 0.05: IoU = GIoU = 0.15 / 0.25.
    torch.testing.assert_close(losses["l1"], torch.tensor(0.05), atol=1e-5, rtol=0)
    torch.testing.assert_close(losses["giou"], torch.tensor(0.4), atol=1e-4, rtol=0)


def test_matches_too_far_away_teach_no_box(parts) -> None:
    criterion, model = parts
    batch = make_batch()
    losses = criterion(answers(batch, shift=0.19), batch, model=model)
    assert losses["l1"] == 0 and losses["giou"] == 0
    criterion.max_match_distance = None
    assert criterion(answers(batch, shift=0.19), batch, model=model)["l1"] > 0.1


def test_nobody_in_the_batch_gives_finite_losses_and_gradients(parts) -> None:
    criterion, model = parts
    batch = without_objects(make_batch())
    predictions = answers(batch)
    losses = criterion(predictions, batch, model=model)
    losses["total"].backward()
    assert losses["total"].isfinite() and losses["num_targets"] == 0
    grad = predictions.layers[0].cls_logits.grad
    assert grad is not None and grad.isfinite().all()


def test_padding_frames_cost_nothing(parts) -> None:
    criterion, model = parts
    batch = make_batch(frames=3)
    criterion.identity = None
    predictions = answers(batch, shift=0.05)
    batch.padding_mask[:, 2] = True
    padded = criterion(predictions, batch, model=model)
    with torch.no_grad():
        predictions.layers[0].cls_logits[:, 2] = 50.0
        predictions.dense.heat_logits[:, 2] = 50.0
    garbage = criterion(predictions, batch, model=model)
    torch.testing.assert_close(padded["total"], garbage["total"])
    assert padded["num_targets"] == 12


def test_lambda_dn_weighs_the_denoising_losses_and_nothing_else(parts) -> None:
    criterion, model = parts
    criterion.identity = None
    cfg = compose_run(TINY)
    batch = make_batch()
    queries = instantiate(cfg.denoiser)(
        batch.boxes.flatten(0, 1), batch.labels.flatten(0, 1), batch.valid.flatten(0, 1), QUERIES
    )
    predictions = answers(batch, shift=0.05)
    slots = queries.valid.shape[1]
    noise = torch.rand(2, 3, slots, 4) * 0.5 + 0.1
    zeros = torch.zeros(2, 3, slots, 1)
    predictions.denoising = [LayerPredictions(zeros, zeros, noise)]
    predictions.denoising_queries = queries
    none, one, two = (
        criterion(predictions, batch, model=model, lambda_dn=value)["total"] for value in (0, 1, 2)
    )
    torch.testing.assert_close(two - one, one - none)
    assert one > none
    predictions.denoising = []
    torch.testing.assert_close(none, criterion(predictions, batch, model=model)["total"])
