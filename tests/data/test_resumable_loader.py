"""The loader's promise: a position is two integers, and from it the same batches follow."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import get_worker_info

from scene_track.data import resumable_loader
from scene_track.data.resumable_loader import (
    LoaderError,
    ResumableLoader,
    derive_seed,
    epoch_order,
    shared,
)


class Draws:
    """Returns (epoch, index, a draw) as the real datasets do: all randomness from the key."""

    def __init__(self, length: int = 11) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        epoch, index = key
        generator = torch.Generator().manual_seed(derive_seed(7, epoch, index))
        draw = torch.randint(1 << 30, (), generator=generator)
        return torch.tensor([epoch, index, int(draw), 0 if get_worker_info() is None else 1])


def batches(loader: ResumableLoader) -> list[torch.Tensor]:
    return [batch[:, :3] for batch in loader]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (1, True), (1, False)])
def test_every_epoch_is_a_function_of_seed_and_epoch(num_workers: int, persistent: bool) -> None:
    reference = ResumableLoader(Draws(), batch_size=2, seed=3)
    expected = []
    for epoch in range(3):
        reference.set_epoch(epoch)
        expected.append(batches(reference))
    assert not same(expected[0], expected[1])
    loader = ResumableLoader(
        Draws(), batch_size=2, seed=3, num_workers=num_workers, persistent_workers=persistent
    )
    for epoch in (2, 0, 1):  # any order, and the same workers serve all of them
        loader.set_epoch(epoch)
        assert same(batches(loader), expected[epoch])
    loader._iterator = None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_continues_at_the_next_batch_although_workers_prefetched(num_workers: int) -> None:
    whole = ResumableLoader(Draws(), batch_size=2, seed=3)
    whole.set_epoch(4)
    expected = batches(whole)
    first = ResumableLoader(
        Draws(), batch_size=2, seed=3, num_workers=num_workers, prefetch_factor=4
    )
    first.set_epoch(4)
    running = iter(first)
    seen = [next(running)[:, :3] for _ in range(2)]
    state = first.state_dict()
    assert state["epoch"] == 4
    assert state["batches"] == 2
    del running
    first._iterator = None

    second = ResumableLoader(Draws(), batch_size=2, seed=3, num_workers=num_workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    lazy = iter(second)  # Lightning calls iter first ...
    second.batch_sampler.sampler.set_epoch(4)  # ... and announces the epoch afterwards
    rest = [batch[:, :3] for batch in lazy]
    assert same(seen + rest, expected)
    assert len(second) == len(expected), "the length is the whole epoch's, not the rest's"
    assert same(batches(second), expected), "a second look starts at the beginning"
    second._iterator = None


def test_an_iterator_made_before_set_epoch_shows_the_announced_epoch() -> None:
    loader = ResumableLoader(Draws(), batch_size=2, seed=3, num_workers=1)
    early = iter(loader)
    loader.batch_sampler.sampler.set_epoch(5)
    assert {int(row[0]) for batch in early for row in batch} == {5}
    loader._iterator = None


def test_position_is_cleared_by_another_epoch() -> None:
    loader = ResumableLoader(Draws(), batch_size=2, seed=3)
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "batches": 3})
    loader.set_epoch(2)
    assert loader.state_dict()["batches"] == 0
    assert len(batches(loader)) == len(loader)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("length", [8, 9, 11, 12, 13, 29])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_disjointly_and_equally(
    length: int, world_size: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_rank = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)
    for rank in range(world_size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        loader = ResumableLoader(Draws(length), batch_size=2, seed=1, drop_last=drop_last)
        per_rank.append([batch[:, 1].tolist() for batch in loader])
        assert len(per_rank[-1]) == len(loader)
    assert len({len(share) for share in per_rank}) == 1
    seen = [index for share in per_rank for batch in share for index in batch]
    assert len(seen) == len(set(seen)), "no sample twice"
    lost = length - len(seen)
    rest = length % (2 * world_size)
    assert lost == (rest if drop_last or rest < world_size else 0)
    assert all(batch for share in per_rank for batch in share), "no empty batch"
    # the ranks' batches i together are chunk i of the epoch's order
    order = epoch_order(length, seed=1, epoch=0, shuffle=True).tolist()
    together = [i for step in zip(*per_rank, strict=True) for share in step for i in share]
    assert together == order[: len(together)]


def test_without_shuffle_the_order_is_the_datasets() -> None:
    loader = ResumableLoader(Draws(5), batch_size=2, shuffle=False)
    loader.set_epoch(3)
    assert [batch[:, 1].tolist() for batch in loader] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_global_random_state_is_left_alone(num_workers: int) -> None:
    loader = ResumableLoader(Draws(), batch_size=2, num_workers=num_workers)
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(before, torch.get_rng_state())
    loader._iterator = None


def test_derived_seeds_do_not_collide_for_neighbours() -> None:
    seeds = {derive_seed(a, b, c) for a in range(4) for b in range(4) for c in range(40)}
    assert len(seeds) == 4 * 4 * 40
    assert derive_seed(1, 2, 3) == 3837045697058560323, "the same on every machine and version"
    with pytest.raises(ValueError, match=">= 0"):
        derive_seed(1, -1)


def test_samples_that_give_no_batch_are_named() -> None:
    with pytest.raises(ValueError, match="no batch"):
        ResumableLoader(Draws(), batch_size=12, drop_last=True)


@pytest.mark.parametrize(
    ("change", "words"), [({"seed": 9}, "seed"), ({"batch_size": 3}, "samples per step")]
)
def test_a_position_of_another_run_is_refused(change: dict, words: str) -> None:
    state = ResumableLoader(Draws(), batch_size=2, seed=3).state_dict()
    other = ResumableLoader(Draws(), **{"batch_size": 2, "seed": 3, **change})
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(state)


class Stalled(Draws):
    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        time.sleep(0.1)
        return super().__getitem__(key)


def test_a_loader_that_delivers_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resumable_loader, "_LATE_S", 0.02)
    assert len(list(ResumableLoader(Stalled(2), batch_size=2, seed=3))) == 1
    assert caplog.text.count("no batch for") == 1


class Killed(Draws):
    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


def test_a_loading_process_that_was_killed_is_one_line_for_the_user() -> None:
    with pytest.raises(LoaderError, match="num_workers") as caught:
        list(ResumableLoader(Killed(), batch_size=2, seed=3, num_workers=1))
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


def test_no_room_in_shared_memory_is_an_error_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Batch:
        def share_memory(self) -> None:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")

    batch = Batch()
    assert shared(batch) is batch, "not shared without loading processes"  # type: ignore[arg-type]
    monkeypatch.setattr(resumable_loader, "get_worker_info", lambda: 1)
    with pytest.raises(LoaderError, match="/dev/shm.*num_workers=0.*shm-size"):
        shared(batch)  # type: ignore[arg-type]
