"""The scene model: shapes, streaming equals one pass, denoising queries leave the answers alone."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from scene_track.models.scene import SceneModel
from tests.compose import TINY, compose_run, make_batch


def build(*overrides: str, seed: int = 0) -> SceneModel:
    torch.manual_seed(seed)
    model = instantiate(compose_run([*TINY, *overrides]).model)
    # Refinement starts as the identity; moved, so that a mistake in it cannot hide.
    for delta in model.decoder.bbox_delta:
        torch.nn.init.normal_(delta[-1].weight, std=0.2)
    if model.decoder.mix is not None:
        torch.nn.init.normal_(model.decoder.mix.project.weight, std=0.2)
    return model.eval()


def predict(model: SceneModel, batch, state=None, denoising=None):
    seconds = batch.frame_indices / batch.frame_rate.unsqueeze(1)
    return model(batch.frames, seconds, batch.padding_mask, denoising, state)


def test_shapes_and_ranges_are_those_of_the_contract() -> None:
    batch = make_batch(clips=2, frames=3)
    out, _ = predict(build(), batch)
    assert out.bbox_center.shape == out.bbox_size.shape == (2, 3, 8, 2)
    assert out.exist_conf.shape == (2, 3, 8, 1) and out.cls_logits.shape == (2, 3, 8, 1)
    assert out.tokens.shape == (2, 3, 8, 32)
    assert out.dense.heat_logits.shape == (2, 3, 1, 4, 6)
    assert len(out.layers) == 2
    assert (out.bbox_size >= 1e-3).all() and (out.boxes <= 1).all() and (out.bbox_center >= 0).all()
    assert ((out.exist_conf > 0) & (out.exist_conf < 1)).all()


@pytest.mark.parametrize("recurrent", ["true", "false"])
@torch.no_grad()
def test_a_streamed_video_gives_what_one_pass_gives(recurrent: str) -> None:
    model = build(f"model.decoder.recurrent={recurrent}", "model.temporal_encoder.history=3")
    batch = make_batch(clips=1, frames=7)
    whole, _ = predict(model, batch)
    parts, state = [], None
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        out, state = predict(model, batch.between(start, stop), state)
        parts.append(out)
    torch.testing.assert_close(
        torch.cat([p.boxes for p in parts], dim=1), whole.boxes, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        torch.cat([p.exist_conf for p in parts], dim=1), whole.exist_conf, atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_frame_does_not_depend_on_the_future() -> None:
    model = build()
    batch = make_batch(clips=1, frames=4)
    before, _ = predict(model, batch)
    batch.frames[:, 3] = 255 - batch.frames[:, 3]
    after, _ = predict(model, batch)
    torch.testing.assert_close(before.boxes[:, :3], after.boxes[:, :3])
    assert not torch.allclose(before.boxes[:, 3], after.boxes[:, 3])


@torch.no_grad()
def test_recurrence_carries_the_past_into_the_present() -> None:
    batch = make_batch(clips=1, frames=2)
    changed = make_batch(clips=1, frames=2)
    changed.frames[:, 0] = 255 - changed.frames[:, 0]
    still = ("model.temporal_encoder=null", "model.absolute_time=false")
    tiny = tuple(o for o in TINY if "temporal_encoder" not in o)
    for recurrent, depends in (("true", True), ("false", False)):
        torch.manual_seed(0)
        overrides = [*tiny, *still, f"model.decoder.recurrent={recurrent}"]
        model = instantiate(compose_run(overrides).model).eval()
        if model.decoder.mix is not None:  # its share starts at zero and is learned
            torch.nn.init.normal_(model.decoder.mix.project.weight)
        one, _ = predict(model, batch)
        two, _ = predict(model, changed)
        same = torch.allclose(one.tokens[:, 1], two.tokens[:, 1], atol=1e-6)
        assert same != depends


@torch.no_grad()
def test_a_neighbouring_frame_is_seen_only_within_the_radius() -> None:
    tiny = tuple(o for o in TINY if "temporal_encoder" not in o)
    off = ("model.temporal_encoder=null", "model.decoder.recurrent=false")
    batch, changed = make_batch(clips=1, frames=4), make_batch(clips=1, frames=4)
    changed.frames[:, 1] = 255 - changed.frames[:, 1]
    torch.manual_seed(0)
    model = instantiate(compose_run([*tiny, *off, "model.decoder.temporal_radius=1"]).model).eval()
    one, _ = predict(model, batch)
    two, _ = predict(model, changed)
    differs = [not torch.allclose(one.tokens[:, t], two.tokens[:, t]) for t in range(4)]
    assert differs == [True, True, True, False]


@torch.no_grad()
def test_denoising_queries_do_not_change_the_answers() -> None:
    cfg = compose_run(TINY)
    torch.manual_seed(0)
    model, denoiser = instantiate(cfg.model).eval(), instantiate(cfg.denoiser)
    batch = make_batch()
    queries = denoiser(
        batch.boxes.flatten(0, 1), batch.labels.flatten(0, 1), batch.valid.flatten(0, 1), 8
    )
    plain, _ = predict(model, batch)
    noised, _ = predict(model, batch, denoising=queries)
    torch.testing.assert_close(plain.boxes, noised.boxes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.exist_conf, noised.exist_conf, atol=1e-5, rtol=1e-5)
    slots = queries.valid.shape[1]
    assert noised.denoising[-1].boxes.shape == (2, 3, slots, 4) and not plain.denoising


@torch.no_grad()
def test_padding_frames_leave_the_real_ones_alone() -> None:
    model = build()
    batch = make_batch(clips=1, frames=3)
    real, _ = predict(model, batch.between(0, 2))
    batch.padding_mask[:, 2] = True
    padded, state = predict(model, batch)
    torch.testing.assert_close(padded.boxes[:, :2], real.boxes, atol=1e-4, rtol=1e-4)
    assert padded.boxes.isfinite().all()


def test_a_size_that_the_backbone_cannot_take_is_named() -> None:
    with pytest.raises(ValueError, match=r"40x48.*multiples of 16.*dataset\.size"):
        predict(build(), make_batch(size=(40, 48)))


def test_a_fine_map_moves_the_decoder_and_not_the_proposals() -> None:
    model = build("model.neck.sample_stride=4")
    assert model.fine is not None
    batch = make_batch(frames=2)
    with torch.no_grad():
        first, _ = predict(model, batch)
        model.fine.weight.normal_(std=1.0)
        second, _ = predict(model, batch)
    torch.testing.assert_close(first.dense.boxes, second.dense.boxes)
    assert not torch.allclose(first.tokens, second.tokens)
