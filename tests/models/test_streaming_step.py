"""One streaming step as a function of tensors gives what the model gives, frame after frame."""

from __future__ import annotations

import pytest
import torch

from scene_track.models.streaming_step import StreamingStep
from tests.compose import make_batch
from tests.models.test_scene import build


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.temporal_encoder.depth=2", "model.temporal_encoder.history=3"],
        ["model.decoder.recurrent=false", "model.temporal_encoder.history=1"],
        ["model.temporal_encoder=null", "head=scene3d"],
    ],
    ids=["whole", "not recurrent", "no temporal encoder, extras"],
)
@torch.no_grad()
def test_steps_equal_the_streamed_model(overrides: list[str]) -> None:
    model = build(*overrides)
    step = StreamingStep(model)
    batch = make_batch(clips=1, frames=5)
    seconds = batch.frame_indices / batch.frame_rate.unsqueeze(1)
    state, given = None, tuple(step.first.values())
    for t in range(5):
        one = batch.between(t, t + 1)
        wanted, state = model(one.frames, seconds[:, t : t + 1], one.padding_mask, None, state)
        out = step(one.frames[:, 0], seconds[:, t].float(), *given)
        named = dict(zip(step.outputs, out, strict=True))
        given = tuple(named[f"next_{name}"] for name in step.first)
        assert_near(named["boxes"], wanted.boxes[:, 0])
        assert_near(named["scores"], wanted.exist_conf[:, 0, :, 0])
        assert_near(named["tokens"], wanted.tokens[:, 0])
        for name, value in wanted.extras.items():
            assert_near(named[name], value[:, 0])
    assert model.identity is not None  # lent, not lost


def test_a_model_that_looks_ahead_has_no_step() -> None:
    with pytest.raises(ValueError, match=r"model\.decoder\.temporal_radius=1"):
        StreamingStep(build("model.decoder.temporal_radius=1"))


@torch.no_grad()
def test_nothing_in_a_step_depends_on_its_data() -> None:
    """What PyTorch can capture as one graph, for any exporter; an early exit would be refused."""
    step = StreamingStep(build("model.proposals.candidates=8")).eval()
    frame = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    program = torch.export.export(step, (frame, torch.zeros(1), *step.first.values()), strict=False)
    called = {str(node.target) for node in program.graph.nodes}
    assert "aten.grid_sampler_2d.default" not in called
