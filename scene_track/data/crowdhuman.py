"""Reads CrowdHuman (Shao et al., arXiv 1805.00123): one JSON object per line of an ``.odgt`` file.

The full box of a person is taken (``fbox``, also of what is hidden, and beyond the border of the
image), as MOTChallenge labels people. Boxes with ``extra.ignore`` and those tagged ``mask`` are
regions in which nobody is labelled one by one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scene_track.data.images import FrameError, image_size
from scene_track.data.still_folder import Faults, StillBoxes, StillFolder, box_fault
from scene_track.data.video import Video

PERSON = "person"
_MASK = "mask"


class CrowdHumanFolder(StillFolder):
    """Images with CrowdHuman annotations under one root."""

    class_names = (PERSON,)

    def read(self, file: Path, folder: Path, faults: Faults) -> list[Video]:
        """See ``StillFolder.read``."""
        if not file.is_file():
            found = ", ".join(sorted(p.name for p in file.parent.glob("*.odgt"))) or "no .odgt"
            raise FileNotFoundError(
                f"{file}: no such file; {file.parent} holds {found}. Type"
                " dataset.source.annotations=FILE, or dataset.train=NAME dataset.val=NAME"
            )
        videos: dict[str, Video] = {}
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, people = str(row["ID"]), list(row["gtboxes"])
            except (ValueError, KeyError, TypeError, RecursionError):
                faults.add(
                    f"line {number}: expected a JSON object with ID and gtboxes, found"
                    f" {line[:40]!r}"
                )
                continue
            path = folder / f"{name}.jpg"
            size = _image_size(path, faults)
            if name in videos:
                faults.add(f"line {number}: image {name} is there twice")
            elif size is not None:
                still = _boxes(people, size, f"line {number}", faults)
                videos[name] = still.video(path, name, size)
        if not videos:
            raise ValueError(f"{file}: no image with annotations in it")
        if not any(len(video.labels) for video in videos.values()):
            raise ValueError(f"{file}: category {PERSON} is empty, no box of it is in the file")
        return list(videos.values())


def _image_size(path: Path, faults: Faults) -> tuple[int, int] | None:
    """(height, width): the annotations do not state them, and only the file's head is read."""
    try:
        return image_size(path)
    except FrameError as error:
        faults.add(str(error))
        return None


def _boxes(people: list[Any], size: tuple[int, int], where: str, faults: Faults) -> StillBoxes:
    """The objects and ignored regions of an image."""
    still = StillBoxes()
    for person in people:
        extra = person.get("extra", {}) if isinstance(person, dict) else None
        if not isinstance(extra, dict) or person.get("tag") not in (PERSON, _MASK):
            faults.add(f"{where}: {str(person)[:80]}, expected a box tagged {PERSON} or {_MASK}")
            continue
        box: Any = person.get("fbox")
        if fault := box_fault(box, size):
            faults.add(f"{where}: {fault}")
        elif person["tag"] == _MASK or extra.get("ignore"):
            still.ignored.append(box)
        else:
            still.boxes.append(box)
            still.labels.append(0)
    return still
