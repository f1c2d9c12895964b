"""Clips longer than the stretch that trains the detector: what has a gradient, what is counted."""

from __future__ import annotations

import torch

from scene_track.models.predictions import join_in_time
from scene_track.train import build_module
from tests.compose import TINY, compose_run, make_batch


def module_of(*overrides: str):
    torch.manual_seed(0)
    return build_module(compose_run([*TINY, "denoiser=none", *overrides])).train()


def test_only_the_detectors_frames_count_as_its_objects() -> None:
    losses = module_of("model.detector_frames=2").losses(make_batch(frames=6), denoise=True)[1]
    assert losses["num_targets"] == 2 * 2 * 3  # clips x frames x objects


def test_the_memory_frames_train_the_pointer_head_but_not_the_backbone() -> None:
    module = module_of("model.detector_frames=1", "head.criterion.weight_motion=0")
    for name in module.criterion.weights:
        if name != "identity":
            module.criterion.weights[name] = 0.0
    batch = make_batch(frames=6)
    seen: list[bool] = []
    forward = module.model.forward

    def watched(*arguments, **named):
        seen.append(torch.is_grad_enabled())
        return forward(*arguments, **named)

    module.model.forward = watched
    module.losses(batch, denoise=True)[1]["total"].backward()
    assert seen.count(True) == 1 and len(seen) >= 2
    head = module.model.identity
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in head.layers.parameters())


def test_a_clip_cut_into_stretches_is_predicted_like_the_whole() -> None:
    module = module_of().eval()
    batch = make_batch(frames=6)
    with torch.no_grad():
        whole, _ = module._predict(batch, None)
        parts, state = [], None
        for start, stop in ((0, 2), (2, 3), (3, 6)):
            part, state = module._predict(batch.between(start, stop), state)
            parts.append(part)
    joined = join_in_time(parts)
    torch.testing.assert_close(joined.boxes, whole.boxes)
    torch.testing.assert_close(joined.tokens, whole.tokens)


def test_the_identity_loss_weighs_as_much_however_long_the_clip() -> None:
    """A static scene: every frame is the same, so a mean over more frames changes little."""
    values = []
    for frames in (2, 8):
        module = module_of("model.detector_frames=2")
        module.model.eval()  # no random clock; the module itself trains
        module.training = True
        batch = make_batch(frames=frames)
        values.append(float(module.losses(batch, denoise=True)[1]["identity"]))
    short, long = values
    # In a clip of two frames half of the detections have no memory to point at.
    assert short < long < 4 * short
