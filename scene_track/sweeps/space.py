"""What a search varies: Hydra's sweep syntax as plain descriptions, without Optuna.

``choice(0,0.5,1)`` or ``0,0.5,1``, ``range(1,5)``, ``interval(1e-4,1e-2)``,
``tag(log, interval(1e-4,1e-2))``; ``int(interval(1,5))`` for whole numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order.

    Attributes:
        values: numbers, booleans, None or texts as they are typed.
    """

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Interval:
    """A number between two others, both included.

    Attributes:
        low: the lowest.
        high: the highest.
        log: drawn by its logarithm.
        step: distance of the values; None: any number.
        integer: it is a whole number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False


Space = dict[str, Choice | Interval]


def split(overrides: Sequence[Override]) -> tuple[Space, list[str]]:
    """What a search varies, by key as it is typed, and the overrides that stay.

    A later override takes the place of an earlier one of its key.

    Raises:
        ValueError: an interval is empty, or not above 0 and yet logarithmic.
    """
    space: Space = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = _described(override)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    return space, list(fixed.values())


def _described(override: Override) -> Choice | Interval:
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        log = "log" in value.tags
        if low is None or high is None or low > high or (log and low <= 0):
            raise ValueError(
                f"{override.input_line}: expected interval(LOW,HIGH) with LOW <= HIGH"
                + (" and LOW > 0, because it is logarithmic" if log else "")
            )
        return Interval(low, high, log, None, isinstance(low, int) and isinstance(high, int))
    if isinstance(value, RangeSweep) and not value.shuffle:
        assert value.start is not None and value.stop is not None
        count = math.ceil((value.stop - value.start) / value.step)  # the stop is not included
        if count < 1 or value.step < 0:
            raise ValueError(f"{override.input_line}: expected range(LOW,HIGH) with LOW < HIGH")
        integer = all(isinstance(x, int) for x in (value.start, value.step))
        high = value.start + (count - 1) * value.step
        return Interval(value.start, high, step=value.step, integer=integer)
    if override.is_choice_sweep() or isinstance(value, RangeSweep):
        values = override.sweep_iterator(transformer=Transformer.encode)
        return Choice(tuple({(type(value), value): value for value in values}.values()))
    return Choice(tuple(override.sweep_string_iterator()))  # glob(*) of a group


def points(space: Space, most: int = 10_000) -> Iterator[Mapping[str, Any]]:
    """All points of a space that has an end; nothing if it has none or more than ``most``."""
    axes: list[list[Any]] = []
    for axis in space.values():
        if isinstance(axis, Choice):
            axes.append(list(axis.values))
        elif axis.integer or axis.step is not None:
            step = axis.step or 1
            count = int((axis.high - axis.low) / step + 1e-9) + 1
            if count > most:
                return
            axes.append([axis.low + i * step for i in range(count)])
        else:
            return
    if math.prod(map(len, axes)) <= most:
        for values in itertools.product(*axes):
            yield dict(zip(space, values, strict=True))
