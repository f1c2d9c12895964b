"""Frames of a MOTChallenge folder as a COCO dataset of still images.

    python -m scene_track.data.export_coco ROOT OUT --sequences A:1-400 B --every 20
    python -m scene_track.train dataset=coco dataset.root=OUT dataset.train=train dataset.val=train

Writes ``OUT/annotations/instances_<split>.json`` and copies the images to ``OUT/<split>/``. Every
annotation has the ``track_id`` of its object besides what COCO defines. Other tools read it too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scene_track.data.video import MotFolder, Video
from scene_track.io.atomic import write_atomic


def coco_content(videos: Sequence[Video], classes: Sequence[str], every: int) -> dict[str, Any]:
    """The JSON of every n-th frame.

    Args:
        videos: labelled sequences.
        classes: class names by label index; category ids count from 1.
        every: n, >= 1.

    Returns:
        ``images`` (each with ``source``, the path of the file), ``annotations``, ``categories``.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video in videos:
        for position in range(0, len(video), every):
            number, file = int(video.frames[position]), video.files[position]
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": f"{video.folder.name}_{number:06d}{file.suffix}",
                    "width": video.info.width,
                    "height": video.info.height,
                    "source": str(file),
                }
            )
            rows = video.rows(position)
            for box, label, track in zip(
                video.table.boxes[rows].tolist(),
                video.labels[rows].tolist(),
                video.table.ids[rows].tolist(),
                strict=True,
            ):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": label + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                        "track_id": track,
                    }
                )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def export(
    root: Path,
    out: Path,
    *,
    sequences: str | Sequence[str],
    classes: dict[int, str],
    every: int,
    split: str,
) -> dict[str, int]:
    """Write the dataset; the JSON comes last, so that a broken export is no dataset.

    Args:
        root: MOTChallenge folder.
        out: folder to write.
        sequences: split folder, or sequences with optional frame ranges.
        classes: class number in ``gt.txt`` to category name.
        every: every n-th frame, >= 1.
        split: name of the split.

    Returns:
        Numbers of ``images``, ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError, ValueError: as of reading the folder.
        ValueError: ``every`` is below 1, or a sequence has no ground truth.
    """
    if every < 1:
        raise ValueError(f"--every {every}: expected a number >= 1")
    source = MotFolder(root=root, classes=classes)
    videos = source.sequences(sequences)
    if bare := [video.name for video in videos if not video.labelled]:
        raise ValueError(f"{root}: {bare[0]} has no {videos[0].label_file}")
    content = coco_content(videos, source.class_names, every)
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        shutil.copyfile(image.pop("source"), folder / image["file_name"])
    file = out / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(content))
    return {name: len(rows) for name, rows in content.items()}


def main(arguments: list[str] | None = None) -> int:
    """Export; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scene_track.data.export_coco",
        description="Frames of a MOTChallenge folder as a COCO dataset.",
    )
    parser.add_argument("root", type=Path, help="folder that holds the sequences")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--sequences", nargs="+", help="such as ADL-Rundle-6:1-400")
    parser.add_argument("--folder", help="split folder under root, instead of --sequences")
    parser.add_argument("--classes", nargs="+", default=["1:person"], help="NUMBER:NAME")
    parser.add_argument("--every", type=int, default=1, help="every n-th frame")
    parser.add_argument("--split", default="train", help="name of the split")
    options = parser.parse_args(arguments)
    try:
        if bool(options.sequences) == bool(options.folder):
            raise ValueError("say which frames: --sequences NAME ... or --folder NAME")
        classes = {int(n): name for n, _, name in (c.partition(":") for c in options.classes)}
        counts = export(
            options.root,
            options.out,
            sequences=options.folder or options.sequences,
            classes=classes,
            every=options.every,
            split=options.split,
        )
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{options.out}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
