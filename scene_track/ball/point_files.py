"""CSV files of one ball per frame: TrackNet's labels, TrackNetV2's and V3's, and our results.

All are one table with differing column names, read by one function in float64. No torch in here.

Coordinates are pixels of the original video; an integer is the *centre* of a pixel (its index).
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scene_track.data.images import EXTENSIONS
from scene_track.io.atomic import write_atomic
from scene_track.io.tables import (
    fault_message,
    first_few,
    parse_number,
    parse_whole,
    read_lines,
)

__all__ = ["PointTable", "PointRules", "read_points", "write_points"]

OnError = Literal["raise", "skip"]

RESULT_HEADER = ("frame", "visibility", "x", "y", "confidence")
"""Columns of a result file."""

# Column names of the layouts, lower case, and what they are called here.
_NAMES = {
    "file name": "frame",
    "frame": "frame",
    "visibility": "visibility",
    "x-coordinate": "x",
    "x": "x",
    "y-coordinate": "y",
    "y": "y",
    "confidence": "confidence",
}
_REQUIRED = ("frame", "visibility", "x", "y")
_HIGHEST_VISIBILITY = 3


@dataclass(frozen=True, eq=False)
class PointTable:
    """One ball per frame, by frame.

    Attributes:
        frames: ``[n]`` int64 frame numbers, as in the files, ascending, each once.
        xy: ``[n, 2]`` float64 pixels; NaN where visibility is 0.
        visibility: ``[n]`` int64: 0 absent, 1 visible, 2 hard to see, 3 occluded. Predictions say 0
            or 1.
        confidence: ``[n]`` float64, 0-1; 1 where the file has none.
    """

    frames: NDArray[np.int64]
    xy: NDArray[np.float64]
    visibility: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def points(self) -> NDArray[np.float64]:
        """``[n, 3]`` x, y, visibility."""
        return np.column_stack((self.xy, self.visibility.astype(np.float64)))


@dataclass(frozen=True)
class PointRules:
    """What a row may hold.

    Attributes:
        frames: frame numbers that exist; None = any from 0.
        size: (height, width) of the images, in which ground truth must lie; None = anywhere.
        every_frame: whether each of ``frames`` must have a row, in ascending order: a result file
            that says nothing of a frame is not finished.
    """

    frames: Sequence[int] | None = None
    size: tuple[int, int] | None = None
    every_frame: bool = False


def read_points(
    path: Path | str, rules: PointRules, *, on_error: OnError = "raise"
) -> tuple[PointTable, list[str]]:
    """Read a label or result file.

    The first line names the columns, in any order and case: ``file name,visibility,x-coordinate,
    y-coordinate,status`` (TrackNet), ``Frame,Visibility,X,Y`` (TrackNetV2 and V3) or
    ``frame,visibility,x,y,confidence`` (ours). Other columns are not read. With visibility 0 the
    coordinates are not read either: they may be blank.

    A row is wrong when it has more cells than the header (a decimal comma), when a value does not
    parse, is not finite or out of range, when it has visibility 1 to 3 without coordinates, when
    its frame does not exist, or repeats one.

    Args:
        path: CSV file.
        rules: what the rows may hold.
        on_error: ``raise`` refuses a file with wrong rows, ``skip`` leaves those rows out.

    Returns:
        The table, and one ``line N: reason`` per wrong row (with ``raise``: always empty).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header lacks a column; with ``raise`` or ``every_frame``: wrong rows, with
            how many there are and the first of them.
    """
    file = Path(path)
    lines = read_lines(file, "a CSV of one ball per frame")
    header = next(_cells(file, lines[:1]), [])
    columns = _columns(file, header)
    rows: dict[int, tuple[float, float, int, float]] = {}
    order: list[int] = []
    problems: list[str] = []
    allowed = None if rules.frames is None else set(rules.frames)
    for number, cells in enumerate(_cells(file, lines[1:]), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            if any(cell.strip() for cell in cells[len(header) :]):
                raise ValueError(
                    f"has {len(cells)} cells, the header has {len(header)}; a decimal comma?"
                )
            frame, row = _parse(cells, columns, rules.size)
            if allowed is not None and frame not in allowed:
                raise ValueError(f"frame {frame} is not one of {_range(rules.frames)}")
            if frame in rows:
                raise ValueError(f"frame {frame} appears more than once")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if rules.every_frame and order and frame < order[-1]:
            problems.append(f"line {number}: frame {frame} comes after frame {order[-1]}")
        rows[frame] = row
        order.append(frame)
    if rules.every_frame:
        holes = sorted((allowed or set(range(max(order, default=-1) + 1))) - rows.keys())
        if holes:
            shown = first_few([str(frame) for frame in holes])
            problems.append(f"no row for {len(holes)} frames: {shown}")
    if problems and (on_error == "raise" or rules.every_frame):
        raise ValueError(fault_message(file, problems))
    return _table(rows), problems


def write_points(path: Path | str, table: PointTable) -> None:
    """Write a result file, the header and ``format_points``, complete or not at all.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: see ``format_points``; an existing file then stays.
    """
    write_atomic(path, f"{','.join(RESULT_HEADER)}\n{format_points(table, path)}")


def format_points(table: PointTable, path: Path | str) -> str:
    """Rows of a result file: ``frame,visibility,x,y,confidence``, one row per frame.

    Coordinates are blank where visibility is 0. Numbers have as many digits as are needed to read
    back the very same float64. ``path`` is for the message.

    Raises:
        ValueError: if frames do not ascend, or a row holds what :func:`read_points` would refuse.
    """
    seen = table.visibility > 0
    if len(table) and not (np.diff(table.frames) > 0).all():
        raise ValueError(f"{path}: not written, frames must ascend, each once")
    sound = np.isfinite(table.xy).all(axis=1) | ~seen
    sound &= (table.visibility >= 0) & (table.visibility <= _HIGHEST_VISIBILITY)
    sound &= np.isfinite(table.confidence)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"{path}: not written, frame {table.frames[row]} has visibility "
            f"{table.visibility[row]}, x, y {table.xy[row].tolist()}, confidence "
            f"{table.confidence[row]}: expected visibility 0 to 3 and finite numbers"
        )
    columns = zip(
        table.frames.tolist(),
        table.visibility.tolist(),
        table.xy.tolist(),
        table.confidence.tolist(),
        strict=True,
    )
    return "".join(
        f"{frame},{visibility},{f'{x!r},{y!r}' if visibility else ','},{confidence!r}\n"
        for frame, visibility, (x, y), confidence in columns
    )


def _cells(file: Path, lines: list[str]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except csv.Error as error:
        raise ValueError(f"{file}: not a readable CSV file: {error}") from None


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    """Place of every column that is read."""
    places: dict[str, int] = {}
    for place, cell in enumerate(header):
        name = _NAMES.get(cell.strip().lower())
        if name is not None:
            places.setdefault(name, place)
    missing = [name for name in _REQUIRED if name not in places]
    if missing:
        raise ValueError(
            f"{file}: line 1 has no column {', '.join(missing)}, expected a header such as "
            f"'{','.join(RESULT_HEADER)}', found {','.join(header)[:80]!r}"
        )
    return places


def _parse(
    cells: list[str], columns: dict[str, int], size: tuple[int, int] | None
) -> tuple[int, tuple[float, float, int, float]]:
    """Frame number and (x, y, visibility, confidence) of one row.

    Raises:
        ValueError: with the reason.
    """

    def cell(name: str) -> str:
        place = columns[name]
        return cells[place].strip() if place < len(cells) else ""

    name, extension = os.path.splitext(cell("frame"))
    if extension.lower() not in EXTENSIONS:
        name = cell("frame")
    elif digits := re.search(r"[0-9]+$", name):
        name = digits[0]  # of 0001.jpg and of img0001.jpg
    frame = parse_whole("frame", name)
    visibility = parse_whole("visibility", cell("visibility"))
    if visibility > _HIGHEST_VISIBILITY:
        raise ValueError(f"visibility is {visibility}, expected 0, 1, 2 or 3")
    confidence = parse_number("confidence", cell("confidence")) if "confidence" in columns else 1.0
    if not visibility:
        return frame, (math.nan, math.nan, 0, confidence)
    x, y = parse_number("x", cell("x")), parse_number("y", cell("y"))
    if size is not None:
        for name, value, length in (("x", x, size[1]), ("y", y, size[0])):
            if not -0.5 <= value < length - 0.5:
                raise ValueError(
                    f"{name} is {value:g}, outside the image ({size[1]}x{size[0]} pixels)"
                )
    return frame, (x, y, visibility, confidence)


def _range(frames: Sequence[int] | None) -> str:
    if not frames:
        return "this video's, which has none"
    return f"the {len(frames)} frames {min(frames)} to {max(frames)}"


def _table(rows: dict[int, tuple[float, float, int, float]]) -> PointTable:
    frames = sorted(rows)
    values = np.array([rows[frame] for frame in frames], dtype=np.float64).reshape(-1, 4)
    return PointTable(
        frames=np.array(frames, dtype=np.int64),
        xy=values[:, :2].copy(),
        visibility=values[:, 2].astype(np.int64),
        confidence=values[:, 3].copy(),
    )
