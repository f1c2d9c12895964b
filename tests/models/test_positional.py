"""Positional codes: what must hold for every position, and hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.models.positional import (
    AbsoluteTimeEmbedding,
    RelativeTimeEmbedding,
    RotaryEmbedding1d,
    sincos,
    sincos_2d,
)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(0, 2000), gap=st.floats(-40, 40))
def test_rotary_depends_on_differences_only(shift: float, gap: float) -> None:
    torch.manual_seed(0)
    rotary = RotaryEmbedding1d(16)
    query, key = torch.randn(2, 1, 1, 1, 16)
    zero = torch.zeros(1, 1)
    here = (rotary(query, zero) * rotary(key, zero + gap)).sum()
    there = (rotary(query, zero + shift) * rotary(key, zero + shift + gap)).sum()
    assert torch.allclose(here, there, atol=5e-3)


def test_rotary_by_hand() -> None:
    # two frequencies, 1 and 100 ** -0.5 = 0.1; channel i pairs with i + 2
    x = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    turned = RotaryEmbedding1d(4, base=100)(x, torch.tensor([[0.5]])).flatten()
    expected = [math.cos(0.5), math.cos(0.05), math.sin(0.5), math.sin(0.05)]
    assert torch.allclose(turned, torch.tensor(expected), atol=1e-6)


def test_rotary_positions_belong_to_their_row() -> None:
    rotary = RotaryEmbedding1d(8)
    x = torch.randn(2, 3, 4, 8)  # B, heads, T, d
    positions = torch.tensor([[0.0, 1, 2, 3], [10, 20, 30, 40]])
    together = rotary(x, positions)
    for row in range(2):
        alone = rotary(x[row : row + 1], positions[row : row + 1])
        assert torch.equal(together[row : row + 1], alone)


def test_rotary_tells_late_frames_apart_in_bfloat16() -> None:
    rotary = RotaryEmbedding1d(8)
    x = torch.ones(1, 1, 2, 8, dtype=torch.bfloat16)
    turned = rotary(x, torch.tensor([[256.0, 257.0]]))
    assert turned.dtype == torch.bfloat16
    assert not torch.equal(turned[..., 0, :], turned[..., 1, :])


def test_sincos_2d_agrees_with_points_and_across_sizes() -> None:
    small, large = sincos_2d(2, 4, 16), sincos_2d(6, 12, 16)
    assert small.shape == (2, 4, 16)
    # the centre of small cell (1, 2) is the centre of large cell (4, 7)
    assert torch.allclose(small[1, 2], large[4, 7], atol=1e-6)
    point = sincos(torch.tensor([2.5 / 4, 1.5 / 2]), 8)
    assert torch.allclose(small[1, 2], point, atol=1e-6)


def test_sincos_2d_gives_every_cell_its_own_code() -> None:
    codes = sincos_2d(28, 50, 64).flatten(0, 1)
    distance = torch.cdist(codes, codes) + 10 * torch.eye(len(codes))
    assert distance.min() > 0.05


def test_sincos_by_hand() -> None:
    code = sincos(torch.tensor([0.25]), 4, temperature=16.0)
    expected = [math.sin(math.pi / 2), math.sin(math.pi / 8), math.cos(math.pi / 2)]
    assert torch.allclose(code, torch.tensor([*expected, math.cos(math.pi / 8)]), atol=1e-6)


def test_absolute_time_spans_horizon_to_nyquist() -> None:
    embed = AbsoluteTimeEmbedding(dim=32, fps=20, horizon_s=60)
    frequencies = embed.frequencies
    assert frequencies[0].item() == pytest.approx(2 * math.pi / 60, rel=1e-5)
    assert frequencies[-1].item() == pytest.approx(0.45 * 2 * math.pi * 20, rel=1e-5)
    ratios = frequencies[1:] / frequencies[:-1]
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-4)
    out = embed(torch.tensor([[0.0, 1.5], [2.0, 59.0]]))
    assert out.shape == (2, 2, 32)
    assert torch.allclose(out[0, 0], torch.cat((torch.zeros(16), torch.ones(16))), atol=1e-6)
    out.pow(2).sum().backward()
    assert embed.scale.grad is not None and embed.scale.grad.abs().sum() > 0
    assert embed.phase.grad is not None and embed.phase.grad.abs().sum() > 0


def test_relative_time_tells_past_from_future() -> None:
    torch.manual_seed(0)
    embed = RelativeTimeEmbedding(dim=16, fps=20, horizon_s=0.5)
    times = torch.linspace(-0.5, 0.5, 21)
    codes = embed(times)
    distance = torch.cdist(codes, codes) + 10 * torch.eye(21)
    assert distance.min() > 0.01


@pytest.mark.parametrize(
    "build",
    [
        lambda: RotaryEmbedding1d(7),
        lambda: sincos(torch.zeros(2), 3),
        lambda: sincos_2d(2, 2, 6),
        lambda: AbsoluteTimeEmbedding(15, 20, 60),
        lambda: AbsoluteTimeEmbedding(16, 20, 0.05),
    ],
)
def test_bad_sizes_are_refused(build) -> None:
    with pytest.raises(ValueError, match="not|must"):
        build()
