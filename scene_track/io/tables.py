"""Text tables: lines of numbers, and one-line errors that name file, line and column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SHOWN_NAMES = 5
_SHOWN_FAULTS = 3


def read_lines(content: Path | bytes, expected: str = "") -> list[str]:
    """The lines of a text file, without their ends.

    A byte that is not UTF-8 becomes a replacement character, which then fails to parse with its
    line number. A byte order mark is dropped.

    Args:
        content: the file, or the bytes of one.
        expected: what the file should hold, for the error.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(content, Path):
        if not content.is_file():
            raise FileNotFoundError(f"{content}: no such file, expected {expected}")
        content = content.read_bytes()
    return content.decode("utf-8-sig", errors="replace").splitlines()


def read_matrix(lines: Sequence[str]) -> NDArray[np.float64] | None:
    """``[rows, columns]`` of comma-separated numbers; None unless every cell of every row is one.

    Values are those of ``float``, to the last bit.
    """
    if not any(line.strip() for line in lines):
        return np.zeros((0, 0))
    try:
        return np.loadtxt(lines, dtype=np.float64, delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None


def parse_number(column: str, text: str, *, finite: bool = True) -> float:
    """The number in a cell.

    Raises:
        ValueError: it holds none, naming the column.
    """
    try:
        # float() reads 1_000 as a thousand, which no other reader of these files does.
        value = float(text if "_" not in text else "not a number")
    except ValueError:
        value = None
    if value is None or (finite and not math.isfinite(value)):
        raise ValueError(f"{column} is {text.strip()!r}, expected a number")
    return value


def parse_whole(column: str, text: str) -> int:
    """The whole number >= 0 in a cell.

    Raises:
        ValueError: it holds none, naming the column.
    """
    if not text.isdecimal():
        raise ValueError(f"{column} is {text!r}, expected a whole number >= 0")
    return int(text)


def first_few(texts: Sequence[str], most: int = _SHOWN_NAMES, separator: str = ", ") -> str:
    """The first texts in one line, and how many more there are."""
    more = len(texts) - most
    ending = f"{separator if separator != ', ' else ' '}and {more} more" if more > 0 else ""
    return separator.join(texts[:most]) + ending


def fault_message(file: Path, faults: Sequence[str]) -> str:
    """One line with the number of faults of a file and the first of them."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{file}: {count}: {first_few(faults, _SHOWN_FAULTS, '; ')}"
