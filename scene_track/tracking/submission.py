"""The zip that the DanceTrack server scores: written, and read back before it gets its name.

The server (CodaBench 14885) wants ``tracker/<sequence>.txt`` with rows
``frame,id,left,top,width,height,confidence,-1,-1,-1``, frames and identities from 1. A zip with a
hole costs one of the few submissions that are allowed, so nothing is called a submission before
every file in it has been read back. The same tracks give the same bytes, whenever they are packed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene_track.data.mot_files import BoxTable, parse_boxes
from scene_track.io.atomic import atomic_path
from scene_track.io.tables import first_few

FOLDER = "tracker"
"""Folder in the zip."""

_COLUMNS = 10
_SHOWN = 5
# A ten-thousandth of a pixel moves the IoU of a box of 10 pixels by less than 1e-4; full float64
# would double the size. Confidence plays no part in HOTA, CLEAR and Identity.
_PIXELS, _CONFIDENCE = ".4f", ".6f"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold


@dataclass(frozen=True)
class Submission:
    """What a sound zip holds.

    Attributes:
        num_sequences: files in it.
        num_frames: frames of all sequences.
        num_boxes: rows of all files.
        empty: sequences in which nothing was found; legal, seldom meant.
    """

    num_sequences: int
    num_frames: int
    num_boxes: int
    empty: tuple[str, ...]


def write_submission(
    path: Path, tracks: Mapping[str, BoxTable], frames: Mapping[str, range]
) -> Submission:
    """Write the zip, read it back, and give it its name if it is sound.

    Args:
        path: zip to write; an existing one is replaced, by a sound one only.
        tracks: tracks by sequence, boxes in pixels of the footage.
        frames: frame numbers of every sequence of the split.

    Returns:
        What the zip holds.

    Raises:
        FileNotFoundError: there is no such folder to write to.
        ValueError: the zip would not be sound, with the first problems; nothing is written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no such folder, create it, or type output=FILE.zip"
        )
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(tracks):
                entry = zipfile.ZipInfo(f"{FOLDER}/{name}.txt", _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                archive.writestr(entry, _text(tracks[name]))
        return examine(temporary, frames, f"{path} is not written")


def _text(table: BoxTable) -> str:
    """The rows of one file, by frame, then identity; fixed point, never an exponent."""
    order = np.lexsort((table.ids, table.frames))
    boxes = np.round(table.boxes[order], 4) + 0.0  # a zero without a minus
    columns = zip(
        table.frames[order].tolist(),
        table.ids[order].tolist(),
        boxes.tolist(),
        table.confidence[order].tolist(),
        strict=True,
    )
    return "".join(
        f"{frame},{track},{','.join(format(value, _PIXELS) for value in box)},"
        f"{confidence:{_CONFIDENCE}},-1,-1,-1\n"
        for frame, track, box, confidence in columns
    )


def examine(path: Path, frames: Mapping[str, range], otherwise: str) -> Submission:
    """Read a zip as the server would, and say what it holds.

    Every sequence must be there and nothing else; every frame must be one of the sequence, no
    identity may appear twice in a frame, identities count from 1, boxes are finite and larger than
    nothing. A file without rows is legal.

    Args:
        path: the zip.
        frames: frame numbers of every sequence of the split, such as ``range(1, 1201)``.
        otherwise: how the error begins.

    Raises:
        ValueError: the zip is not sound, with the number of problems and the first of them.
    """
    problems: list[str] = []
    num_boxes, empty = 0, []
    expected = {f"{FOLDER}/{name}.txt": name for name in frames}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.namelist() if entry != f"{FOLDER}/"]
            missing = sorted(expected.keys() - set(entries))
            if missing:
                problems.append(
                    f"{len(missing)} of {len(frames)} sequences are missing: {first_few(missing)}"
                )
            extra = sorted(set(entries) - expected.keys())
            if extra:
                problems.append(f"files of no sequence: {first_few(extra)}")
            twice = sorted({entry for entry in entries if entries.count(entry) > 1})
            if twice:
                problems.append(f"files that are there twice: {first_few(twice)}")
            for entry in sorted(expected.keys() & set(entries)):
                name = expected[entry]
                raw = archive.read(entry)
                rows, faults = _examine_rows(raw, frames[name])
                problems += [f"{entry}: {fault}" for fault in faults]
                num_boxes += rows
                if not raw.strip():
                    empty.append(name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        problems.append(f"it is not a whole zip file ({error})")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ValueError(f"{otherwise}: {count}: {first_few(problems, _SHOWN, '; ')}")
    num_frames = sum(map(len, frames.values()))
    return Submission(len(expected), num_frames, num_boxes, tuple(empty))


def _examine_rows(raw: bytes, frames: range) -> tuple[int, list[str]]:
    """Number of sound rows of a file, and what is wrong with the others."""
    table, faults = parse_boxes(raw, kind="result")
    for number, line in enumerate(raw.splitlines(), start=1):
        columns = line.count(b",") + 1
        if line.strip() and columns != _COLUMNS:
            faults.append(f"line {number}: has {columns} columns, expected {_COLUMNS}")
            break  # a file is written by one program: the others are the same
    wrong = (
        (~np.isin(table.frames, np.array(frames)), f"expected frames {frames[0]} to {frames[-1]}"),
        (table.ids < 1, "expected identities from 1"),
        ((table.boxes[:, 2:] <= 0).any(axis=1), "expected a width and height above 0"),
    )
    for mask, expected in wrong:
        for row in np.flatnonzero(mask).tolist():
            size = "x".join(f"{value:g}" for value in table.boxes[row, 2:])
            faults.append(
                f"frame {table.frames[row]}, id {table.ids[row]}, size {size}: {expected}"
            )
    return len(table), faults
