"""What readers of annotated still images share: the folder, its faults, the boxes of one image."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import DirectoryPath

from scene_track.data.stills import still_video
from scene_track.data.video import OnError, SourceFolder, Video

log = logging.getLogger(__name__)

_SHOWN = 3
_HUGE = 4.0
"""A box may reach past the image (people cut by the border), but not by this many images."""
_FAR = 1e9  # pixels; whole numbers of JSON have no end


@dataclass
class Faults:
    """What is wrong with a file of annotations: an error at once, or counted and logged.

    Attributes:
        file: that is read.
        on_error: ``raise`` or ``skip``.
        found: the faults so far.
    """

    file: Path
    on_error: OnError
    found: list[str] = field(default_factory=list)

    def add(self, fault: str, kind: type[Exception] = ValueError) -> None:
        """Record a fault.

        Raises:
            ValueError, FileNotFoundError: with ``on_error="raise"``.
        """
        fault = " ".join(fault.split())  # names in a JSON file may hold a line break
        if self.on_error == "raise":
            raise kind(f"{self.file}: {fault}; or type dataset.on_error=skip to go on without")
        self.found.append(fault)

    def report(self) -> None:
        """Log the count and the first faults."""
        if self.found:
            shown = "; ".join(self.found[:_SHOWN])
            log.warning("%s: skipped %d faults: %s", self.file, len(self.found), shown)


def box_fault(box: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with a box, or None.

    Args:
        box: left, top, width, height in pixels, as a file has it.
        size: (height, width) of the image.
    """
    if not isinstance(box, list) or len(box) != 4:
        return f"box {box}, expected [left, top, width, height]"
    if not all(type(x) in (int, float) and abs(x) < _FAR for x in box):  # also false for NaN
        return f"box {box}, expected four finite numbers"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return f"box {box} has no area"
    if width > _HUGE * size[1] or height > _HUGE * size[0]:
        return f"box {box} is huge for an image of {size[1]}x{size[0]}"
    if left >= size[1] or top >= size[0] or left + width <= 0 or top + height <= 0:
        return f"box {box} lies outside the image of {size[1]}x{size[0]}"
    return None


@dataclass
class StillBoxes:
    """The annotations of one image.

    Attributes:
        boxes: left, top, width, height of each object in pixels.
        labels: class index of each object.
        ignored: left, top, width, height of each ignored region.
    """

    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignored: list[list[float]] = field(default_factory=list)

    def video(self, file: Path, name: str, size: tuple[int, int]) -> Video:
        """The image as a video of one frame; see :func:`scene_track.data.stills.still_video`."""
        return still_video(
            file,
            name=name,
            size=size,
            boxes=np.array(self.boxes, dtype=np.float64),
            labels=self.labels,
            ignored=np.array(self.ignored, dtype=np.float64),
        )


class StillFolder(SourceFolder, ABC):
    """Images and files of annotations under one root."""

    LOOKED_FOR = "images and their annotations"

    def __init__(self, *, root: DirectoryPath, annotations: str, images: str) -> None:
        """Describes the folder; nothing is read yet.

        ``annotations`` (a file) and ``images`` (a folder) lie under the root, with ``{split}``
        where the split's name stands.
        """
        self.root = Path(root)
        self.annotations, self.images = annotations, images

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """See ``Source.sequences``: a video of one frame per image, always with it, never kept.

        A split is a name that replaces ``{split}``, or a list of such names.
        """
        self.prepare()
        videos: dict[str, Video] = {}
        for name in [split] if isinstance(split, str) else split:
            file = self.root / self.annotations.replace("{split}", name)
            folder = self.root / self.images.replace("{split}", name)
            faults = Faults(file, on_error)
            for video in self.read(file, folder, faults):
                other = videos.setdefault(video.name, video)
                if other is not video:
                    faults.add(
                        f"image {video.files[0]} is there twice, as {other.files[0]}: results are"
                        " stored by a name without folder and ending"
                    )
            faults.report()
        if not videos:
            raise ValueError(f"{self.root}: no image with annotations in the split {split}")
        return list(videos.values())

    @abstractmethod
    def read(self, file: Path, folder: Path, faults: Faults) -> list[Video]:
        """The videos of a file of annotations and its folder of images."""
