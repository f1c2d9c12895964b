"""MOTChallenge text files (``gt.txt``, results, ``seqinfo.ini``), read and written in float64.

Special here: everything is float64 and numpy only. With float32, an IoU that ties a threshold
exactly falls on the wrong side (0.35 HOTA points on one file), and scoring must not wait for torch.
A plainly written file is parsed as one array of bytes, several times faster than ``numpy.loadtxt``;
any other is read line by line, which also tells which lines are wrong and why.
"""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scene_track.io.atomic import write_atomic

__all__ = [
    "BoxTable",
    "SequenceInfo",
    "find_results",
    "first_few",
    "parse_boxes",
    "read_boxes",
    "read_length",
    "read_seqinfo",
    "write_results",
]

Kind = Literal["ground_truth", "result"]
OnError = Literal["raise", "skip"]

# frame, id, left, top, width, height, confidence, class, visibility. The first six must be there.
_COLUMNS = ("frame", "id", "left", "top", "width", "height", "confidence", "class", "visibility")
_REQUIRED_COLUMNS = 6
_DEFAULTS = np.ones(len(_COLUMNS))
# Result files carry 3-D coordinates (-1, -1, -1) after the confidence: not class and visibility.
_COLUMNS_READ = {"ground_truth": 9, "result": 7}
_MAX_INTEGER = 2.0**53  # above this a float64 no longer holds every integer
_SHOWN_PROBLEMS = 3
_SHOWN_NAMES = 5

_NEWLINE, _COMMA, _MINUS, _DOT, _ZERO, _NINE = b"\n,-.09"
_BLOCK_BYTES = 65_536
_EXACT_DIGITS = 15  # every whole number of so many digits, and 10**22, is exact in float64


@dataclass(frozen=True)
class SequenceInfo:
    """What ``seqinfo.ini`` says about one sequence.

    Attributes:
        name: sequence name.
        image_dir: folder of the images, relative to the sequence folder (``img1``).
        frame_rate: frames per second, > 0.
        length: number of frames, >= 1; they are numbered on from ``first_frame``.
        width: image width in pixels, >= 1.
        height: image height in pixels, >= 1.
        extension: image file extension with its dot (``.jpg``).
        first_frame: number of the first frame: 1 in the MOTChallenge layout, 0 in TrackNet's.
    """

    name: str
    image_dir: str
    frame_rate: float
    length: int
    width: int
    height: int
    extension: str
    first_frame: int = 1

    @property
    def last_frame(self) -> int:
        """Number of the last frame."""
        return self.first_frame + self.length - 1


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
        frames: NDArray,
        ids: NDArray,
        boxes: NDArray,
        confidence: NDArray | None = None,
        classes: NDArray | None = None,
        visibility: NDArray | None = None,
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

    def select(self, index: NDArray) -> BoxTable:
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


def read_seqinfo(path: Path | str) -> SequenceInfo:
    """Read ``seqinfo.ini``.

    ``name``, ``imDir`` and ``imExt`` may be missing: they are then the folder's name, ``img1`` and
    ``.jpg``, as the MOTChallenge layout has them. ``frameRate``, ``seqLength``, ``imWidth`` and
    ``imHeight`` must be there.

    Args:
        path: the file, or the sequence folder that holds it.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if a key is missing or has a value out of range.
    """
    file, section = _seqinfo_section(path)
    return SequenceInfo(
        name=section.get("name", file.resolve().parent.name),
        image_dir=section.get("imDir", "img1"),
        frame_rate=_positive(file, section, "frameRate"),
        length=_positive_int(file, section, "seqLength"),
        width=_positive_int(file, section, "imWidth"),
        height=_positive_int(file, section, "imHeight"),
        extension=section.get("imExt", ".jpg"),
    )


def read_length(path: Path | str) -> int:
    """Read only the number of frames (``seqLength``) of ``seqinfo.ini``; other keys may be missing.

    Args:
        path: the file, or the sequence folder that holds it.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if ``seqLength`` is missing or not a whole number >= 1.
    """
    file, section = _seqinfo_section(path)
    return _positive_int(file, section, "seqLength")


def read_boxes(
    path: Path | str,
    *,
    kind: Kind = "ground_truth",
    length: int | None = None,
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
    as a false positive, as in TrackEval.

    Args:
        path: text file.
        kind: ``ground_truth`` or ``result``; see above.
        length: number of frames of the sequence; None leaves the frames open upwards.
        on_error: ``raise`` refuses a file with wrong rows, ``skip`` leaves those rows out.

    Returns:
        The table, and one ``line N: reason`` per wrong row, in the order of the file (with
        ``raise``: always empty).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: with ``raise``, naming the file, how many rows are wrong and the first of them.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file, expected {kind.replace('_', ' ')} boxes")
    table, report = parse_boxes(file.read_bytes(), kind=kind, length=length)
    if report and on_error == "raise":
        rows = "row is" if len(report) == 1 else "rows are"
        raise ValueError(
            f"{file}: {len(report)} {rows} wrong: {first_few(report, _SHOWN_PROBLEMS, '; ')}"
        )
    return table, report


def parse_boxes(
    raw: bytes, *, kind: Kind = "ground_truth", length: int | None = None
) -> tuple[BoxTable, list[str]]:
    """The boxes in the content of a file, wrong rows left out; see :func:`read_boxes`.

    Args:
        raw: the bytes of the file.
        kind: ``ground_truth`` or ``result``.
        length: number of frames of the sequence; None leaves the frames open upwards.

    Returns:
        The table, and one ``line N: reason`` per wrong row, in the order of the file.

    Raises:
        ValueError: ``kind`` is something else.
    """
    if kind not in _COLUMNS_READ:
        raise ValueError(f"kind must be 'ground_truth' or 'result', got {kind!r}")
    columns = _COLUMNS_READ[kind]
    values = _parse_at_once(raw, columns)
    problems: dict[int, str] = {}
    if values is None or _wrong_rows(values, length, kind):
        # A byte that is not UTF-8 becomes a replacement character, which then fails to parse with
        # its line number; "-sig" drops the mark that some editors put at the beginning.
        text = raw.decode("utf-8-sig", errors="replace")
        values, lines, problems = _parse_line_by_line(text, columns)
        wrong = _wrong_rows(values, length, kind)
        problems |= {lines[row]: reason for row, reason in wrong.items()}
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


def first_few(texts: Sequence[str], most: int = _SHOWN_NAMES, separator: str = ", ") -> str:
    """The first texts in one line, and how many more there are."""
    more = len(texts) - most
    ending = f"{separator if separator != ', ' else ' '}and {more} more" if more > 0 else ""
    return separator.join(texts[:most]) + ending


def write_results(path: Path | str, table: BoxTable) -> None:
    """Write a MOTChallenge result file: ``frame,id,left,top,width,height,confidence,-1,-1,-1``.

    Rows are sorted by frame, then id. Numbers have as many digits as are needed to read back the
    very same float64. The file appears complete or not at all.

    Args:
        path: text file to write; its folder must exist. An existing file is replaced.
        table: boxes; class and visibility are not part of the format.

    Raises:
        FileNotFoundError: if the folder does not exist.
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
    text = "".join(
        f"{frame},{track},{left!r},{top!r},{width!r},{height!r},{confidence!r},-1,-1,-1\n"
        for frame, track, (left, top, width, height), confidence in rows
    )
    write_atomic(path, text)


def _seqinfo_section(path: Path | str) -> tuple[Path, configparser.SectionProxy]:
    file = Path(path)
    if file.is_dir():
        file = file / "seqinfo.ini"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file, expected a MOTChallenge seqinfo.ini beside img1/ and gt/"
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"))
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not a readable .ini file: {reason}") from None
    if "Sequence" not in parser:
        found = ", ".join(f"[{name}]" for name in parser.sections()) or "none"
        raise ValueError(f"{file}: expected a section [Sequence], found {found}")
    return file, parser["Sequence"]


def _positive(file: Path, section: configparser.SectionProxy, key: str) -> float:
    text = section.get(key)
    if text is None:
        raise ValueError(f"{file}: key {key} is missing from [Sequence]")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ValueError(f"{file}: {key}={text}, expected a number > 0")
    return value


def _positive_int(file: Path, section: configparser.SectionProxy, key: str) -> int:
    value = _positive(file, section, key)
    if not value.is_integer():
        raise ValueError(f"{file}: {key}={section.get(key)}, expected a whole number >= 1")
    return int(value)


def _parse_at_once(raw: bytes, columns: int) -> NDArray[np.float64] | None:
    """``[n, columns]`` of a plainly written file, None if it is written in any other way.

    Goes block by block: small arrays stay in the cache and are not given back to the operating
    system after every step, which makes it up to twice as fast as one go.
    """
    if raw and not raw.endswith(b"\n"):
        raw += b"\n"
    blocks = []
    start = 0
    while start < len(raw):
        stop = raw.rfind(b"\n", start, start + _BLOCK_BYTES) + 1 or raw.find(b"\n", start) + 1
        values = _parse_block(raw[start:stop], columns)
        # A later, longer row may state what the first rows do not: that is for the other reader.
        if values is None or (blocks and values.shape[1] != blocks[0].shape[1]):
            return None
        blocks.append(values)
        start = stop
    return _fill(np.concatenate(blocks), columns) if blocks else np.zeros((0, columns))


def _parse_block(raw: bytes, columns: int) -> NDArray[np.float64] | None:
    """``[n, at most columns]`` of whole, plainly written lines, None if they are not plain.

    Plain: decimals without exponent, commas and newlines only, no blank line, and as many columns
    in every row. A decimal of up to 15 digits is a whole number divided by a power of ten, both
    exact in float64, so that one correctly rounded division gives the very number that ``float``
    would (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    newline, is_digit = data == _NEWLINE, (data >= _ZERO) & (data <= _NINE)
    separator, dot, minus = newline | (data == _COMMA), data == _DOT, data == _MINUS
    if not (is_digit | separator | dot | minus).all():
        return None
    stops = np.flatnonzero(separator)
    rows = np.count_nonzero(newline)
    found, odd = divmod(len(stops), rows)
    if odd or found < _REQUIRED_COLUMNS or not newline[stops[found - 1 :: found]].all():
        return None
    starts = np.concatenate(([0], stops[:-1] + 1))
    negative = minus[starts]
    dots = np.flatnonzero(dot)
    dotted = np.searchsorted(stops, dots)
    if np.count_nonzero(minus) != np.count_nonzero(negative) or (np.diff(dotted) == 0).any():
        return None
    decimals = np.zeros(len(stops), dtype=np.int64)
    decimals[dotted] = stops[dotted] - dots - 1
    num_digits = stops - starts - negative
    num_digits[dotted] -= 1
    if num_digits.min() < 1:
        return None

    # Columns that are not asked for are checked above, but not turned into numbers.
    cells = np.arange(len(stops)).reshape(rows, found)[:, :columns].ravel()
    starts, stops, negative = starts[cells], stops[cells], negative[cells]
    decimals, num_digits = decimals[cells], num_digits[cells]
    digits = data[is_digit] - np.uint8(_ZERO)
    last = (
        np.cumsum(is_digit, dtype=np.int32)[stops] - 1
    )  # place of a cell's last digit among all digits
    whole = np.zeros(len(cells), dtype=np.int64)
    short = num_digits <= _EXACT_DIGITS
    for place in range(int(num_digits[short].max(initial=0))):
        here = np.flatnonzero(short & (num_digits > place))
        whole[here] += digits[last[here] - place] * np.int64(10**place)
    values = np.where(negative, -whole, whole) / 10.0 ** np.minimum(decimals, _EXACT_DIGITS)
    for cell in np.flatnonzero(~short).tolist():
        values[cell] = float(raw[starts[cell] : stops[cell]])
    return values.reshape(rows, -1)


def _fill(values: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """Append the default of every optional column that the rows lack."""
    rows, found = values.shape
    if found == columns:
        return values
    missing = np.broadcast_to(_DEFAULTS[found:columns], (rows, columns - found))
    return np.hstack((values, missing))


def _parse_line_by_line(
    text: str, columns: int
) -> tuple[NDArray[np.float64], list[int], dict[int, str]]:
    """The rows that parse, their line numbers, and the reason for each line that does not parse."""
    rows: list[NDArray[np.float64]] = []
    lines: list[int] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        cells = line.split(",")
        if len(cells) < _REQUIRED_COLUMNS:
            problems[number] = (
                f"has {len(cells)} comma-separated columns, expected at least "
                f"{_REQUIRED_COLUMNS} ({','.join(_COLUMNS[:_REQUIRED_COLUMNS])})"
            )
            continue
        row = _DEFAULTS[:columns].copy()
        for column, cell in enumerate(cells[:columns]):
            try:
                # float() takes 1_000 for a thousand, which no other reader of these files does.
                row[column] = float(cell if "_" not in cell else "not a number")
            except ValueError:
                problems[number] = f"{_COLUMNS[column]} is {cell.strip()!r}, expected a number"
                break
        else:
            rows.append(row)
            lines.append(number)
    values = np.array(rows, dtype=np.float64).reshape(-1, columns)
    return values, lines, problems


def _wrong_rows(values: NDArray[np.float64], length: int | None, kind: Kind) -> dict[int, str]:
    """Reason by row index for every row that parsed but cannot be meant."""
    reasons: dict[int, str] = {}

    def note(mask: NDArray[np.bool_], column: int, expected: str) -> None:
        for row in np.flatnonzero(mask).tolist():
            reasons.setdefault(row, f"{_COLUMNS[column]} is {values[row, column]:g}, {expected}")

    finite = np.isfinite(values)
    if not finite.all():
        for column in range(values.shape[1]):
            note(~finite[:, column], column, "expected a finite number")
    for column in (0, 1, 7)[: 3 if values.shape[1] > 7 else 2]:
        cells = values[:, column]
        whole = (np.rint(cells) == cells) & (np.abs(cells) < _MAX_INTEGER)
        note(~whole, column, "expected a whole number")
    for column in (4, 5):
        if kind == "ground_truth":
            note(values[:, column] <= 0, column, "expected > 0 pixels")
        else:
            note(values[:, column] < 0, column, "expected >= 0 pixels")
    last = np.inf if length is None else length
    outside = (values[:, 0] < 1) | (values[:, 0] > last)
    note(outside, 0, "expected >= 1" if length is None else f"expected 1 to {length} (seqLength)")

    # Of rows with the same frame and id the first sound one stands: wrong rows are left out here.
    sound = np.delete(np.arange(len(values)), list(reasons))
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
