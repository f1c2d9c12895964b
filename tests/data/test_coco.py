"""COCO and CrowdHuman files: what is read, and one line for everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene_track.data.coco import CocoFolder
from scene_track.data.crowdhuman import CrowdHumanFolder
from scene_track.data.video import OnError, Video
from tests.compose import arguments
from tests.data.still_folders import coco_content, draw, write_coco


def read(root: Path, on_error: OnError = "raise", **changes: Any) -> list[Video]:
    source = arguments("dataset.source", "dataset=coco", f"dataset.root={root}", **changes)
    return CocoFolder(**source).sequences("train", on_error=on_error)


def test_boxes_by_category_name_and_crowds_apart(tmp_path: Path) -> None:
    videos = read(write_coco(tmp_path))
    assert [v.name for v in videos] == ["0", "1", "2", "3"]
    assert [len(v.table) for v in videos] == [2, 2, 2, 2]
    assert videos[0].ignored is not None and videos[0].ignored.tolist() == [[0, 0, 20, 15]]
    assert videos[1].table.boxes.tolist() == [[11, 20, 14, 30], [51, 20, 14, 30]]
    both = read(tmp_path, classes=["person", "dog"])
    assert sorted(both[0].labels.tolist()) == [0, 0, 1]


def one(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the first annotation."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (one("bbox", [10, 10, -3, 4]), ValueError, "area"),
        (one("bbox", [10, 10, 0, 4]), ValueError, "area"),
        (one("bbox", [0, 0, 9600, 4]), ValueError, "huge"),
        (one("bbox", [200, 10, 4, 4]), ValueError, "outside"),
        (one("bbox", [1, 2, float("nan"), 4]), ValueError, "finite"),
        (one("bbox", [1, 2, 3]), ValueError, "width, height"),
        (one("image_id", 999), ValueError, "999"),
        (one("category_id", 12), ValueError, "12"),
        (
            lambda c: c["annotations"][0].update(bbox=None, segmentation=[[1, 2, 3, 4, 5, 6]]),
            ValueError,
            "polygons",
        ),
        (lambda c: c["images"].append(dict(c["images"][0])), ValueError, "id 3"),
        (lambda c: c["images"][0].pop("width"), ValueError, "width"),
        (lambda c: c["images"][0].update(width=1e308), ValueError, "width"),
        (lambda c: c["images"][0].update(width=95), ValueError, "95x64"),
        (lambda c: c["images"].append({**c["images"][0], "id": 99}), ValueError, "twice"),
        (one("bbox", [1, 2, True, 4]), ValueError, "finite"),
        (one("bbox", [10**400, 2, 3, 4]), ValueError, "finite"),
    ],
)
def test_faults_of_an_annotation(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], kind: type[Exception], words: str
) -> None:
    """One line, or, with on_error=skip, counted and left out."""
    write_coco(tmp_path)
    content = coco_content()
    change(content)
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(kind, match=words) as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and "on_error=skip" in str(error.value)
    assert read(tmp_path, on_error="skip")


def test_faults_of_a_file(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    file = root / "annotations" / "instances_train.json"

    def refused(kind: type[Exception], words: str, **changes: Any) -> None:
        with pytest.raises(kind, match=words) as error:
            read(root, **changes)
        assert "\n" not in str(error.value)

    refused(ValueError, "no category cat.*dog, person", classes=["cat"])
    refused(ValueError, "cup is empty", classes=["person", "cup"])
    refused(FileNotFoundError, "folder of images", images="nowhere")
    refused(FileNotFoundError, "instances_train.json", annotations="annotations/{split}.json")
    (root / "train" / "2.png").unlink()
    refused(FileNotFoundError, r"2\.png")
    assert len(read(root, on_error="skip")) == 3
    file.write_text("0 0.5 0.5 0.1 0.2\n1 0.4 0.4 0.1 0.1\n")
    refused(ValueError, "0 0.5 0.5")
    file.write_text("[1, 2]")
    refused(ValueError, "images")
    file.write_text("[" * 100_000)
    refused(ValueError, "not JSON")
    for key, row in (("annotations", "a"), ("categories", None), ("images", {"id": [3]})):
        file.write_text(json.dumps({**coco_content(), key: [row]}))
        refused(ValueError, rf"{key}\[0\]")
    file.write_text("\ufeff" + json.dumps(coco_content()), encoding="utf-8")
    assert len(read(root, on_error="skip")) == 3
    file.unlink()
    (root / "labels").mkdir()
    (root / "labels" / "0.txt").write_text("0 0.5 0.5 0.1 0.2\n")
    refused(FileNotFoundError, "YOLO")


def crowd(root: Path, lines: list[Any]) -> list[Video]:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotation_train.odgt").write_text("\n".join(text) + "\n")
    source = arguments("dataset.source", "dataset=crowdhuman", f"dataset.root={root}")
    return CrowdHumanFolder(**source).sequences("train")


def person(box: list[float], **changes: Any) -> dict[str, Any]:
    return {"tag": "person", "fbox": box, "vbox": box, "hbox": box, "extra": {}, **changes}


def test_crowdhuman(tmp_path: Path) -> None:
    draw(tmp_path / "Images" / "1,a.jpg", [[10, 20, 14, 30]])
    good = {
        "ID": "1,a",
        "gtboxes": [
            person([-5, 20, 14, 80]),
            person([50, 20, 14, 30], extra={"ignore": 1}),
            person([60, 0, 30, 20], tag="mask"),
        ],
    }
    (video,) = crowd(tmp_path, [good])
    assert video.table.boxes.tolist() == [[-5, 20, 14, 80]], "full boxes reach over the border"
    assert video.ignored is not None and len(video.ignored) == 2
    assert (video.info.height, video.info.width) == (64, 96)
    for lines, kind, words in (
        ([good, good], ValueError, "twice"),
        (["0 0.5 0.5 0.1 0.2"], ValueError, "line 1"),
        ([{**good, "ID": "2,b"}], ValueError, "2,b.jpg"),
        ([{"ID": "1,a", "gtboxes": [person([1, 1, -2, 3])]}], ValueError, "area"),
        ([{"ID": "1,a", "gtboxes": []}], ValueError, "empty"),
        ([{"ID": "1,a", "gtboxes": ["b"]}], ValueError, "tagged"),
        ([{"ID": "1,a", "gtboxes": [person([1, 1, 2, 3], extra=None)]}], ValueError, "tagged"),
        ([{"ID": "1,a", "gtboxes": [person([1, 1, 2, 3], tag="Person")]}], ValueError, "tagged"),
    ):
        with pytest.raises(kind, match=words) as error:
            crowd(tmp_path, list(lines))
        assert "\n" not in str(error.value)
    (tmp_path / "Images" / "1,a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1,a.jpg"):
        crowd(tmp_path, [good])


def test_the_order_of_an_images_boxes_does_not_matter_to_the_reader(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"].reverse()
    videos = read(write_coco(tmp_path, content))
    assert np.array_equal(videos[0].table.boxes[:, 0], [50, 10])
