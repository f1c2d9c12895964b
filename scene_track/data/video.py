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
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from scene_track.data.images import FrameError, list_images
from scene_track.data.mot_files import BoxTable, read_boxes, read_xyz
from scene_track.data.seqinfo import (
    SequenceInfo,
    check_frames,
    check_size,
    read_seqinfo,
    sequence_folders,
)
from scene_track.io.atomic import write_atomic

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]

_CACHE_FORMAT = 2
_SHOWN = 3
_SKIP = ", or type dataset.on_error=skip to go on without"
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
        ignored: ``[K, 4]`` unlabelled regions of a still image, as boxes; None for a video.
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
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError,
        cache_dir: Path | None,
        images: bool = True,
    ) -> list[Video]:
        """The videos of a split.

        Args:
            split: a folder under the root, or a list of what the reader calls a video.
            on_error: ``raise``, or ``skip`` what is wrong, counted and logged.
            cache_dir: where parsed videos are kept as JSON, by readers that are slow; None = not
                kept.
            images: False does not look for image files.

        Raises:
            FileNotFoundError: something is missing.
            ValueError: wrong content, and a list that names frames twice.
        """
        ...


class SourceFolder:
    """Base of the readers of one folder; ``LOOKED_FOR`` says what a root holds."""

    LOOKED_FOR: ClassVar[str]
    root: Path

    def prepare(self) -> Path:
        """The root; a ``FileNotFoundError`` if it is not there."""
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"{self.root}: no such folder; looked for {self.LOOKED_FOR}. Type"
                " dataset.root=FOLDER"
            )
        return self.root


class MotFolder(SourceFolder):
    """Sequences in the DanceTrack / MOTChallenge layout under one root."""

    LOOKED_FOR = "DanceTrack or MOTChallenge sequences"

    def __init__(
        self,
        *,
        root: DirectoryPath,
        classes: dict[Annotated[int, Field(ge=0)], str],
    ) -> None:
        """Describes the folder; nothing is read yet. Options: see ``conf/dataset/mot.yaml``.

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

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """See ``Source.sequences``.

        A split is a folder under the root that holds sequence folders (``train``), or a list of
        sequence folders with optional frame ranges (``ADL-Rundle-6:1-400``). Without images, size
        and length are those of ``seqinfo.ini``.
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
            specs = [folder.name for folder in sequence_folders(parent)]
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

        sequences = []
        for spec in specs:
            match = SPEC.match(spec)
            if match is None:
                raise ValueError(f"{spec!r}: expected NAME or NAME:FIRST-LAST")
            folder = parent / match["name"]
            if not (folder / "seqinfo.ini").is_file():
                found = [f.name for f in sequence_folders(parent) if f != folder]
                raise FileNotFoundError(
                    f"{folder / 'seqinfo.ini'}: no such file; {parent} holds "
                    f"{len(found)} sequences{': ' if found else ''}{', '.join(found[:8])}. "
                    "Type dataset.root=FOLDER, or name other sequences"
                )
            sequence = read_sequence(
                folder,
                classes=self.classes,
                on_error=on_error,
                cache_dir=cache_dir,
                images=images,
            )
            if match["first"] is not None:
                sequence = sequence.between(int(match["first"]), int(match["last"]))
            sequences.append(sequence)
        return each_once(sequences, root)


def each_once(videos: list[Video], root: Path) -> list[Video]:
    """The videos of a split, if no frame is in it twice and no two are stored by one name.

    Raises:
        ValueError: otherwise.
    """
    used: dict[Path, set[int]] = {}
    for video in videos:
        numbers = set(video.frames.tolist())
        if overlap := used.setdefault(video.folder, set()) & numbers:
            raise ValueError(
                f"{video.name}: frame {min(overlap)} of {video.folder} is already in this split"
                " through another entry"
            )
        used[video.folder] |= numbers
    refuse_equal_names(videos, root)
    return videos


def refuse_equal_names(videos: Sequence[Video], root: Path) -> None:
    """A ``ValueError`` if two videos of a split have one name, by which results are stored."""
    places: dict[str, Path] = {}
    for video in videos:
        other = places.setdefault(video.name, video.folder)
        if other != video.folder:
            raise ValueError(
                f"{root}: two videos of one split are called {video.name}, {other} and"
                f" {video.folder}: results are stored by that name, so rename one of the folders"
            )


def read_sequence(
    folder: Path,
    *,
    classes: dict[int, str],
    on_error: OnError = "raise",
    cache_dir: Path | None = None,
    images: bool = True,
) -> Video:
    """Reads one sequence folder; for the arguments see ``Source.sequences`` and :class:`MotFolder`.

    Raises:
        FileNotFoundError: for a missing file, image folder or frame.
        ValueError: for wrong content.
    """
    folder = folder.absolute()
    fingerprint = _fingerprint(folder)
    cache = None
    if cache_dir is not None:
        bare = "" if images else "|no images"
        key = hashlib.sha256(f"{folder}|{sorted(classes)}{bare}".encode()).hexdigest()[:10]
        cache = cache_dir / f"{folder.name}-{key}.json"
        content = _load(cache, fingerprint)
        if content is not None:
            return _from_json(folder, content, list(classes))

    content, problems = _parse(folder, classes, on_error, images)
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        log.warning("%s: skipped %d faults: %s", folder, len(problems), shown)
    elif cache is not None:  # not cached with faults: they are logged on every start
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cache, json.dumps({"fingerprint": fingerprint} | content))
        except OSError as error:  # a full disk, another person's folder
            log.warning("%s: not kept (%s), parsed at every start", cache, error.strerror)
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


_COLUMNS = ("frames", "ids", "boxes", "classes", "visibility")


def _parse(
    folder: Path, classes: dict[int, str], on_error: OnError, images: bool
) -> tuple[dict[str, Any], list[str]]:
    """The JSON content of a sequence, and the faults that were skipped."""
    info = read_seqinfo(folder)
    problems: list[str] = []
    place = folder / info.image_dir
    files = list_images(place) if images or place.is_dir() else {}
    missing, first = 0, 0
    if images:
        missing, first = check_frames(place, info, files)
    else:
        files = {n: files.get(n, f"{n:06d}{info.extension}") for n in range(1, info.length + 1)}
    if missing:
        what = f"{missing} of {info.length} frames have no image file, the first: frame {first}"
        if on_error == "raise":
            raise FileNotFoundError(
                f"{place}: {what} (seqinfo.ini says seqLength={info.length}); restore them{_SKIP}"
            )
        problems.append(what)
    try:
        if images:
            check_size(place / next(iter(files.values())), info)
    except FrameError as error:
        if on_error == "raise":
            raise FrameError(f"{error}; restore it{_SKIP}") from None

    labelled = (folder / "gt" / "gt.txt").is_file()
    table, xyz = BoxTable.empty(), None
    if labelled:
        try:
            table, report = read_boxes(
                folder / "gt" / "gt.txt",
                length=info.length,
                classes=list(classes),
                on_error=on_error,
            )
        except ValueError as error:
            raise ValueError(f"{error}{_SKIP}") from None
        problems += report
        marked = table.select(table.confidence != 0)
        table = marked.select(np.isin(marked.classes, list(classes)))
        if len(marked) and not len(table):
            found = ", ".join(str(c) for c in np.unique(marked.classes))
            raise ValueError(
                f"{folder / 'gt' / 'gt.txt'}: no row has a class of {sorted(classes)}, found "
                f"{found}; type dataset.source.classes={{NUMBER: NAME}}"
            )
        if missing:
            table = table.select(np.isin(table.frames, list(files)))
        if (folder / "gt" / "xyz.txt").is_file():
            xyz = read_xyz(folder / "gt" / "xyz.txt", table)
    content = {
        "info": asdict(info),
        "frames": list(files),
        "files": list(files.values()),
        "labelled": labelled,
        "rows": {name: getattr(table, name).tolist() for name in _COLUMNS},
        "xyz": None if xyz is None else [None if np.isnan(r).any() else r.tolist() for r in xyz],
    }
    return content, problems


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
