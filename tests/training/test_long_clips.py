"""Clips longer than the part that trains the detector: what has a gradient, what is counted."""

from __future__ import annotations

import torch

from scene_track.models.predictions import join_in_time
from scene_track.objectives.scene_criterion import SceneCriterion
from scene_track.train import build_module
from tests.compose import TINY, compose_run, make_batch


def module_of(*overrides: str):
    torch.manual_seed(0)
    cfg = compose_run([*TINY, "denoiser=none", *overrides])
    return build_module(cfg).train()


def test_only_the_detectors_frames_count_as_its_objects() -> None:
    losses = module_of("model.detector_frames=2").losses(make_batch(frames=6), denoise=True)[1]
    assert losses["num_targets"] == 2 * 2 * 3  # clips x frames x objects


def test_the_detector_is_not_trained_on_padding() -> None:
    batch = make_batch(frames=8)
    batch.padding_mask[:, 3:] = True
    batch.num_frames = 3
    module = module_of("model.detector_frames=3")
    for _ in range(5):  # the frames that train are drawn at random
        losses = module.losses(batch, denoise=True)[1]
        assert losses["num_targets"] == 2 * 3 * 3


def test_one_part_of_a_clip_is_predicted_with_gradient_and_the_rest_without() -> None:
    module = module_of("model.detector_frames=1")
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
    assert head is not None and any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters()
    )


def test_a_clip_cut_into_partes_is_predicted_like_the_whole() -> None:
    """In training too, where the clip's clock starts at random."""
    module = module_of()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()  # its statistics are those of a part
    batch = make_batch(frames=6)
    with torch.no_grad():
        torch.manual_seed(1)
        whole, _ = module._predict(batch, None)
        torch.manual_seed(1)
        parts, state = [], None
        for start, stop in ((0, 2), (2, 3), (3, 6)):
            part, state = module._predict(batch.between(start, stop), state)
            parts.append(part)
            state = state.detach()
    joined = join_in_time(parts)
    torch.testing.assert_close(joined.boxes, whole.boxes)
    torch.testing.assert_close(joined.tokens, whole.tokens)


def test_the_match_of_the_part_is_that_of_the_whole_clip() -> None:
    module = module_of().eval()
    batch = make_batch(frames=5)
    with torch.no_grad():
        whole, _ = module._predict(batch, None)
    criterion = module.criterion
    assert isinstance(criterion, SceneCriterion)

    def match(frames: slice) -> torch.Tensor:
        part = batch.between(frames.start, frames.stop)
        return criterion.matcher.match_padded(
            whole.cls_logits[:, frames].flatten(0, 1),
            whole.boxes[:, frames].flatten(0, 1),
            part.labels.flatten(0, 1),
            part.boxes.flatten(0, 1),
            part.valid.flatten(0, 1),
        ).unflatten(0, (2, -1))

    for start, stop in ((0, 2), (1, 3), (3, 5)):
        around = criterion._match_around(match(slice(start, stop)), whole, batch, start)
        assert torch.equal(around, match(slice(0, 5)))


def test_the_identity_loss_weighs_as_much_however_long_the_clip() -> None:
    """A static scene: every frame is the same, so a mean over more frames changes little."""
    values = []
    for frames in (2, 8):
        module = module_of("model.detector_frames=2")
        module.model.eval()  # no augmentation of the looks; the module itself trains
        module.training = True
        batch = make_batch(frames=frames)
        values.append(float(module.losses(batch, denoise=True)[1]["identity"]))
    short, long = values
    # In a clip of two frames half of the detections have no memory to point at.
    assert short < long < 4 * short


def test_autocast_does_not_keep_the_weights_of_the_frames_without_gradient() -> None:
    """A cached half-precision copy made without gradient would cut the detector off."""

    def gradients(cache: bool) -> list[torch.Tensor | None]:
        module = module_of("model.detector_frames=2")
        torch.manual_seed(2)
        assert torch.randint(11, ()) > 0  # there are frames before the part
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
            losses = module.losses(make_batch(frames=12), denoise=True)[1]
        losses["total"].backward()
        return [parameter.grad for parameter in module.parameters()]

    for kept, fresh in zip(gradients(True), gradients(False), strict=True):
        assert kept is not None and fresh is not None
        torch.testing.assert_close(kept, fresh, rtol=1e-2, atol=1e-5)
