"""The heatmap model: a video in windows is the video in one piece, and what each option sees."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from scene_track.ball.past_frames import NeighbourFrames
from tests.compose import TINY_BALL, compose_run, make_ball_batch


def build(*overrides: str):
    """A tiny model in evaluation mode, with nothing at its initial zero."""
    torch.manual_seed(0)
    model = instantiate(compose_run([*TINY_BALL, *overrides]).model).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_neighbours_stop_at_the_ends_of_a_clip() -> None:
    values = torch.arange(5.0).view(1, 5, 1)
    padding = torch.tensor([[False, False, False, False, True]])
    around, past = NeighbourFrames([-2, -1, 0, 1])(values, padding, None)
    assert around[0, :4, :, 0].tolist() == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]]
    assert past is not None and past.values[0, :, 0].tolist() == [2, 3]


def test_padding_in_the_middle_of_a_video_is_never_a_neighbour() -> None:
    """Two clips; a window that begins with padding alone, one with padding alone in between."""
    look = NeighbourFrames([-2, -1])
    seen, past = [], None
    for values, padding in (
        ([[9, 9], [0, 1]], [[1, 1], [0, 0]]),
        ([[0, 9], [9, 9]], [[0, 1], [1, 1]]),
        ([[9, 9], [2, 9]], [[1, 1], [0, 1]]),
        ([[1, 2], [3, 4]], [[0, 0], [0, 0]]),
    ):
        mask = torch.tensor(padding, dtype=torch.bool)
        around, past = look(torch.tensor(values), mask, past)
        seen.append([around[clip, ~mask[clip]].tolist() for clip in (0, 1)])
    assert [row for window in seen for row in window[0]] == [[0, 0], [0, 0], [0, 1]]
    assert [row for window in seen for row in window[1]] == [[0, 0], [0, 0], [0, 1], [1, 2], [2, 3]]
    assert past is not None and past.count.tolist() == [2, 2]


@torch.no_grad()
def test_a_video_in_windows_gives_what_one_pass_gives() -> None:
    model = build("model.detail.offsets=[-1,-3]")
    batch = make_ball_batch(clips=1, frames=7)
    seconds = batch.frame_indices.float() / 30
    whole, _ = model(batch.frames, seconds, batch.padding_mask)
    state, parts = None, []
    for start, stop in ((0, 1), (1, 3), (3, 7)):
        part = batch.between(start, stop)
        answer, state = model(part.frames, seconds[:, start:stop], part.padding_mask, None, state)
        state = state.detach()
        parts.append(answer.heatmap_logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole.heatmap_logits, atol=1e-4, rtol=1e-4)
    assert state.frames.values.shape[1] == 3 and state.maps.values.shape[1] == 2  # does not grow


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["model.stack=null", "model.temporal_encoder=null", "model.detail.offsets=[]"], {0}),
        (["model.stack=null", "model.temporal_encoder=null"], {-2, -1, 0, 1}),
        (["model.stack=null", "model.temporal_encoder=null", "model.detail.offsets=[-3]"], {-3, 0}),
        (["model.temporal_encoder=null", "model.detail.offsets=[]"], {-2, -1, 0}),
        (["model.stack=null", "model.detail.offsets=[]"], {-3, -2, -1, 0}),
    ],
)
def test_which_frames_a_frame_sees(options: list[str], offsets: set[int]) -> None:
    model = build(*options)
    batch = make_ball_batch(clips=1, frames=6)
    seconds = batch.frame_indices.float() / 30
    before, _ = model(batch.frames, seconds, batch.padding_mask)
    batch.frames[:, 1] = 255 - batch.frames[:, 1]
    after, _ = model(batch.frames, seconds, batch.padding_mask)
    changed = (before.heatmap_logits - after.heatmap_logits).abs().amax(dim=(0, 2, 3, 4)) > 1e-6
    assert changed.tolist() == [1 - t in offsets for t in range(6)]


@torch.no_grad()
@pytest.mark.parametrize("width", [60, 61])
def test_an_image_that_is_no_whole_number_of_cells(width: int) -> None:
    model = build("model.backbone.size_policy=pad", "model.detail.channels=[8,8]")
    batch = make_ball_batch(clips=1, frames=2, size=(36, width))
    answer, _ = model(batch.frames, batch.frame_indices.float() / 30, batch.padding_mask)
    assert answer.heatmap_logits.shape[-2:] == (18, -(-width // 2))


def test_parts_that_do_not_fit_are_named() -> None:
    for words, message in (
        (["model.decoder.channels=[8]"], "it is 2 doublings"),
        (["model.decoder.stride=4"], r"\[2\] would go unused; shorten model.detail.channels"),
        (["model.fusion.lateral_dim=32"], "type model.dim=32 alone"),
        (["model.detail.offsets=[0]"], r"such as \[-1,-2\]"),
    ):
        with pytest.raises(Exception, match=message):
            instantiate(compose_run([*TINY_BALL, *words]).model)


def test_the_logits_are_float32_inside_autocast() -> None:
    model, batch = build(), make_ball_batch(clips=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer, _ = model(batch.frames, batch.frame_indices.float(), batch.padding_mask)
    assert answer.heatmap_logits.dtype == torch.float32
