"""The evaluator of a ball: hand cases in original pixels, clips that change, frames held back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from scene_track.ball.point_files import PointRules, read_points
from scene_track.ball.report import BallReport
from scene_track.models.predictions import HeatmapPredictions
from scene_track.objectives.losses import draw_point_heatmap
from scene_track.tracking.inference import associate, video_of
from tests.compose import (
    TINY_BALL,
    compose_run,
    feed,
    make_ball_batch,
    without_ball,
)


def heat_at(batch, shift_px: float = 0.0, heat: float = 1.0) -> HeatmapPredictions:
    """Heatmaps whose peak lies ``shift_px`` of the original to the right of the ball."""
    points = batch.boxes[..., :2].clone()
    points[..., 0] += shift_px / batch.original_size[0, 1]
    drawn = draw_point_heatmap(
        points.flatten(0, 1), batch.valid.flatten(0, 1), 32, 48, sigma=1.5
    ).unflatten(0, batch.padding_mask.shape)
    return HeatmapPredictions(torch.logit((drawn * heat).clamp(1e-6, 1 - 1e-6)).unsqueeze(2))


MODEL = SimpleNamespace(identity=None)


def evaluator(*overrides: str):
    return instantiate(compose_run([*TINY_BALL, *overrides]).head.evaluator)


@pytest.mark.parametrize(
    ("shift", "hits"), [(0.0, (1, 1, 1, 1)), (3.0, (0, 1, 1, 1)), (7.0, (0, 0, 0, 1))]
)
def test_pck_is_in_pixels_of_the_original(shift: float, hits: tuple[int, ...]) -> None:
    batch = make_ball_batch(clips=1, frames=3)  # 96 x 64 original, 48 x 32 seen
    one = evaluator()
    metrics = feed(one, MODEL, (heat_at(batch, shift), batch))
    assert [metrics[f"pck_{k}"] for k in (2, 4, 5, 10)] == list(hits)
    assert metrics["l2_mean"] == pytest.approx(shift, abs=0.15)
    assert metrics["l2_median"] == pytest.approx(shift, abs=0.15)
    assert metrics["f1_wasb"] == (1.0 if shift < 4 else 0.0)
    assert {f"val/{name}" for name in metrics} | {"val/loss"} == set(one.LOGS)


def test_a_faint_heat_is_no_ball_and_an_absent_ball_is_no_miss() -> None:
    seen, absent = make_ball_batch(clips=1, frames=2), without_ball(make_ball_batch(1, 2))
    absent.sequence_ids = ["other"]
    one = evaluator()
    metrics = feed(one, MODEL, (heat_at(seen, heat=0.2), seen), (heat_at(absent), absent))
    assert metrics["pck_10"] == 0 and metrics["l2_mean"] == float("inf")
    assert metrics["recall_wasb"] == 0 and metrics["visibility_accuracy"] == 0.5
    sure = evaluator("tracker.threshold=0.1")
    assert feed(sure, MODEL, (heat_at(seen, heat=0.2), seen))["pck_2"] == 1.0


def test_frames_without_annotation_and_padding_do_not_count() -> None:
    batch = make_ball_batch(clips=1, frames=4)
    assert batch.points is not None
    batch.points[0, 1] = (np.nan, np.nan, -1)
    batch.padding_mask[0, 3] = True
    right = heat_at(batch)
    right.heatmap_logits[0, 1] = right.heatmap_logits[0, 1].flip(-1)  # somewhere else
    one = evaluator()
    assert feed(one, MODEL, (right, batch))["pck_2"] == 1.0


def test_windows_of_clips_with_a_tracker_that_lags_are_one_story() -> None:
    whole = evaluator()
    lagging = evaluator("tracker=ball", "tracker.lookahead=3", "tracker.fill=2")
    figures = []
    for one in (whole, lagging):
        windows = []
        for name in ("a", "b"):
            batch = make_ball_batch(clips=1, frames=6)
            batch.sequence_ids = [name]
            heat = heat_at(batch)
            heat.heatmap_logits[0, 3] = -9.0  # lost for a frame
            for start in (0, 2, 4):
                part = HeatmapPredictions(heat.heatmap_logits[:, start : start + 2])
                windows.append((part, batch.between(start, start + 2)))
        figures.append(feed(one, MODEL, *windows)["pck_5"])
    assert figures == [pytest.approx(5 / 6), 1.0]
    picture = whole.picture()
    assert picture is not None and picture.dtype == np.uint8 and picture.ndim == 3
    whole.reset()
    assert whole.picture() is None


def test_features_in_place_of_pictures_are_evaluated_without_a_sheet() -> None:
    batch = make_ball_batch(clips=1, frames=3)
    heat = heat_at(batch)
    batch.frames = batch.frames[..., :0, :0]
    one = evaluator()
    assert feed(one, MODEL, (heat, batch))["pck_2"] == 1.0
    assert one.picture() is None


def test_pictures_are_copied_for_the_frames_that_are_wanted_alone(monkeypatch) -> None:
    one = evaluator("viz.max_frames=1")
    added = []
    monkeypatch.setattr(one.visualiser, "add_frame", lambda *frame: added.append(frame[-1]))
    monkeypatch.setattr(one.visualiser, "wanted", iter([False, True, False, False]).__next__)
    batch = make_ball_batch(clips=1, frames=4)
    feed(one, MODEL, (heat_at(batch), batch))
    assert added == ["s0 frame 2"]


def test_boxes_are_refused_with_what_to_type() -> None:
    batch = make_ball_batch(clips=1)
    batch.points = None
    with pytest.raises(ValueError, match="dataset=tracknet"):
        evaluator().update(MODEL, heat_at(batch), batch)


def test_a_result_file_has_a_row_for_every_frame_in_pixels_of_the_footage(tmp_path: Path) -> None:
    batch = make_ball_batch(clips=1, frames=3)
    heat = heat_at(batch)
    heat.heatmap_logits[0, 1] = -9.0
    one = evaluator()
    detections = [(video_of(batch), seen) for _, seen in one.read(None, heat, batch)]
    (tracks,) = associate(detections, one.tracker, None)
    BallReport.write_tracks(tmp_path, tracks)
    table, problems = read_points(
        tmp_path / "s0.csv", PointRules(every_frame=True, frames=[1, 2, 3])
    )
    assert not problems and table.visibility.tolist() == [1, 0, 1]
    assert batch.points is not None
    np.testing.assert_allclose(table.xy[[0, 2]], batch.points[0, [0, 2], :2], atol=0.15)
