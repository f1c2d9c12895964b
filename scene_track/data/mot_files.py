"""MOTChallenge text files (``gt.txt``, results), read and written in float64.

With float32, an IoU that ties a threshold exactly falls on the wrong side (0.35 HOTA points on one
file). No torch in here: scoring must not wait for its import.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scene_track.io.atomic import write_atomic
from scene_track.io.tables import fault_message, first_few, parse_number, read_lines, read_matrix

__all__ = [
    "BoxTable",
    "find_results",
    "parse_boxes",
    "read_boxes",
    "write_results",
]

Kind = Literal["ground_truth", "result", "detections"]
OnError = Literal["raise", "skip"]

# frame, id, left, top, width, height, confidence, class, visibility. The first six must be there.
_COLUMNS = ("frame", "id", "left", "top", "width", "height", "confidence", "class", "visibility")
_REQUIRED_COLUMNS = 6
_MOST_COLUMNS = 10  # of any MOTChallenge file; more are decimal commas
_DEFAULTS = np.ones(len(_COLUMNS))
# Result files carry 3-D coordinates (-1, -1, -1) after the confidence: not class and visibility.
_COLUMNS_READ = {"ground_truth": 9, "result": 7, "detections": 7}
_MAX_INTEGER = 2.0**53  # above this a float64 no longer holds every integer


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Boxes of one sequence, one row per box, always sorted by frame.

    Rows given in another order are sorted on construction; within a frame the given order is kept,
    because solvers break exact ties by it.

    Attributes:
        frames: ``[n]`` int64 frame numbers, from 1.
        ids: ``[n]`` int64 identities.
        boxes: ``[n, 4]`` float64 left, top, width, height in pixels.
        confidence: ``[n]`` float64; in ground truth 0 marks a box that is not to be scored.
        classes: ``[n]`` int64 MOTChallenge class numbers (1 = pedestrian).
        visibility: ``[n]`` float64, 0-1.
    """

    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    confidence: NDArray[np.float64]
    classes: NDArray[np.int64]
    visibility: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Coerce the types, check the shapes, sort by frame.

        Raises:
            ValueError: if the columns have different lengths or ``boxes`` is not ``[n, 4]``.
        """
        rows = len(self.frames)
        columns = {}
        for field in fields(self):
            dtype = np.int64 if field.name in ("frames", "ids", "classes") else np.float64
            column = np.asarray(getattr(self, field.name), dtype=dtype)
            expected = (rows, 4) if field.name == "boxes" else (rows,)
            if column.shape != expected:
                raise ValueError(
                    f"BoxTable.{field.name} has shape {column.shape}, expected {expected}"
                )
            columns[field.name] = column
        if rows and np.any(np.diff(columns["frames"]) < 0):
            order = np.argsort(columns["frames"], kind="stable")
            columns = {name: column[order] for name, column in columns.items()}
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def empty(cls) -> BoxTable:
        """A table without rows."""
        return cls.from_arrays(np.zeros(0), np.zeros(0), np.zeros((0, 4)))

    @classmethod
    def from_arrays(
        cls,
        frames: NDArray[Any],
        ids: NDArray[Any],
        boxes: NDArray[Any],
        confidence: NDArray[Any] | None = None,
        classes: NDArray[Any] | None = None,
        visibility: NDArray[Any] | None = None,
    ) -> BoxTable:
        """Build a table; confidence, class and visibility are 1 where not given.

        Raises:
            ValueError: if the columns have different lengths or ``boxes`` is not ``[n, 4]``.
        """
        rows = len(frames)
        return cls(
            frames=frames,
            ids=ids,
            boxes=boxes,
            confidence=np.ones(rows) if confidence is None else confidence,
            classes=np.ones(rows, dtype=np.int64) if classes is None else classes,
            visibility=np.ones(rows) if visibility is None else visibility,
        )

    def select(self, index: NDArray[Any]) -> BoxTable:
        """The rows that a boolean mask or integer index picks."""
        return BoxTable(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def at(self, frame: int) -> BoxTable:
        """The rows of one frame (possibly none)."""
        return self.between(frame, frame)

    def between(self, first: int, last: int) -> BoxTable:
        """The rows of frames ``first`` to ``last``, both included; frame numbers are kept."""
        start, stop = np.searchsorted(self.frames, (first, last + 1))
        return BoxTable(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})

    def frame_offsets(self, length: int) -> NDArray[np.int64]:
        """``[length + 1]`` row offsets: frame ``f`` owns rows ``offsets[f - 1]:offsets[f]``."""
        return np.searchsorted(self.frames, np.arange(1, length + 2)).astype(np.int64)


def read_boxes(
    path: Path | str,
    *,
    kind: Kind = "ground_truth",
    length: int | None = None,
    classes: Collection[int] | None = None,
    on_error: OnError = "raise",
) -> tuple[BoxTable, list[str]]:
    """Read the boxes of one sequence.

    A row is ``frame,id,left,top,width,height[,confidence[,class[,visibility]]]``. Blank lines and
    rows in any order are fine, and so is an empty file. Rows whose confidence (flag) is 0 are kept:
    who scores ground truth drops them, who trains may want them. In ground truth a class or
    visibility below 0 means "not stated" (MOT15) and becomes 1; result files have other things in
    those columns, which are not read.

    A row is wrong when it does not parse, holds a value that is not finite, has a negative width or
    height, lies outside frames 1 to ``length``, or repeats a (frame, id) of an earlier row. A width
    or height of 0 is wrong in ground truth only: a result of that size overlaps nothing and counts
    as a false positive, as in TrackEval. Ground truth that is to be ignored (flag 0, or of another
    class than ``classes``) may have any finite size and repeat an identity.

    Args:
        path: text file.
        kind: ``ground_truth``, ``result``, or ``detections``: a result without identities, whose
            column is not looked at.
        length: number of frames of the sequence; None leaves the frames open upwards.
        classes: of ground truth, those that are asked for; None = all.
        on_error: ``raise`` refuses a file with wrong rows, ``skip`` leaves those rows out.

    Returns:
        The table, and one ``line N: reason`` per wrong row, in the order of the file (with
        ``raise``: always empty).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: with ``raise``, naming the file, how many rows are wrong and the first of them.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file, expected {kind.replace('_', ' ')} boxes")
    table, report = parse_boxes(file.read_bytes(), kind=kind, length=length, classes=classes)
    if report and on_error == "raise":
        raise ValueError(fault_message(file, report))
    return table, report


def read_xyz(file: Path, table: BoxTable) -> NDArray[np.float64]:
    """``[rows, 3]`` positions of the table's rows; NaN where the file has none.

    Raises:
        ValueError: the file does not hold rows ``frame,id,x,y,z`` of finite numbers.
    """
    try:
        values = np.loadtxt(file, delimiter=",", ndmin=2, dtype=np.float64)
        if values.size and values.shape[1] != 5:
            raise ValueError(f"{values.shape[1]} columns")
        if not np.isfinite(values).all():
            raise ValueError("a number is not finite")
        keys = values[:, :2] if values.size else np.zeros((0, 2))
        if (np.rint(keys) != keys).any() or len(np.unique(keys, axis=0)) < len(keys):
            raise ValueError("frame or id is no whole number, or both are there twice")
    except ValueError as error:
        raise ValueError(f"{file}: expected rows frame,id,x,y,z: {error}") from None
    where = {(int(r[0]), int(r[1])): r[2:] for r in values.reshape(-1, 5)}
    unknown = np.full(3, np.nan)
    rows = [
        where.get(k, unknown) for k in zip(table.frames.tolist(), table.ids.tolist(), strict=True)
    ]
    return np.array(rows).reshape(-1, 3)


def parse_boxes(
    raw: bytes,
    *,
    kind: Kind = "ground_truth",
    length: int | None = None,
    classes: Collection[int] | None = None,
) -> tuple[BoxTable, list[str]]:
    """The boxes in the bytes of a file, wrong rows left out and named; see :func:`read_boxes`."""
    columns = _COLUMNS_READ[kind]
    lines = read_lines(raw)
    values = read_matrix(lines)
    problems: dict[int, str] = {}
    if values is not None and not len(values):
        return BoxTable.empty(), []
    if values is not None and _REQUIRED_COLUMNS <= values.shape[1] <= _MOST_COLUMNS:
        values = _fill(values[:, :columns], columns)
    else:
        values = None
    if values is None or _wrong_rows(values, length, kind, classes):
        values, numbers, problems = _parse_line_by_line(lines, columns)
        wrong = _wrong_rows(values, length, kind, classes)
        problems |= {numbers[row]: reason for row, reason in wrong.items()}
        values = np.delete(values, list(wrong), axis=0)

    report = [f"line {line}: {problems[line]}" for line in sorted(problems)]
    return _to_table(values), report


def find_results(
    folder: Path, names: Sequence[str], *, missing_from: str, suffix: str = ".txt"
) -> dict[str, Path]:
    """The result file of every sequence; that there is one each, and no other, is checked.

    Args:
        folder: as typed after ``predictions=``; holds one ``<seq>.txt`` per sequence.
        names: of the sequences.
        missing_from: where a file too many has no sequence, such as "ground truth".
        suffix: of the files, ``.txt`` for boxes, ``.csv`` for a ball.

    Raises:
        FileNotFoundError: the folder or a file is missing, or one is of no sequence.
    """
    expected = f"predictions=FOLDER_OF_{suffix[1:].upper()}"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"predictions={folder}: {what}, type {expected}")
    files = {f.stem: f for f in folder.glob(f"*{suffix}") if not f.name.startswith(".")}
    if not files and names:
        inner = folder / "tracks"
        hint = f"type predictions={inner}" if inner.is_dir() else f"type {expected}"
        raise FileNotFoundError(f"predictions={folder}: no result file ({suffix}) in it, {hint}")
    missing = [f"{name}{suffix}" for name in names if name not in files]
    if missing:
        empty = " (an empty file says that nothing was found)" if suffix == ".txt" else ""
        raise FileNotFoundError(
            f"predictions={folder}: no result file for {len(missing)} of {len(names)} sequences:"
            f" {first_few(missing)}; put them there{empty}"
        )
    extra = sorted(f"{name}{suffix}" for name in files.keys() - set(names))
    if extra:
        raise FileNotFoundError(
            f"predictions={folder}: no {missing_from} for {first_few(extra)}, expected only files"
            f" for {first_few(names)}; move the others elsewhere"
        )
    return {name: files[name] for name in names}


def write_results(path: Path | str, table: BoxTable) -> None:
    """Write a MOTChallenge result file, complete or not at all; see ``format_results``.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: see ``format_results``; an existing file then stays.
    """
    write_atomic(path, format_results(table, path))


def format_results(table: BoxTable, path: Path | str) -> str:
    """Rows of a MOTChallenge result file: ``frame,id,left,top,width,height,confidence,-1,-1,-1``.

    Rows are sorted by frame, then id. Numbers have as many digits as are needed to read back the
    very same float64. Class and visibility are not part of the format; ``path`` is for the message.

    Raises:
        ValueError: if the table holds a row that :func:`read_boxes` would refuse.
    """
    values = np.column_stack((table.frames, table.ids, table.boxes, table.confidence))
    wrong = _wrong_rows(values.astype(np.float64), None, "result")
    if wrong:
        row, reason = min(wrong.items())
        raise ValueError(
            f"{path}: not written, {len(wrong)} of {len(table)} boxes are wrong, the first: "
            f"frame {table.frames[row]}, id {table.ids[row]}: {reason}"
        )
    order = np.lexsort((table.ids, table.frames))
    rows = zip(
        table.frames[order].tolist(),
        table.ids[order].tolist(),
        table.boxes[order].tolist(),
        table.confidence[order].tolist(),
        strict=True,
    )
    return "".join(
        f"{frame},{track},{left!r},{top!r},{width!r},{height!r},{confidence!r},-1,-1,-1\n"
        for frame, track, (left, top, width, height), confidence in rows
    )


def _fill(values: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """Append the default of every optional column that the rows lack."""
    rows, found = values.shape
    if found == columns:
        return values
    missing = np.broadcast_to(_DEFAULTS[found:columns], (rows, columns - found))
    return np.hstack((values, missing))


def _parse_line_by_line(
    lines: Sequence[str], columns: int
) -> tuple[NDArray[np.float64], list[int], dict[int, str]]:
    """The rows that parse, their line numbers, and the reason for each line that does not parse."""
    rows: list[NDArray[np.float64]] = []
    numbers: list[int] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.split(",")
        row = _DEFAULTS[:columns].copy()
        try:
            if len(cells) < _REQUIRED_COLUMNS:
                raise ValueError(
                    f"has {len(cells)} comma-separated columns, expected at least "
                    f"{_REQUIRED_COLUMNS} ({','.join(_COLUMNS[:_REQUIRED_COLUMNS])})"
                )
            if any(cell.strip() for cell in cells[_MOST_COLUMNS:]):
                raise ValueError(
                    f"has {len(cells)} columns, expected at most {_MOST_COLUMNS}; a decimal comma?"
                )
            for column, cell in enumerate(cells[:columns]):
                row[column] = parse_number(_COLUMNS[column], cell, finite=False)
        except ValueError as error:
            problems[number] = str(error)
            continue
        rows.append(row)
        numbers.append(number)
    values = np.array(rows, dtype=np.float64).reshape(-1, columns)
    return values, numbers, problems


def _wrong_rows(
    values: NDArray[np.float64],
    length: int | None,
    kind: Kind,
    classes: Collection[int] | None = None,
) -> dict[int, str]:
    """Reason by row index for every row that parsed but cannot be meant."""
    ignored = np.zeros(len(values), dtype=bool)
    if kind == "ground_truth":
        ignored = values[:, 6] == 0
        if classes is not None:
            stated = np.where(values[:, 7] < 0, 1, values[:, 7])
            ignored |= ~np.isin(stated, list(classes))
    reasons: dict[int, str] = {}

    def note(mask: NDArray[np.bool_], column: int, expected: str) -> None:
        for row in np.flatnonzero(mask).tolist():
            reasons.setdefault(row, f"{_COLUMNS[column]} is {values[row, column]:g}, {expected}")

    finite = np.isfinite(values)
    if not finite.all():
        for column in range(values.shape[1]):
            note(~finite[:, column], column, "expected a finite number")
    whole_columns = {"ground_truth": (0, 1, 7), "result": (0, 1), "detections": (0,)}[kind]
    for column in whole_columns:
        cells = values[:, column]
        whole = (np.rint(cells) == cells) & (np.abs(cells) < _MAX_INTEGER)
        note(~whole, column, "expected a whole number")
    for column in (4, 5):
        if kind == "ground_truth":
            note((values[:, column] <= 0) & ~ignored, column, "expected > 0 pixels")
        else:
            note(values[:, column] < 0, column, "expected >= 0 pixels")
    last = np.inf if length is None else length
    outside = (values[:, 0] < 1) | (values[:, 0] > last)
    note(outside, 0, "expected >= 1" if length is None else f"expected 1 to {length} (seqLength)")

    if kind == "detections":
        return reasons
    # Of rows with the same frame and id the first sound one stands: wrong rows are left out here.
    ignored[list(reasons)] = True
    sound = np.flatnonzero(~ignored)
    order = sound[np.lexsort((values[sound, 1], values[sound, 0]))]
    same = np.all(values[order[1:], :2] == values[order[:-1], :2], axis=1)
    for row in order[1:][same].tolist():
        frame, track = values[row, :2]
        reasons[row] = f"id {track:.0f} appears more than once in frame {frame:.0f}"
    return reasons


def _to_table(values: NDArray[np.float64]) -> BoxTable:
    values = _fill(values, len(_COLUMNS))
    classes, visibility = values[:, 7], values[:, 8]
    return BoxTable(
        frames=values[:, 0].astype(np.int64),
        ids=values[:, 1].astype(np.int64),
        boxes=np.ascontiguousarray(values[:, 2:6]),
        confidence=values[:, 6].copy(),
        classes=np.where(classes < 0, 1, classes).astype(np.int64),
        visibility=np.where(visibility < 0, 1.0, visibility),
    )
