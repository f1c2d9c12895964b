"""Bilinear sampling by gathering equals ``grid_sample``, inside, on the border and outside."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.models.sampling import gather_bilinear, sample_bilinear


@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    reach=st.sampled_from((0.5, 1.0, 3.0)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_gathering_equals_grid_sample(h: int, w: int, reach: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 4, h, w, generator=generator)
    points = (torch.rand(3, 5, 2, 2, generator=generator) - 0.5) * 2 * reach + 0.5
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5 / w, 0.5 / h]]).expand(3, 3, 2)
    points = torch.cat((points.flatten(1, 2), corners), dim=1).unsqueeze(2)
    torch.testing.assert_close(
        gather_bilinear(maps, points), sample_bilinear(maps, points), atol=1e-5, rtol=1e-5
    )
