"""The identity loss against naive loops, and what its augmentation does to memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.data.batch import SceneBatch
from scene_track.models.arrays import Host
from scene_track.models.identity import PointerIdentity, TrackMemory, TrackRings, newest
from scene_track.models.predictions import DensePredictions, ScenePredictions
from scene_track.objectives.identity import TrackGrid, _memory, identity_slots, last_before
from tests.compose import shipped


@given(st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_slots_number_identities_by_first_appearance(rows: list[list[int]]) -> None:
    slots = identity_slots(torch.tensor(rows))
    for row, got in zip(rows, slots.tolist(), strict=True):
        seen: dict[int, int] = {}
        wanted = [-1 if x < 0 else seen.setdefault(x, len(seen)) for x in row]
        assert got == wanted


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_last_before_equals_a_loop(present: list[bool]) -> None:
    wanted, last = [], -1
    for t, here in enumerate(present):
        wanted.append(last)
        last = t if here else last
    assert last_before(torch.tensor(present)).tolist() == wanted


def head(**options) -> PointerIdentity:
    torch.manual_seed(0)
    return shipped("model.identity", **{"dim": 16, "width": 16, "heads": 2, **options})


def learned(pointer: PointerIdentity) -> PointerIdentity:
    """The head with a say in every part that starts from zero."""
    for parameter in pointer.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.3)
    return pointer.eval()


def test_the_naming_of_tracks_does_not_matter() -> None:
    pointer = head().eval()
    tokens, boxes = torch.randn(4, 5, 16), torch.rand(4, 5, 4) * 0.4 + 0.2
    seconds = torch.arange(5).float().expand(4, 5) / 20
    present = torch.ones(4, 5, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])

    def point(pick: torch.Tensor) -> torch.Tensor:
        state, motion = pointer.encode(tokens[pick], boxes[pick], seconds, present)
        exists = torch.ones(4, dtype=torch.bool)
        memory = TrackMemory(state[:, -1], motion[:, -1], boxes[pick, -1], seconds[:, -1], exists)
        return pointer(tokens[:, 0], boxes[:, 0], torch.tensor([0.3]), memory)

    plain, permuted = point(torch.arange(4)), point(order)
    torch.testing.assert_close(plain[:, order], permuted[:, :4])
    torch.testing.assert_close(plain[:, 4], permuted[:, 4])


def test_a_tracks_state_knows_its_past_and_not_its_future_or_its_gaps() -> None:
    pointer = head().eval()
    tokens, boxes = torch.randn(1, 5, 16), torch.rand(1, 5, 4) * 0.4 + 0.2
    seconds = torch.arange(5).float().view(1, 5) / 20
    present = torch.tensor([[True, True, False, True, True]])

    def encoded(changed_at: int | None) -> torch.Tensor:
        changed, moved = tokens.clone(), boxes.clone()
        if changed_at is not None:
            changed[:, changed_at] = changed[:, changed_at].flip(-1)
            moved[:, changed_at] = moved[:, changed_at].flip(-1)
        return torch.cat(pointer.encode(changed, moved, seconds, present), dim=-1)

    before = encoded(None)
    torch.testing.assert_close(before[:, :4], encoded(4)[:, :4])
    keep = [0, 1, 3, 4]
    torch.testing.assert_close(before[:, keep], encoded(2)[:, keep])  # a gap: nobody may see it
    assert not torch.allclose(before[:, 4], encoded(0)[:, 4])


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 5))
def test_the_newest_tokens_equal_a_loop(present: list[bool], count: int) -> None:
    past, seen = newest(torch.tensor([present]), count)
    for t in range(len(present)):
        wanted = [i for i in range(t, -1, -1) if present[i]][:count]
        assert past[0, t][seen[0, t]].tolist() == wanted


def as_tensors(memory: TrackMemory) -> TrackMemory:
    """What training would be given; on arrays all tracks exist."""
    arrays = [np.ascontiguousarray(x) for x in list(vars(memory).values())[:-1]]
    exists = np.ones(len(arrays[0]), dtype=np.bool_)
    return TrackMemory(*(torch.from_numpy(x) for x in (*arrays, exists)))


@pytest.mark.parametrize("options", [{}, {"interaction": 0, "appearance": 4, "content": False}])
def test_streaming_gives_the_numbers_of_training(options: dict) -> None:
    """Token by token over rings, with gaps and a window that is shorter than the clip."""
    pointer = learned(head(history=3, **options))
    tokens, boxes = torch.randn(2, 7, 16), torch.rand(2, 7, 4) * 0.4 + 0.2
    seconds = torch.arange(7).float().expand(2, 7) / 20
    present = torch.rand(2, 7) > 0.3
    with torch.no_grad():
        state, motion = pointer.encode(tokens, boxes, seconds, present)
        host, rings = Host(pointer), TrackRings(pointer)
        for t in range(7):
            rows = torch.nonzero(present[:, t]).flatten()
            here, there = tokens[rows, t], boxes[rows, t]
            now = seconds[0, t].item()
            host.extend(rings, rows.numpy(), here.numpy(), there.numpy(), now)
            memory = rings.memory(rows.numpy())
            torch.testing.assert_close(as_tensors(memory).state, state[rows, t])
            torch.testing.assert_close(
                as_tensors(memory).motion, motion[rows, t], rtol=1e-4, atol=1e-5
            )
            logits = pointer(tokens[:, 0], boxes[:, 0], torch.tensor([now]), as_tensors(memory))
            streamed = host(tokens[:, 0].numpy(), boxes[:, 0].numpy(), now, memory)
            torch.testing.assert_close(torch.from_numpy(streamed), logits, rtol=0, atol=1e-5)


def test_a_part_that_knows_no_arrays_streams_too() -> None:
    """A researcher's own module, of tensors alone, among the parts of the head."""
    pointer = learned(head())
    pointer.new = torch.nn.Sequential(torch.nn.PReLU(16), torch.nn.Linear(16, 1))
    boxes, tokens = torch.rand(3, 4) * 0.4 + 0.2, torch.randn(3, 16)
    rings, host = TrackRings(pointer), Host(pointer)
    host.extend(rings, np.arange(3), tokens.numpy(), boxes.numpy(), 0.0)
    memory = rings.memory(np.arange(3))
    streamed = host(tokens.numpy(), boxes.numpy(), 0.05, memory)
    with torch.no_grad():
        logits = pointer(tokens, boxes, torch.tensor([0.05]), as_tensors(memory))
    torch.testing.assert_close(torch.from_numpy(streamed), logits, rtol=0, atol=1e-5)


def test_padding_and_absent_tracks_change_nothing() -> None:
    pointer = learned(head())
    memory = TrackMemory(
        torch.randn(3, 16),
        pointer.prior.fit(
            torch.rand(3, 2, 4) + 0.1, torch.rand(3, 2), torch.ones(3, 2, dtype=torch.bool)
        ),
        torch.rand(3, 4) + 0.1,
        torch.zeros(3),
        torch.tensor([True, True, False]),
    )
    tokens, boxes = torch.randn(4, 16), torch.rand(4, 4) + 0.1
    there, now = torch.tensor([True, True, True, False]), torch.tensor([0.1])
    with torch.no_grad():
        padded = pointer(tokens, boxes, now, memory, there)
        exact = TrackMemory(*(value[:2] for value in vars(memory).values()))
        alone = pointer(tokens[:3], boxes[:3], now, exact)
    torch.testing.assert_close(padded[:3, [0, 1, 3]], alone)


def test_absent_tracks_are_never_pointed_at() -> None:
    pointer = head().eval()
    memory = TrackMemory(
        torch.randn(3, 16),
        torch.rand(3, 11),
        torch.rand(3, 4),
        torch.zeros(3),
        torch.tensor([True, False, True]),
    )
    logits = pointer(torch.randn(2, 16), torch.rand(2, 4), torch.tensor([0.1]), memory)
    assert logits.shape == (2, 4)
    assert (logits.softmax(-1)[:, 1] < 1e-6).all()


def test_switches_and_drops_change_memory_and_keep_its_members() -> None:
    torch.manual_seed(0)
    tracks = TrackGrid(
        tokens=torch.randn(2, 6, 5, 4),
        boxes=torch.rand(2, 6, 5, 4) / 10 + 0.4,
        present=torch.ones(2, 6, 5, dtype=torch.bool),
    )

    def augmented(**strengths: float) -> TrackGrid:
        none = {"token_drop": 0.0, "span_drop": 0.0, "switch": 0.0}
        return shipped("head.criterion.identity", **none | strengths)._augment(tracks)

    swapped = augmented(switch=1.0)
    assert swapped.present.all()
    moved = (swapped.tokens != tracks.tokens).any(-1).sum(-1)
    assert (moved == 2).all()  # exactly two identities of each frame changed places
    torch.testing.assert_close(swapped.tokens.sum(2), tracks.tokens.sum(2))
    assert 0.3 < augmented(token_drop=0.5).present.float().mean() < 0.7
    missing = ~augmented(span_drop=1.0).present
    assert (missing.int().diff(dim=1).clamp(min=0).sum(1) <= 1).all() and missing.any()  # one span
    same = augmented()
    assert torch.equal(same.tokens, tracks.tokens) and same.present.all()


def test_memory_without_false_detections_is_that_of_the_tracks() -> None:
    def grid(tracks: int) -> TrackGrid:
        present = torch.ones(2, 5, tracks, dtype=torch.bool)
        boxes = torch.rand(2, 5, tracks, 4) / 5 + 0.2
        return TrackGrid(torch.randn(2, 5, tracks, 16), boxes, present)

    memory, _ = _memory(head(), grid(3), grid(0), torch.arange(5).float().expand(2, 5) / 20)
    assert memory.exists.shape == (2, 5, 3)
    assert not memory.exists[:, 0].any() and memory.exists[:, 1:].all()


def test_detections_on_padding_are_nobody() -> None:
    loss = shipped("head.criterion.identity", false_positives=2, false_positive_score=0.5)
    boxes = torch.rand(1, 4, 3, 4) * 0.2 + 0.3
    tokens, matches = torch.randn(1, 4, 3, 16), torch.full((1, 4, 2), -1)
    batch = SceneBatch.unlabelled(
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [1, 2], [0.1, 0.2],
        name="padded", frame_rate=10.0, size=(4, 4), length=4,
    )  # fmt: skip
    predictions = ScenePredictions(
        bbox_center=boxes[..., :2], bbox_size=boxes[..., 2:],
        exist_conf=torch.full((1, 4, 3, 1), 0.9), cls_logits=torch.zeros(1, 4, 3, 1),
        tokens=tokens, layers=[],
        dense=DensePredictions(heat_logits=torch.zeros(0), boxes=torch.zeros(0)),
    )  # fmt: skip
    found = loss._unmatched(predictions, tokens, boxes, matches, batch)
    assert found.present[0].sum(-1).tolist() == [2, 2, 0, 0]
