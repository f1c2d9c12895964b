"""Folders of still images for tests: a bright block per annotation on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (64, 96)  # height, width


def draw(file: Path, boxes: list[list[float]], size: tuple[int, int] = SIZE) -> None:
    """A dim noise image with a white block in every box."""
    image = np.random.default_rng(len(boxes)).integers(0, 60, (*size, 3), dtype=np.uint8)
    for left, top, width, height in boxes:
        image[int(top) : int(top + height), int(left) : int(left + width)] = 255
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def coco_content() -> dict[str, Any]:
    """Four images; ids that skip numbers; a crowd region, and a category that nobody wants."""
    images = [
        {"id": 7 * i + 3, "file_name": f"{i}.png", "width": 96, "height": 64} for i in range(4)
    ]
    annotations = []
    for i, image in enumerate(images):
        for k in range(2):
            annotations.append(
                {
                    "id": 100 * i + 9 * k,
                    "image_id": image["id"],
                    "category_id": 44,
                    "bbox": [10.0 + 40 * k + i, 20.0, 14.0, 30.0],
                    "iscrowd": 0,
                }
            )
    annotations.append({**annotations[0], "id": 5, "bbox": [0, 0, 20, 15], "iscrowd": 1})
    annotations.append({**annotations[0], "id": 6, "category_id": 3})
    categories = [{"id": 3, "name": "dog"}, {"id": 44, "name": "person"}, {"id": 90, "name": "cup"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, content: dict[str, Any] | None = None, split: str = "train") -> Path:
    """The content as a folder in the layout of ``dataset=coco``; the root."""
    content = content or coco_content()
    for image in content["images"]:
        own = [
            a["bbox"]
            for a in content["annotations"]
            if a.get("image_id") == image["id"] and a.get("bbox") and a["category_id"] == 44
        ]
        draw(root / split / image["file_name"], own)
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return root
