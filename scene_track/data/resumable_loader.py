"""A training data loader that can be stopped and continued at any batch, bit for bit.

No random state is kept. The order of an epoch is a pure function of (seed, epoch),
and the dataset is asked for ``dataset[(epoch, index)]``, so that a sample derives its own
randomness from ``derive_seed(seed, epoch, index)`` whatever worker builds it. A position is
therefore two integers (epoch, batches done), and a resumed run sees exactly the batches that an
uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

if TYPE_CHECKING:
    from scene_track.data.batch import SceneBatch

log = logging.getLogger(__name__)

_SHM = "/dev/shm"
_LATE_S = 180.0  # seconds without a batch after which the loader says so


class LoaderError(RuntimeError, ValueError):
    """The processes that prepare batches cannot go on; the message is for the user.

    A ``RuntimeError`` as torch raises it, and a ``ValueError`` as what entry points show in a line.
    """


def derive_seed(*parts: int) -> int:
    """One well-mixed seed from several integers, the same on every machine.

    Neighbouring inputs such as (seed, epoch, 3) and (seed, epoch, 4) give unrelated streams, which
    adding them up would not.

    Args:
        parts: integers >= 0, for example ``(seed, epoch, index)``.

    Returns:
        A seed in ``[0, 2**63)``, accepted by torch, numpy and ``random``.

    Raises:
        ValueError: a part is negative.
    """
    if any(part < 0 for part in parts):
        raise ValueError(f"seeds are made from integers >= 0, found {parts}")
    # the count goes in too: numpy pads with zeros, so (7,) and (7, 0) would otherwise be one seed
    state = np.random.SeedSequence((len(parts), *parts)).generate_state(1, np.uint64)[0]
    return int(state) & 0x7FFF_FFFF_FFFF_FFFF


def epoch_order(length: int, *, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """The order in which an epoch visits the samples.

    Args:
        length: number of samples.
        seed: the run's seed, >= 0.
        epoch: epoch number from 0.
        shuffle: False gives 0, 1, 2, ... in every epoch.

    Returns:
        ``[length]`` int64 permutation.
    """
    if not shuffle:
        return torch.arange(length)
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(length, generator=generator)


class _SizedDataset(Protocol):
    """What the loader needs of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Any: ...


@dataclass(kw_only=True, eq=False)
class _EpochBatches:
    """Batch sampler: lists of (epoch, index) of this rank, from a position on.

    It has itself as ``sampler``, which is where Lightning looks for ``set_epoch``. The loader on
    purpose has no ``sampler`` of its own: Lightning would try to replace that one.
    """

    length: int
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool
    epoch: int = 0
    start: int = 0  # where the next iteration begins
    done: int = 0  # batches handed to the training loop; those prepared ahead do not count

    @property
    def sampler(self) -> _EpochBatches:
        return self

    @property
    def rank(self) -> int:
        return torch.distributed.get_rank() if _distributed() else 0

    @property
    def world_size(self) -> int:
        return torch.distributed.get_world_size() if _distributed() else 1

    def set_epoch(self, epoch: int) -> None:
        # Lightning sets the epoch again after a mid-epoch resume: the position must survive that.
        if epoch != self.epoch:
            self.epoch, self.start, self.done = epoch, 0, 0

    def __len__(self) -> int:
        step = self.batch_size * self.world_size
        full, rest = divmod(self.length, step)
        return full + (not self.drop_last and rest >= self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # Not a generator itself: the position is that of ``iter``, not of the first ``next``.
        return self._from(self.epoch, self.start)

    def _from(self, epoch: int, start: int) -> Iterator[list[tuple[int, int]]]:
        rank, world = self.rank, self.world_size
        order = epoch_order(self.length, seed=self.seed, epoch=epoch, shuffle=self.shuffle).tolist()
        step = self.batch_size * world
        for batch in range(start, len(self)):
            chunk = order[batch * step : (batch + 1) * step]
            # contiguous shares: together the ranks train on what one process with world x
            # batch_size would
            first, last = rank * len(chunk) // world, (rank + 1) * len(chunk) // world
            yield [(epoch, index) for index in chunk[first:last]]


class ResumableLoader:
    """Wraps ``torch.utils.data.DataLoader``; iterates one epoch of this rank's batches.

    Under DDP the ranks get disjoint shares and equally many batches: batch ``i`` of all ranks
    together is one chunk of the epoch's order. With ``drop_last=False`` the last, smaller chunk is
    split evenly; when it has fewer samples than ranks it is left out of this epoch (another epoch's
    order leaves out others).

    Iterators are lazy: order and workers start with the first ``next``. Lightning calls ``iter``
    before it announces the epoch with ``set_epoch``, and an eager iterator would fetch the wrong
    epoch.
    """

    def __init__(
        self,
        dataset: _SizedDataset,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        persistent_workers: bool = True,
        prefetch_factor: int = 2,
    ) -> None:
        """Describe the epochs; no worker starts yet.

        Arguments are those of torch's loader. ``batch_size`` is per rank; ``shuffle`` gives a new
        order every epoch, a function of ``seed`` (>= 0) and of the epoch; without workers,
        ``persistent_workers`` and ``prefetch_factor`` have no effect.

        Raises:
            ValueError: there would be no batch at all.
        """
        self.dataset = dataset
        self.batch_sampler = _EpochBatches(
            length=len(dataset),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        if len(self.batch_sampler) == 0:
            raise ValueError(
                f"{len(dataset)} samples give no batch of {batch_size} for"
                f" {self.batch_sampler.world_size} process(es) with drop_last={drop_last}:"
                " lower the batch size or bring more samples"
            )
        # the generator is the loader's own: starting workers must not move the global random state
        self._generator = torch.Generator()
        self._loader: DataLoader[Any] = WatchedLoader(
            dataset,  # pyright: ignore[reportArgumentType]
            batch_sampler=self.batch_sampler,  # pyright: ignore[reportArgumentType]
            num_workers=num_workers,
            collate_fn=collate_fn,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers and num_workers > 0,
            prefetch_factor=prefetch_factor if num_workers > 0 else None,
            worker_init_fn=_ignore_interrupt if num_workers > 0 else None,
            generator=self._generator,
        )

    @property
    def batch_size(self) -> int:
        """Samples per batch and rank."""
        return self.batch_sampler.batch_size

    @property
    def _iterator(self) -> Any:
        """The live multi-process iterator: where Lightning looks to stop the workers."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self._loader._iterator = value

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to show next (from 0); keeps a position loaded for that epoch."""
        self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches in a whole epoch of this rank, wherever the position is."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        """The batches of the current epoch from the loaded position on (lazily)."""
        sampler = self.batch_sampler
        self._generator.manual_seed(derive_seed(sampler.seed, sampler.epoch, sampler.rank))
        iterator = iter(self._loader)  # takes the position
        sampler.done, sampler.start = sampler.start, 0  # a second iteration begins at the beginning
        for batch in iterator:
            sampler.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position: plain integers, so that checkpoints load with ``weights_only=True``."""
        sampler = self.batch_sampler
        return {
            "epoch": sampler.epoch,
            "batches": sampler.done,
            "seed": sampler.seed,
            "samples": sampler.length,
            "global_batch": sampler.batch_size * sampler.world_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position from ``state_dict``.

        Raises:
            ValueError: the position belongs to other data, another batch size or another seed.
        """
        here = self.state_dict()
        for key, name in (
            ("seed", "seed"),
            ("samples", "number of samples"),
            ("global_batch", "samples per step over all processes"),
        ):
            if state[key] != here[key]:
                raise ValueError(
                    f"cannot continue inside epoch {state['epoch']}: the checkpoint's {name} is"
                    f" {state[key]}, now it is {here[key]}; use the same settings, or start a new"
                    " run with init_from="
                )
        self.batch_sampler.epoch = state["epoch"]
        self.batch_sampler.start = self.batch_sampler.done = state["batches"]


class WatchedLoader(DataLoader[Any]):
    """A loader that says when it has delivered nothing for minutes, and why its processes ended."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The batches; the position is that of this call, not of the first batch."""
        return self._watched(super().__iter__())

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                with _said_when_late(self.num_workers):
                    batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                reason = " ".join(str(error).split())
                raise LoaderError(
                    f"{reason}. The kernel ends processes when memory runs out: type"
                    f" dataset.loader.num_workers=N below {self.num_workers}, or 0 to see which"
                    " file it is"
                ) from error
            yield batch


def shared(batch: SceneBatch) -> SceneBatch:
    """A batch in shared memory if this is a loading process; called when it is collated.

    Torch would move it later, in a thread whose errors nobody sees: the batch is lost, and the
    training waits for it for ever.

    Raises:
        LoaderError: there is no room for it.
    """
    if get_worker_info() is None:
        return batch
    try:
        return batch.share_memory()
    except RuntimeError as error:
        if "shm" not in str(error) and "shared memory" not in str(error):
            raise
        stat = os.statvfs(_SHM)
        size, free = (n * stat.f_frsize / 2**20 for n in (stat.f_blocks, stat.f_bavail))
        raise LoaderError(
            f"{_SHM} ({size:.3g} MB, {free:.3g} MB free) has no room for the batches of the loading"
            " processes: type dataset.loader.num_workers=0, or give the container more (docker run"
            " --shm-size=8g, or --ipc=host)"
        ) from error


@contextlib.contextmanager
def _said_when_late(num_workers: int) -> Iterator[None]:
    timer = threading.Timer(
        _LATE_S,
        log.warning,
        (
            "no batch for %.0f s (dataset.loader.num_workers=%d): a stalled disk or network mount,"
            " or a loading process that hangs",
            *(_LATE_S, num_workers),
        ),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C reaches all processes; the main one decides, and still needs its next batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
