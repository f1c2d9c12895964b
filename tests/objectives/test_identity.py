"""The identity loss against naive loops, and what its augmentation does to memory."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_track.models.identity import PointerIdentity, TrackMemory
from scene_track.objectives.identity import TrackGrid, identity_slots, last_before
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


def head() -> PointerIdentity:
    torch.manual_seed(0)
    return shipped("model.identity", dim=16, width=16, heads=2, appearance=4)


def test_the_naming_of_tracks_does_not_matter() -> None:
    pointer = head().eval()
    tokens, boxes = torch.randn(4, 5, 16), torch.rand(4, 5, 4) * 0.4 + 0.2
    seconds = torch.arange(5).float().expand(4, 5) / 20
    present = torch.ones(4, 5, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])

    def point(pick: torch.Tensor) -> torch.Tensor:
        state = pointer.encode(tokens[pick], boxes[pick], seconds, present)
        memory = TrackMemory(
            state[:, -1], boxes[pick, -1], seconds[:, -1], torch.ones(4, dtype=torch.bool)
        )
        return pointer(tokens[:, 0], boxes[:, 0], torch.tensor([0.3]), memory)

    plain, permuted = point(torch.arange(4)), point(order)
    torch.testing.assert_close(plain[:, order], permuted[:, :4])
    torch.testing.assert_close(plain[:, 4], permuted[:, 4])


def test_a_tracks_state_knows_its_past_and_not_its_future_or_its_gaps() -> None:
    pointer = head().eval()
    tokens, boxes = torch.randn(1, 5, 16), torch.rand(1, 5, 4) * 0.4 + 0.2
    seconds = torch.arange(5).float().view(1, 5) / 20
    present = torch.tensor([[True, True, False, True, True]])
    before = pointer.encode(tokens, boxes, seconds, present)
    changed = tokens.clone()
    changed[:, 4] = changed[:, 4].flip(-1)
    after = pointer.encode(changed, boxes, seconds, present)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    changed = tokens.clone()
    changed[:, 2] = changed[:, 2].flip(-1)  # a gap: nobody may see it
    after = pointer.encode(changed, boxes, seconds, present)
    keep = [0, 1, 3, 4]
    torch.testing.assert_close(before[:, keep], after[:, keep])
    changed = tokens.clone()
    changed[:, 0] = changed[:, 0].flip(-1)
    assert not torch.allclose(before[:, 4], pointer.encode(changed, boxes, seconds, present)[:, 4])


def test_absent_tracks_are_never_pointed_at() -> None:
    pointer = head().eval()
    memory = TrackMemory(
        torch.randn(3, 16),
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
        boxes=torch.rand(2, 6, 5, 4),
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
