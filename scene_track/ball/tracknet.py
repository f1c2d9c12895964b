"""Reads folders in the TrackNet layout, tennis or badminton: one ball per frame.

The two layouts differ only in the place of the labels and in column names, so one reader detects
the layout. Faults are handled as in :mod:`scene_track.data.video`. No torch in here.

* TrackNet (Huang et al., 2019): ``game1/Clip1/0000.jpg`` and ``game1/Clip1/Label.csv``.
* TrackNetV2 and V3 (badminton): ``match1/frame/1_01_00/0.png`` and ``match1/csv/1_01_00_ball.csv``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import DirectoryPath, Field

from scene_track.ball.point_files import PointRules, read_points
from scene_track.data.images import (
    EXTENSIONS,
    image_size,
    list_images,
    natural,
    refuse_bytes,
    what_is_there,
)
from scene_track.data.mot_files import BoxTable
from scene_track.data.seqinfo import SequenceInfo
from scene_track.data.video import SPEC, OnError, SourceFolder, Video, each_once
from scene_track.data.visibility import Visibility
from scene_track.io.tables import first_few

log = logging.getLogger(__name__)

_LABELS = "Label.csv"
_FRAME_FOLDER = "frame"  # of the badminton layout
_SHOWN = 3
_SKIP_HINT = "; or type dataset.on_error=skip to go on without"


class TrackNetFolder(SourceFolder):
    """Clips of one ball in the TrackNet layout under one root."""

    LOOKED_FOR = f"game*/Clip*/{_LABELS}"

    def __init__(
        self,
        *,
        root: DirectoryPath,
        class_name: str,
        frame_rate: Annotated[float, Field(gt=0, le=1000)],
    ) -> None:
        """Describes the folder; nothing is read yet.

        ``root`` holds ``game*`` or ``match*`` folders, or folders of those. The layout does not say
        the ``frame_rate``, frames per second, nor what the ball is called.
        """
        self.root = Path(root)
        self.class_names = (class_name,)
        self.frame_rate = float(frame_rate)

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """See ``Source.sequences``; nothing is kept, a label file is read in a millisecond.

        A split is a folder under the root (``train``, ``game1``), or a list of folders and clips
        with optional frame ranges (``[game1, game2/Clip3, game2/Clip4:0-29]``). A folder stands for
        all clips in it.

        Raises:
            ValueError: also without ``images``: their number is the length of a clip.
        """
        if not images:
            raise ValueError("a ball is found in images: type dataset.detections=null")
        root = self.prepare()
        entries = [split] if isinstance(split, str) else list(split)
        if not entries:
            raise ValueError("a split is an empty list: name its games or clips, such as [game1]")
        clips = [clip for entry in entries for clip in self._read_entry(root, entry, on_error)]
        return each_once(clips, root)

    def _read_entry(self, root: Path, entry: str, on_error: OnError) -> list[Video]:
        match = SPEC.match(entry)
        if match is None:
            raise ValueError(f"{entry!r}: expected FOLDER or FOLDER/CLIP:FIRST-LAST")
        folder = root / match["name"]
        clips = find_clips(folder) if folder.is_dir() else []
        if not clips:
            found = [str(clip.relative_to(root)) for clip in find_clips(root)]
            raise FileNotFoundError(
                f"{folder}: no clip there; looked for */{_LABELS} beside 0000.jpg; {root} holds "
                f"{len(found)} clips{': ' if found else ''}{first_few(found)}. "
                "Type dataset.root=FOLDER, or name other games or clips"
            )
        if match["first"] is None:
            return [self.read_clip(clip, on_error, _SKIP_HINT) for clip in clips]
        if clips != [folder]:
            raise ValueError(f"{entry}: frames can be named of a clip, not of {len(clips)} clips")
        clip = self.read_clip(folder, on_error, _SKIP_HINT)
        return [clip.between(int(match["first"]), int(match["last"]))]

    def read_clip(self, folder: Path, on_error: OnError = "raise", hint: str = "") -> Video:
        """Reads one clip.

        Args:
            folder: holds the images.
            on_error: ``raise``, or ``skip`` what is wrong, counted and logged.
            hint: ends the message about what could be skipped: how to ask for it, where one can.

        Raises:
            FileNotFoundError: if the images have gaps, or there are none.
            ValueError: for wrong content.
        """
        folder = folder.absolute()
        images = list_images(folder)
        if not images:
            raise FileNotFoundError(f"{folder}: {what_is_there(folder)}")
        frames = list(images)
        height, width = image_size(folder / images[frames[0]])
        problems: list[str] = []
        if missing := frames[-1] - frames[0] + 1 - len(frames):
            first = next(n for n in range(frames[0], frames[-1]) if n not in images)
            what = (
                f"{missing} frames between {frames[0]} and {frames[-1]} have no image file, the"
                f" first: frame {first}"
            )
            if on_error == "raise":
                raise FileNotFoundError(f"{folder}: {what}; restore them{hint}")
            problems.append(what)
        points = np.full((len(frames), 3), np.nan)
        points[:, 2] = Visibility.UNKNOWN
        label_file = find_labels(folder)
        if label_file.is_file():
            try:
                table, report = read_points(
                    label_file,
                    PointRules(frames=frames, size=(height, width)),
                    on_error=on_error,
                )
            except ValueError as error:
                raise ValueError(f"{error}{hint}") from None
            problems += report
            points[np.searchsorted(frames, table.frames)] = table.points
        if problems:
            shown = "; ".join(problems[:_SHOWN])
            log.warning("%s: skipped %d faults: %s", folder, len(problems), shown)
        return Video(
            name=clip_name(folder),
            folder=folder,
            info=SequenceInfo(
                name=clip_name(folder),
                image_dir=".",
                frame_rate=self.frame_rate,
                length=frames[-1] - frames[0] + 1,
                width=width,
                height=height,
                extension=Path(images[frames[0]]).suffix,
                first_frame=frames[0],
            ),
            frames=np.array(frames, dtype=np.int64),
            files=tuple(folder / images[n] for n in frames),
            table=BoxTable.empty(),
            labels=np.zeros(0, dtype=np.int64),
            xyz=None,
            labelled=label_file.is_file(),
            points=points,
            label_file=os.path.relpath(label_file, folder),
        )


def find_clips(folder: Path) -> list[Path]:
    """All clip folders at or below a folder, ``Clip2`` before ``Clip10``.

    A clip folder holds ``Label.csv`` or numbered images; hidden folders are passed over.
    """
    entries = list(os.scandir(folder))
    parts = (os.path.splitext(entry.name) for entry in entries)
    images = any(stem.isdecimal() and ending.lower() in EXTENSIONS for stem, ending in parts)
    if images or (folder / _LABELS).is_file():
        refuse_bytes(folder)
        return [folder]
    inner = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
    return [
        clip
        for entry in sorted(inner, key=lambda e: natural(e.name))
        for clip in find_clips(folder / entry.name)
    ]


def find_labels(clip: Path) -> Path:
    """Where the labels of a clip folder lie, or should."""
    if clip.parent.name == _FRAME_FOLDER:
        return clip.parent.parent / "csv" / f"{clip.name}_ball.csv"
    return clip / _LABELS


def clip_name(clip: Path) -> str:
    """``game1_Clip1``: a clip's name, whatever folder was given as root."""
    game = clip.parent.parent if clip.parent.name == _FRAME_FOLDER else clip.parent
    return f"{game.name}_{clip.name}"
