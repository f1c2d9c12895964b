"""Reads COCO JSON: images with boxes, categories by their name.

``iscrowd`` annotations are regions in which nobody is labelled one by one: they are no objects, and
what is found in them is neither right nor wrong (see ``Video.ignored``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from scene_track.data.images import FrameError, image_size
from scene_track.data.still_folder import Faults, StillBoxes, StillFolder, box_fault
from scene_track.data.video import Video

_NAMES = ("id", "image_id", "category_id", "name", "file_name")  # keys whose values name something
_LARGEST = 1_000_000  # pixels of a side


class CocoFolder(StillFolder):
    """Images with COCO annotations under one root."""

    def __init__(
        self,
        *,
        classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)],
        **folder: Any,
    ) -> None:
        """Describes the folder; nothing is read yet. Options: see ``conf/dataset/coco.yaml``.

        Raises:
            ValueError: if ``classes`` names a category twice.
        """
        super().__init__(**folder)
        self.classes = [str(name) for name in classes]
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"dataset.source.classes names a category twice: {self.classes}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label index."""
        return tuple(self.classes)

    def read(self, file: Path, folder: Path, faults: Faults) -> list[Video]:
        """See ``StillFolder.read``."""
        content = read_json(file)
        labels = self._labels(file, content["categories"])
        sizes = _image_sizes(faults, content["images"])
        stills: defaultdict[Any, StillBoxes] = defaultdict(StillBoxes)
        for annotation in content["annotations"]:
            _place(annotation, sizes, labels, stills, faults)
        counts = [0] * len(self.classes)
        for still in stills.values():
            for label in still.labels:
                counts[label] += 1
        if empty := [n for n, count in zip(self.classes, counts, strict=True) if not count]:
            raise ValueError(
                f"{file}: category {empty[0]} is empty, no box of it is in the file; type"
                " dataset.source.classes=[NAME] with others"
            )
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder of images; type dataset.source.images=FOLDER"
            )
        videos: list[Video] = []
        for number, image in sizes.items():
            path = folder / image.file
            if not path.is_file():
                faults.add(f"{path}: the image file is missing", FileNotFoundError)
                continue
            name = Path(image.file).with_suffix("").as_posix().replace("/", "_")
            videos.append(stills[number].video(path, name, image.size))
        while videos and not _check_size(videos[0], faults):
            videos.pop(0)
        return videos

    def _labels(self, file: Path, categories: list[dict[str, Any]]) -> dict[Any, int | None]:
        """Label index of each category id; None = not wanted."""
        found = {c.get("name"): c.get("id") for c in categories}
        if absent := [name for name in self.classes if name not in found]:
            listed = ", ".join(str(name) for name in list(found)[:8]) or "none"
            raise ValueError(
                f"{file}: no category {absent[0]}, the file has {listed}"
                f"{', ...' if len(found) > 8 else ''}; type dataset.source.classes=[NAME]"
            )
        wanted = {found[name]: label for label, name in enumerate(self.classes)}
        return {c.get("id"): wanted.get(c.get("id")) for c in categories}


@dataclass(frozen=True)
class _Image:
    """A row of ``images``: its file name and (height, width)."""

    file: str
    size: tuple[int, int]


def read_json(file: Path) -> dict[str, list[Any]]:
    """The content of a COCO file with its three lists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO JSON.
    """
    if not file.is_file():
        folder = file.parent
        found = sorted(p.name for p in folder.glob("*.json")) if folder.is_dir() else []
        texts = any(folder.parent.glob("labels/**/*.txt")) if folder.parent.is_dir() else False
        yolo = "; labels/ holds text files, as of YOLO: convert them to COCO JSON" if texts else ""
        raise FileNotFoundError(
            f"{file}: no such file; {folder} holds {', '.join(found[:4]) or 'no .json'}{yolo}. Type"
            " dataset.source.annotations=FILE, or dataset.train=NAME dataset.val=NAME"
        )
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        first = text.lstrip()[:40].splitlines()
        raise ValueError(
            f"{file}: not JSON ({error}); it begins with {first[0] if first else 'nothing'!r}."
            " Expected a COCO file with images, annotations and categories"
        ) from None
    lacking = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if lacking:
        raise ValueError(f"{file}: no list {lacking[0]!r}; expected a COCO instances file")
    if not content["images"]:
        raise ValueError(f"{file}: the list 'images' is empty")
    for key in ("images", "annotations", "categories"):
        for place, row in enumerate(content[key]):
            if not isinstance(row, dict) or any(
                isinstance(row.get(k), dict | list) for k in _NAMES
            ):
                shown = " ".join(str(row)[:80].split())
                raise ValueError(
                    f"{file}: {key}[{place}] is {shown}, expected an object with numbers for"
                    f" {', '.join(_NAMES[:3])}"
                )
    return content


def _check_size(video: Video, faults: Faults) -> bool:
    """Whether the first image has the size that the file states; the others are compared later."""
    stated = (video.info.height, video.info.width)
    try:
        found = image_size(video.files[0])
    except FrameError as error:
        faults.add(str(error))
        return False
    if found != stated:
        faults.add(
            f"{video.files[0]} is {found[1]}x{found[0]} pixels, but the file says"
            f" {stated[1]}x{stated[0]}: boxes would be of another size"
        )
    return found == stated


def _image_sizes(faults: Faults, images: list[dict[str, Any]]) -> dict[Any, _Image]:
    """The images by their id."""
    sizes: dict[Any, _Image] = {}
    for row in images:
        number, name = row.get("id"), row.get("file_name")
        size: tuple[Any, Any] = (row.get("height"), row.get("width"))
        if number is None or not name or not isinstance(name, str):
            faults.add(f"image {row} lacks id or file_name")
        elif not all(type(x) is int and 0 < x < _LARGEST for x in size):
            faults.add(
                f"image {number} has the width {size[1]} and height {size[0]}, expected pixels"
            )
        elif number in sizes:
            faults.add(f"two images have the id {number}: {sizes[number].file}, {name}")
        else:
            sizes[number] = _Image(name, size)
    return sizes


def _place(
    annotation: dict[str, Any],
    sizes: dict[Any, _Image],
    labels: dict[Any, int | None],
    stills: defaultdict[Any, StillBoxes],
    faults: Faults,
) -> None:
    """Add an annotation to its image."""
    name = f"annotation {annotation.get('id')}"
    category, number = annotation.get("category_id"), annotation.get("image_id")
    if category not in labels:
        faults.add(f"{name}: category_id {category} is not in the file's categories")
        return
    label = labels[category]
    if label is None:
        return
    if number not in sizes:
        faults.add(f"{name}: image_id {number} is not in the file's images")
        return
    if annotation.get("bbox") is None:
        what = "polygons and no bbox" if annotation.get("segmentation") else "no bbox"
        faults.add(f"{name} has {what}; boxes are needed")
        return
    fault = box_fault(annotation["bbox"], sizes[number].size)
    if fault is not None:
        faults.add(f"{name}: {fault}")
    elif annotation.get("iscrowd") or annotation.get("ignore"):
        stills[number].ignored.append(annotation["bbox"])
    else:
        stills[number].boxes.append(annotation["bbox"])
        stills[number].labels.append(label)
