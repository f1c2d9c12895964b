"""Work beside the main thread: an iterator that is read ahead, a function that is called behind.

Both hold a bounded number of items, so that the faster side waits. Errors of the other thread are
raised in the one that reads or writes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # how soon a waiting thread notices that the other side has gone


@dataclass
class Clock:
    """Time that one stage of the work has taken.

    Attributes:
        busy_s: seconds of work; waiting for another stage plays no part.
    """

    busy_s: float = 0.0

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time that each one takes to come is added."""
        iterator = iter(items)
        try:
            while True:
                started = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self.busy_s += time.perf_counter() - started
                yield item
        finally:
            close(iterator)


def close(items: object) -> None:
    """Close a generator; other iterables hold nothing open."""
    if isinstance(items, Generator):
        items.close()


class _End:
    """Comes after the last item, with what ended the iterator early."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(
    items: Iterable[T], count: int, *, stop: threading.Event | None = None, newest: bool = False
) -> Iterator[T]:
    """The items, taken by a thread of its own while the caller is at work.

    The thread ends with the items, with ``stop``, or when this generator is closed; a generator
    that is read is closed then.

    Args:
        items: what is read.
        count: items that may wait, >= 1.
        stop: once set, no further item is read, and the generator ends.
        newest: drop the oldest waiting item when there is no room, instead of waiting: for a source
            that does not wait either.

    Raises:
        Exception: what reading the items raised.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(count)
    gone = threading.Event()

    def put(item: T | _End) -> None:
        while not gone.is_set():
            try:
                waiting.put(item, timeout=0 if newest else _POLL_S)
                return
            except queue.Full:
                if newest:
                    try:
                        waiting.get_nowait()
                    except queue.Empty:
                        continue

    def read() -> None:
        error = None
        try:
            for item in items:
                put(item)
                if gone.is_set() or (stop is not None and stop.is_set()):
                    break
        except BaseException as caught:  # handed to the thread that waits for the items
            error = caught
        finally:
            close(items)
        put(_End(error))

    thread = threading.Thread(target=read, name="read_ahead", daemon=True)
    thread.start()
    try:
        while not (stop is not None and stop.is_set()):
            try:
                item = waiting.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        gone.set()
        thread.join(timeout=10 * _POLL_S)  # a source that gives no frame keeps it longer


class Behind(Generic[T]):
    """Calls a function with items, in order, in a thread of its own."""

    def __init__(self, function: Callable[[T], None], count: int) -> None:
        """Start the thread.

        Args:
            function: called with each item.
            count: items that may wait, >= 1.
        """
        self.clock = Clock()
        self._function = function
        self._waiting: queue.Queue[T | _End] = queue.Queue(count)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over the next item; waits while there is no room.

        Raises:
            Exception: what the function raised for an earlier item.
        """
        while self._error is None:
            try:
                self._waiting.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue
        raise self._error

    def close(self) -> None:
        """Wait until every item is done.

        Raises:
            Exception: what the function raised.
        """
        while self._thread.is_alive():
            try:
                self._waiting.put(_End(None), timeout=_POLL_S)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not isinstance(item := self._waiting.get(), _End):
            started = time.perf_counter()
            try:
                self._function(item)
            except BaseException as caught:  # raised where the next item is handed over
                self._error = caught
                return
            finally:
                self.clock.busy_s += time.perf_counter() - started
