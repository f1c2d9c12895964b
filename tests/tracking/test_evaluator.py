"""The evaluator: perfect boxes, sequences that change, counts that add up."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from scene_track.data.boxes import to_pixels
from scene_track.models.predictions import DensePredictions, ScenePredictions
from scene_track.tracking.inference import window_detections
from tests.compose import TINY, compose_run, feed, make_batch, videos_of


def perfect(batch) -> ScenePredictions:
    """Predictions that are exactly the ground truth, plus one query that is sure of nothing."""
    b, t, m = batch.track_ids.shape
    boxes = torch.cat((batch.boxes, torch.full((b, t, 1, 4), 0.5)), dim=2)
    sure = torch.cat((torch.full((b, t, m, 1), 0.99), torch.full((b, t, 1, 1), 0.01)), dim=2)
    return ScenePredictions(
        bbox_center=boxes[..., :2],
        bbox_size=boxes[..., 2:],
        exist_conf=sure,
        cls_logits=torch.zeros(b, t, m + 1, 1),
        tokens=torch.zeros(b, t, m + 1, 32),
        layers=[],
        dense=DensePredictions(torch.full((b, t, 1, 4, 6), -9.0), torch.full((b, t, 4, 4, 6), 0.5)),
    )


@pytest.fixture
def parts():
    torch.manual_seed(0)
    cfg = compose_run([*TINY, "tracker.accept=0"])
    return instantiate(cfg.head.evaluator), instantiate(cfg.model).eval()


def test_pixels_are_left_top_width_height() -> None:
    import numpy as np

    box = to_pixels(np.array([[0.5, 0.5, 0.2, 0.4]]), (100, 200))
    assert box.tolist() == [[80.0, 30.0, 40.0, 40.0]]


def test_perfect_boxes_are_perfectly_detected_whatever_the_identities(parts) -> None:
    evaluator, model = parts
    batches = [make_batch(clips=1, frames=4) for _ in range(2)]
    batches[1].sequence_ids = ["two"]
    metrics = feed(evaluator, model, *((perfect(batch), batch) for batch in batches))
    # float32 boxes against themselves: IoU 1 up to rounding.
    for name in ("deta", "loca", "ap50", "ap75", "ap50_nms"):
        assert metrics[name] == pytest.approx(1.0, abs=1e-3), name
    assert metrics["ap50_dense"] < 0.5
    assert set(evaluator.LOGS) >= {f"val/{name}" for name in metrics}


def test_frames_of_padding_are_not_tracked(parts) -> None:
    _, model = parts
    batch = make_batch(clips=1, frames=4)
    batch.padding_mask[:, 3] = True
    seen = [t for t, _ in window_detections(model, perfect(batch), batch)]
    assert seen == [0, 1, 2]


def test_more_than_one_clip_at_a_time_is_refused(parts) -> None:
    evaluator, model = parts
    batch = make_batch(clips=2, frames=2)
    with pytest.raises(ValueError, match="one window at a time, got 2"):
        evaluator.update(model, perfect(batch), batch)


def test_the_order_of_sequences_changes_nothing_where_scores_are_equal(parts) -> None:
    _, model = parts
    batches = []
    for name, shift in (("a", 0.0), ("b", 0.3), ("c", 0.0)):  # in b no box is where it should be
        batch = make_batch(clips=1, frames=2)
        batch.sequence_ids = [name]
        predictions = perfect(batch)
        predictions.bbox_center = predictions.bbox_center + shift
        batches.append((predictions, batch))
    figures = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        evaluator = instantiate(compose_run([*TINY, "tracker.accept=0"]).head.evaluator)
        figures.append(feed(evaluator, model, *(batches[index] for index in order)))
    assert figures[0] == figures[1] == figures[2]


def test_a_video_that_was_cut_short_is_counted_as_far_as_it_was_shown(parts) -> None:
    evaluator, model = parts
    batch = make_batch(clips=1, frames=6)
    start = batch.between(0, 2)
    evaluator.reset(videos_of(batch))
    evaluator.update(model, perfect(start), start)
    assert evaluator.compute()["deta"] == pytest.approx(1.0, abs=1e-3)


def test_ground_truth_that_nobody_gave_is_named(parts) -> None:
    evaluator, model = parts
    batch = make_batch(clips=1, frames=2)
    evaluator.update(model, perfect(batch), batch)
    with pytest.raises(ValueError, match="s0"):
        evaluator.compute()


def test_a_new_epoch_starts_from_nothing(parts) -> None:
    evaluator, model = parts
    batch = make_batch(clips=1, frames=3)
    first = feed(evaluator, model, (perfect(batch), batch))
    evaluator.reset()
    assert evaluator.picture() is None
    assert feed(evaluator, model, (perfect(batch), batch)) == first
    picture = evaluator.picture()
    assert picture is not None and picture.ndim == 3 and picture.dtype.name == "uint8"


def test_positions_in_metres_are_compared_where_they_are_known() -> None:
    torch.manual_seed(0)
    cfg = compose_run([*TINY, "head=scene3d"])
    evaluator, model = instantiate(cfg.head.evaluator), instantiate(cfg.model).eval()
    batch = make_batch(clips=1, frames=2)
    batch.xyz = torch.full((1, 2, 3, 3), 2.0)
    batch.xyz[0, 0, 0] = torch.nan
    predictions = perfect(batch)
    predictions.extras = {"player_xyz": torch.full((1, 2, 4, 3), 2.0)}
    predictions.extras["player_xyz"][..., 2] = 5.0  # three metres too far
    metrics = feed(evaluator, model, (predictions, batch))
    assert metrics["xyz_error"] == pytest.approx(3.0) and metrics["xyz_found"] == 1.0
