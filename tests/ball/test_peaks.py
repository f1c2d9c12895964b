"""Where the ball is in a heatmap: to a fraction of a cell, in every corner, and which peaks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.ball.peaks import expected_position, find_peaks
from scene_track.objectives.losses import draw_point_heatmap


def logits_of(*points: tuple[float, float], height: int = 24, width: int = 40, sigma: float = 1.5):
    """A perfect heatmap of one frame, as logits."""
    heat = draw_point_heatmap(
        torch.tensor([points]), torch.ones(1, len(points), dtype=torch.bool), height, width,
        sigma=sigma,
    )  # fmt: skip
    return torch.logit(heat.clamp(1e-6, 1 - 1e-6))


@settings(deadline=None, max_examples=50)
@given(
    x=st.floats(0.2, 0.8),
    y=st.floats(0.25, 0.75),
    refine=st.sampled_from(["parabola", "softargmax"]),
)
def test_a_drawn_point_is_read_back_to_a_twentieth_of_a_cell(x: float, y: float, refine) -> None:
    places, heat = find_peaks(logits_of((x, y)), 1, refine=refine, radius=4)
    away = (places[0, 0] - torch.tensor((x, y))) * torch.tensor((40.0, 24.0))
    assert away.abs().max() < 0.05
    assert 0.7 < heat[0, 0] <= 1


@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 1.0), (0.0, 0.999), (0.5, 0.0)])
@pytest.mark.parametrize("refine", ["argmax", "parabola", "softargmax"])
def test_a_peak_at_the_border_stays_on_the_canvas(corner: tuple[float, float], refine) -> None:
    places, _ = find_peaks(logits_of(corner), 1, refine=refine)
    assert (places >= 0).all() and (places <= 1).all()
    away = (places[0, 0] - torch.tensor(corner)) * torch.tensor((40.0, 24.0))
    assert away.abs().max() <= 1.5  # where half of the bump is missing


def test_a_parabola_does_not_push_a_peak_out_of_a_border_cell() -> None:
    """Along the border it is refined, across it there is no neighbour to refine with."""
    point = torch.tensor((0.5 / 40, 10.8 / 24))
    places, _ = find_peaks(logits_of((point[0].item(), point[1].item())), 1, refine="parabola")
    away = (places[0, 0] - point) * torch.tensor((40.0, 24.0))
    assert away.abs().max() < 0.05


def test_argmax_is_the_centre_of_the_hottest_cell() -> None:
    logits = torch.full((1, 4, 8), -5.0)
    logits[0, 2, 5] = 3.0
    places, heat = find_peaks(logits, 1, refine="argmax")
    assert places[0, 0].tolist() == [5.5 / 8, 2.5 / 4]
    assert heat[0, 0] == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())


def test_peaks_come_hottest_first_and_apart() -> None:
    logits = torch.maximum(logits_of((0.21, 0.31)), logits_of((0.81, 0.69)) - 1.0)
    places, heat = find_peaks(logits, 2)
    assert heat[0, 0] > heat[0, 1] > 0.1
    torch.testing.assert_close(places[0, 0], torch.tensor((0.21, 0.31)), atol=0.02, rtol=0)
    torch.testing.assert_close(places[0, 1], torch.tensor((0.81, 0.69)), atol=0.02, rtol=0)


def test_a_map_with_fewer_peaks_fills_up_with_none() -> None:
    _, heat = find_peaks(logits_of((0.5, 0.5)), 200, radius=20)
    assert (heat[0] > 0.01).sum() == 1 and (heat[0, -1] == 0).all()


def test_the_soft_argmax_of_all_cells_has_a_gradient_towards_the_point() -> None:
    logits = torch.zeros(1, 8, 8, requires_grad=True)
    expected_position(logits)[0, 0].backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, 4:] > 0).all() and (logits.grad[0, :, :4] < 0).all()
    sharp = torch.full((1, 8, 8), -50.0)
    sharp[0, 2, 6] = 50.0
    torch.testing.assert_close(expected_position(sharp)[0], torch.tensor((6.5 / 8, 2.5 / 8)))
