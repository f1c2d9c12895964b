"""``model.compile=true`` gives what the model gives without: losses and gradients.

The whole model is captured and differentiated as torch.compile does it, but without generating
code, which takes a minute; code is generated for one block.
"""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
import torch._inductor.config
from hydra.utils import instantiate
from torch import Tensor

from scene_track.models.backbones.hybrid import AttentionBlock
from scene_track.train import build_module
from scene_track.training.module import TrackingModule
from tests.compose import TINY, compose_run, make_batch

pytestmark = pytest.mark.slow  # torch.compile and its C++ compiler


def module(*overrides: str) -> TrackingModule:
    torch.manual_seed(0)
    tiny = [*TINY, "model.backbone.depth=1", "model.decoder.num_layers=1"]
    return build_module(compose_run([*tiny, *overrides])).train()


def step(module: TrackingModule) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(1)
    _, losses, _ = module.losses(make_batch(frames=2), denoise=True)
    losses["total"].backward()
    gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return float(losses["total"].detach()), gradients


def test_a_compiled_model_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = module(), module("model.compile=true")
    assert list(plain.state_dict()) == list(compiled.state_dict()), "checkpoints fit both"
    expected, wanted = step(plain)
    loss, gradients = step(compiled)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert gradients.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-2, atol=1e-4, msg=name)
    assert compiled.model.backbone is not None
    compiled.model.backbone.set_frozen(True)  # what is compiled sees it
    compiled.zero_grad()
    _, gradients = step(compiled)
    assert not any(name.startswith("model.backbone") for name in gradients)


def test_a_compiled_heatmap_model_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    gradients = []
    for compiled in ("false", "true"):
        torch.manual_seed(0)
        chosen = ["dataset=synthetic_tennis", "model=heatmap", "head=heatmap"]
        small = ["model.backbone.depth=1", "model.dim=32", f"model.compile={compiled}"]
        model = instantiate(compose_run([*chosen, *small]).model).train()
        batch = make_batch(frames=2)
        seconds = batch.frame_indices.float()
        predictions, _ = model(batch.frames, seconds, batch.padding_mask)
        predictions.heatmap_logits.square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    plain, other = gradients
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-5, msg=name)


def test_generated_code_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile was NOT tested with generated code: this machine has no g++")
    # Two kernels are not worth a pool of processes that each import torch.
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    torch.manual_seed(0)
    block = AttentionBlock(16, 2).eval()
    x = torch.randn(2, 6, 16)
    with torch.no_grad():
        expected = block(x)
        block.compile()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
