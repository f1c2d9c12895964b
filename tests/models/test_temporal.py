"""Temporal encoder: streaming is the whole, the future is unseen, padding reaches nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scene_track.models.temporal import TemporalEncoder
from tests.compose import arguments

B, T, C = 2, 37, 12


def encoder(**changes) -> TemporalEncoder:
    torch.manual_seed(0)
    options = dict(dim=32, input_dim=C, depth=3, heads=4, history=6)
    return TemporalEncoder(**arguments("model.temporal_encoder", **options) | changes).eval()


def clip() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cls = torch.randn(B, T, C, generator=generator)
    gaps = torch.randint(1, 4, (B, T), generator=generator)
    return cls, 300 + gaps.cumsum(1).float()


@pytest.mark.parametrize("chunk", [1, 3, 16])
@pytest.mark.parametrize("padded", [False, True])
def test_streaming_equals_one_pass(chunk: int, padded: bool) -> None:
    model, (cls, positions) = encoder(), clip()
    mask = torch.zeros(B, T, dtype=torch.bool)
    if padded:
        mask[1, 10:13] = True
        mask[1, 30:] = True
    whole, _ = model(cls, positions, mask)
    state = None
    parts = []
    for start in range(0, T, chunk):
        window = slice(start, start + chunk)
        z, state = model(cls[:, window], positions[:, window], mask[:, window], state)
        parts.append(z)
        assert state.padding_mask.shape[1] <= model.history - 1  # memory does not grow
        assert all(key.shape[2] <= model.history - 1 for key in state.keys)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_reach_is_depth_times_band_and_never_the_future() -> None:
    model, (cls, positions) = encoder(depth=2), clip()
    before, _ = model(cls, positions)
    changed = cls.clone()
    changed[:, 15] += 5
    after, _ = model(changed, positions)
    moved = (after - before).abs().amax((0, 2)) > 1e-6
    reach = 2 * (model.history - 1)
    assert moved.nonzero().flatten().tolist() == list(range(15, 15 + reach + 1))


def test_history_of_one_and_depth_zero_have_no_memory() -> None:
    cls, positions = clip()
    for model in (encoder(history=1), encoder(depth=0)):
        z, state = model(cls, positions)
        alone, _ = model(cls[:, 20:21], positions[:, 20:21], None, state)
        assert torch.allclose(z[:, 20:21], alone, atol=1e-6)


def test_padding_is_inert_even_when_it_is_nan() -> None:
    model, (cls, positions) = encoder(), clip()
    model.train()
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[0, 20:] = True
    mask[1] = True  # a row of nothing but padding
    cls = cls.masked_fill(mask[..., None], float("nan")).requires_grad_()
    z, _ = model(cls, positions, mask)
    assert torch.isfinite(z).all()
    assert (z[mask] == 0).all()
    short, _ = model(cls[:1, :20], positions[:1, :20])
    assert torch.allclose(z[:1, :20], short, atol=1e-6)
    z.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert cls.grad is not None and (cls.grad[mask] == 0).all()


def test_only_differences_of_positions_matter_but_they_do() -> None:
    model, (cls, positions) = encoder(), clip()
    z, _ = model(cls, positions)
    shifted, _ = model(cls, positions + 500)
    stretched, _ = model(cls, positions * 2)
    assert torch.allclose(z, shifted, atol=1e-3)
    assert (z - stretched).abs().max() > 1e-2


def test_state_can_be_cut_from_its_graph() -> None:
    model, (cls, positions) = encoder(), clip()
    first = cls[:, :8].clone().requires_grad_()
    _, state = model(first, positions[:, :8])
    z, _ = model(cls[:, 8:9], positions[:, 8:9], None, state)
    (grad,) = torch.autograd.grad(z.pow(2).sum(), first, retain_graph=True)
    assert grad.abs().sum() > 0
    z, _ = model(cls[:, 8:9], positions[:, 8:9], None, state.detach())
    (grad,) = torch.autograd.grad(z.pow(2).sum(), first, allow_unused=True)
    assert grad is None


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 x heads"):
        encoder(dim=36)
    model, (cls, positions) = encoder(), clip()
    _, state = model(cls, positions)
    with pytest.raises(ValueError, match="2 streams"):
        model(cls[:1], positions[:1], None, state)
