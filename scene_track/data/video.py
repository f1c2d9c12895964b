"""Reads folders of videos in the DanceTrack / MOTChallenge layout.

Every fault (a frame number without a file, a row that does not parse, no row of the stated classes)
raises an error in one line or, with ``on_error="skip"``, is counted and logged. Parsed videos are
cached as JSON, keyed by the size and time of every file they were made from. No torch in here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from scene_track.data.mot_files import BoxTable, read_boxes
from scene_track.data.seqinfo import SequenceInfo, read_seqinfo
from scene_track.io.atomic import write_atomic

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]

IMAGES = (".jpg", ".jpeg", ".png")
_CACHE_FORMAT = 1
_SHOWN = 3
SPEC = re.compile(r"^(?P<name>[^:]+?)(?::(?P<first>\d+)-(?P<last>\d+))?$")


@dataclass(frozen=True, eq=False)
class Video:
    """One video with its ground truth.

    Attributes:
        name: unique within its split; ``ADL-Rundle-6_1-400`` for frames 1-400 of a longer sequence.
        folder: where ``seqinfo.ini`` lies.
        info: what ``seqinfo.ini`` says of the whole sequence.
        frames: ``[F]`` int64 frame numbers, as in the files, ascending; gaps only with
            ``on_error="skip"``.
        files: F image files.
        table: ground truth rows of these frames, flag 0 and other classes dropped, sorted by frame;
            boxes as in the file: float64 pixels, not clipped.
        labels: ``[rows]`` int64 class indices from 0.
        xyz: ``[rows, 3]`` metres in the camera frame, NaN where unknown; None without
            ``gt/xyz.txt``.
        labelled: False when there is no file ``label_file``.
        points: ``[F, 3]`` (x, y, visibility) of the one ball in each of these frames: pixels, an
            integer is the centre of a pixel, NaN where it is not to be seen; visibility as
            :class:`scene_track.data.visibility.Visibility`. None for a video of boxes.
        ignored: ``[K, 4]`` left, top, width, height in pixels of regions of a still image in which
            nobody is labelled one by one, so that what is found there is neither right nor wrong;
            a video of one image with it is a still, of which training clips are camera paths
            (:mod:`scene_track.data.stills`). None for a video.
        origin: which source of a mixed dataset it is from.
        label_file: where the ground truth lies, or should, relative to ``folder``.
    """

    name: str
    folder: Path
    info: SequenceInfo
    frames: NDArray[np.int64]
    files: tuple[Path, ...]
    table: BoxTable
    labels: NDArray[np.int64]
    xyz: NDArray[np.float64] | None
    labelled: bool
    points: NDArray[np.float64] | None = None
    ignored: NDArray[np.float64] | None = None
    origin: str = ""
    label_file: str = "gt/gt.txt"

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, position: int) -> slice:
        """Rows of ``table``, ``labels`` and ``xyz`` that belong to ``frames[position]``."""
        frame = self.frames[position]
        start, stop = np.searchsorted(self.table.frames, (frame, frame + 1))
        return slice(int(start), int(stop))

    def between(self, first: int, last: int) -> Video:
        """Frames ``first`` to ``last`` (both included, numbered as in the files).

        Raises:
            ValueError: if the range reaches outside the sequence.
        """
        if not self.info.first_frame <= first <= last <= self.info.last_frame:
            raise ValueError(
                f"{self.name}:{first}-{last}: frames are "
                f"{self.info.first_frame}-{self.info.last_frame} in {self.folder}"
            )
        keep = (self.frames >= first) & (self.frames <= last)
        start, stop = np.searchsorted(self.table.frames, (first, last + 1))
        return replace(
            self,
            name=f"{self.name}_{first}-{last}",
            frames=self.frames[keep],
            files=tuple(f for f, k in zip(self.files, keep, strict=True) if k),
            table=self.table.between(first, last),
            labels=self.labels[start:stop],
            xyz=None if self.xyz is None else self.xyz[start:stop],
            points=None if self.points is None else self.points[keep],
        )


class Source(Protocol):
    """What a dataset must offer to :class:`scene_track.data.module.TrackingDataModule`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Class names by label index."""
        ...

    def prepare(self) -> Path:
        """Makes the files exist (once, on one process per machine); returns their root."""
        ...

    def sequences(
        self, split: str | Sequence[str], *, on_error: OnError, cache_dir: Path | None
    ) -> list[Video]:
        """The sequences of a split."""
        ...


class MotFolder:
    """Sequences in the DanceTrack / MOTChallenge layout under one root."""

    def __init__(
        self,
        *,
        root: DirectoryPath,
        classes: dict[Annotated[int, Field(ge=0)], str],
    ) -> None:
        """Describes the folder; nothing is read yet.

        Args:
            root: folder that holds sequence folders, or split folders of sequence folders.
            classes: MOTChallenge class number to name; the order gives label indices from 0. Rows
                of other classes are dropped.

        Raises:
            ValueError: if ``classes`` is empty or names a class twice.
        """
        self.root = Path(root)
        self.classes = {int(k): str(v) for k, v in classes.items()}
        if not classes:
            raise ValueError("dataset.source.classes is empty: name one class, such as {1: person}")
        if len(set(self.classes.values())) < len(self.classes):
            raise ValueError(f"dataset.source.classes names a class twice: {self.classes}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label index."""
        return tuple(self.classes.values())

    def prepare(self) -> Path:
        """The root.

        Raises:
            FileNotFoundError: if it is not there.
        """
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"{self.root}: no such folder; looked for DanceTrack or MOTChallenge sequences. "
                "Type dataset.root=FOLDER"
            )
        return self.root

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
    ) -> list[Video]:
        """Reads a split.

        Args:
            split: a folder under the root that holds sequence folders (``train``), or a list of
                sequence folders with optional frame ranges (``ADL-Rundle-6:1-400``).
            on_error: ``raise``, or ``skip`` what is wrong, counted and logged.
            cache_dir: where parsed sequences are kept as JSON; None = not kept.

        Raises:
            FileNotFoundError: if root, split or a sequence is missing or holds no sequence.
            ValueError: for wrong content, and for a list that names frames twice.
        """
        root = self.prepare()
        if isinstance(split, str):
            parent = root / split
            if not parent.is_dir():
                folders = sorted(p.name for p in root.iterdir() if p.is_dir())
                found = ", ".join(n for n in folders if not n.startswith(".")) or "no folder"
                raise FileNotFoundError(
                    f"{parent}: no such split folder; {root} holds {found}. "
                    "Type dataset.root=FOLDER, or name another folder or a list of sequences"
                )
            specs = sorted(p.name for p in parent.iterdir() if (p / "seqinfo.ini").is_file())
            if not specs:
                raise FileNotFoundError(
                    f"{parent}: no sequence in it; looked for */seqinfo.ini beside */img1. "
                    "Type dataset.root=FOLDER"
                )
        else:
            parent, specs = root, list(split)
            if not specs:
                raise ValueError(
                    "a split is an empty list: name its sequences, such as [ADL-Rundle-6:1-400]"
                )

        used: dict[str, set[int]] = {}
        sequences = []
        for spec in specs:
            match = SPEC.match(spec)
            if match is None:
                raise ValueError(f"{spec!r}: expected NAME or NAME:FIRST-LAST")
            folder = parent / match["name"]
            if not (folder / "seqinfo.ini").is_file():
                found = sorted(p.name for p in parent.iterdir() if (p / "seqinfo.ini").is_file())
                raise FileNotFoundError(
                    f"{folder / 'seqinfo.ini'}: no such file; {parent} holds "
                    f"{len(found)} sequences{': ' if found else ''}{', '.join(found[:8])}. "
                    "Type dataset.root=FOLDER, or name other sequences"
                )
            sequence = read_sequence(
                folder, classes=self.classes, on_error=on_error, cache_dir=cache_dir
            )
            if match["first"] is not None:
                sequence = sequence.between(int(match["first"]), int(match["last"]))
            seen = used.setdefault(match["name"], set())
            overlap = seen & set(sequence.frames.tolist())
            if overlap:
                raise ValueError(
                    f"{spec}: frame {min(overlap)} is already in this split through another entry"
                )
            seen |= set(sequence.frames.tolist())
            sequences.append(sequence)
        return sequences


def read_sequence(
    folder: Path,
    *,
    classes: dict[int, str],
    on_error: OnError = "raise",
    cache_dir: Path | None = None,
) -> Video:
    """Reads one sequence folder.

    Args:
        folder: holds ``seqinfo.ini``, the image folder, and ``gt/gt.txt`` where labelled.
        classes: class number to name; see :class:`MotFolder`.
        on_error: ``raise``, or ``skip`` what is wrong, counted and logged.
        cache_dir: where the parsed content is kept as JSON; None = not kept.

    Raises:
        FileNotFoundError: for a missing file, image folder or frame.
        ValueError: for wrong content.
    """
    folder = folder.absolute()
    fingerprint = _fingerprint(folder)
    cache = None
    if cache_dir is not None:
        key = hashlib.sha256(f"{folder}|{sorted(classes)}".encode()).hexdigest()[:10]
        cache = cache_dir / f"{folder.name}-{key}.json"
        content = _load(cache, fingerprint)
        if content is not None:
            return _from_json(folder, content, list(classes))

    content, problems = _parse(folder, classes, on_error)
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        log.warning("%s: skipped %d faults: %s", folder, len(problems), shown)
    elif cache is not None:  # not cached with faults: they are logged on every start
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps({"fingerprint": fingerprint} | content))
    return _from_json(folder, content, list(classes))


def _fingerprint(folder: Path) -> str:
    """Changes whenever a file that a parsed sequence depends on does."""
    parts: list[str] = [f"format {_CACHE_FORMAT}"]
    for name in ("seqinfo.ini", "gt/gt.txt", "gt/xyz.txt"):
        file = folder / name
        if file.is_file():
            stat = file.stat()
            parts.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():  # a folder's time changes with its list of files
            parts.append(f"{entry.name} {entry.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _load(cache: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: unreadable (%s), parsed anew", cache, error)
        return None
    if not isinstance(content, dict) or content.get("fingerprint") != fingerprint:
        return None
    return content


def _parse(
    folder: Path, classes: dict[int, str], on_error: OnError
) -> tuple[dict[str, Any], list[str]]:
    """The JSON content of a sequence, and the faults that were skipped."""
    info = read_seqinfo(folder)
    problems: list[str] = []
    files = list_images(folder / info.image_dir)
    missing = [n for n in range(1, info.length + 1) if n not in files]
    if missing:
        what = (
            f"{folder / info.image_dir}: {len(missing)} of {info.length} frames have no image "
            f"file, the first: frame {missing[0]} (seqinfo.ini says seqLength={info.length})"
        )
        if on_error == "raise" or len(missing) == info.length:
            raise FileNotFoundError(
                f"{what}; restore them, or type dataset.on_error=skip to go on without"
            )
        problems += [f"frame {n}: no image file" for n in missing]

    labelled = (folder / "gt" / "gt.txt").is_file()
    table, xyz = BoxTable.empty(), None
    if labelled:
        try:
            table, report = read_boxes(
                folder / "gt" / "gt.txt", kind="ground_truth", length=info.length, on_error=on_error
            )
        except ValueError as error:
            raise ValueError(f"{error}; or type dataset.on_error=skip to go on without") from None
        problems += report
        marked = table.select(table.confidence != 0)
        table = marked.select(np.isin(marked.classes, list(classes)))
        if len(marked) and not len(table):
            found = ", ".join(str(c) for c in np.unique(marked.classes))
            raise ValueError(
                f"{folder / 'gt' / 'gt.txt'}: no row has a class of {sorted(classes)}, found "
                f"{found}; "
                "type dataset.source.classes={NUMBER: NAME}"
            )
        if missing:
            table = table.select(~np.isin(table.frames, missing))
        if (folder / "gt" / "xyz.txt").is_file():
            xyz = _read_xyz(folder / "gt" / "xyz.txt", table)
    content = {
        "info": asdict(info),
        "frames": [n for n in range(1, info.length + 1) if n in files],
        "files": [files[n] for n in range(1, info.length + 1) if n in files],
        "labelled": labelled,
        "rows": {
            "frames": table.frames.tolist(),
            "ids": table.ids.tolist(),
            "boxes": table.boxes.tolist(),
            "classes": table.classes.tolist(),
            "visibility": table.visibility.tolist(),
        },
        "xyz": None if xyz is None else [None if np.isnan(r).any() else r.tolist() for r in xyz],
    }
    return content, problems


def list_images(folder: Path) -> dict[int, str]:
    """Frame number to file name; names may have any number of digits, and be jpg or png.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: two files are of one frame.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the frames of the sequence")
    files: dict[int, str] = {}
    for entry in os.scandir(folder):
        stem, extension = os.path.splitext(entry.name)
        if extension.lower() not in IMAGES or not stem.isdecimal():
            continue
        other = files.setdefault(int(stem), entry.name)
        if other != entry.name:
            raise ValueError(f"{folder}: frame {int(stem)} is there twice: {other}, {entry.name}")
    return files


def _read_xyz(file: Path, table: BoxTable) -> NDArray[np.float64]:
    """``[rows, 3]`` positions of the table's rows; NaN where the file has none."""
    try:
        values = np.loadtxt(file, delimiter=",", ndmin=2, dtype=np.float64)
        if values.size and values.shape[1] != 5:
            raise ValueError(f"{values.shape[1]} columns")
    except ValueError as error:
        raise ValueError(f"{file}: expected rows frame,id,x,y,z: {error}") from None
    where = {(int(r[0]), int(r[1])): r[2:] for r in values.reshape(-1, 5)}
    unknown = np.full(3, np.nan)
    rows = [
        where.get(k, unknown) for k in zip(table.frames.tolist(), table.ids.tolist(), strict=True)
    ]
    return np.array(rows).reshape(-1, 3)


def _from_json(folder: Path, content: dict[str, Any], classes: list[int]) -> Video:
    info = SequenceInfo(**content["info"])
    rows = content["rows"]
    table = BoxTable.from_arrays(
        np.array(rows["frames"], dtype=np.int64),
        np.array(rows["ids"], dtype=np.int64),
        np.array(rows["boxes"], dtype=np.float64).reshape(-1, 4),
        classes=np.array(rows["classes"], dtype=np.int64),
        visibility=np.array(rows["visibility"], dtype=np.float64),
    )
    index = {number: label for label, number in enumerate(classes)}
    xyz = content["xyz"]
    if xyz is not None:
        nothing = [float("nan")] * 3
        xyz = np.array([r or nothing for r in xyz], dtype=np.float64).reshape(-1, 3)
    images = folder / info.image_dir
    return Video(
        name=folder.name,
        folder=folder,
        info=info,
        frames=np.array(content["frames"], dtype=np.int64),
        files=tuple(images / name for name in content["files"]),
        table=table,
        labels=np.array([index[c] for c in rows["classes"]], dtype=np.int64),
        xyz=xyz,
        labelled=content["labelled"],
    )
