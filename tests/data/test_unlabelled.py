"""Images and videos without labels: which are read, their regions, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.data.regions import RegionProposals, contrast, windows
from scene_track.data.unlabelled import UnlabelledFolder
from tests.compose import arguments
from tests.data.still_folders import SIZE, draw
from tests.videos import squares, write_video

BLOCK = [30.0, 20.0, 24.0, 30.0]
DETREG = ("experiment=detreg", "dataset.root=/tmp", "model.backbone.weights=null")


class Cells(nn.Module):
    """A backbone that sees the mean colour of cells of 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(levels=(F.avg_pool2d(images.float() - 128, 4) * self.scale,))


@pytest.fixture
def regions() -> RegionProposals:
    """Four windows of each image, whatever is in them."""
    return proposals(count=4)


def proposals(**changes: Any) -> RegionProposals:
    own = {"backbone": Cells(), "level": 0, "size": [64, 96]}
    return RegionProposals(**arguments("dataset.source.regions", *DETREG, **{**own, **changes}))


def folder(root: Path, regions: RegionProposals, **changes: Any) -> UnlabelledFolder:
    own = {"root": root, "regions": regions}
    return UnlabelledFolder(**arguments("dataset.source", *DETREG, **{**own, **changes}))


def names(source: UnlabelledFolder, split: str, cache: Path, **how: Any) -> list[str]:
    return [video.name for video in source.sequences(split, cache_dir=cache, **how)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images in two folders, and one that is hidden."""
    root = tmp_path / "root"
    for name in [f"a/{i}.png" for i in range(1, 11)] + ["b/x.png", "b/y.png", ".thumbs/0.png"]:
        draw(root / name, [BLOCK])
    return root


def test_the_last_images_of_a_folder_validate(
    images: Path, regions: RegionProposals, tmp_path: Path
) -> None:
    source = folder(images, regions, hold_out=0.2)
    train, val = (names(source, split, tmp_path / "c") for split in ("train", "val"))
    assert train == [*(f"a_{i}.png" for i in range(1, 9)), "b_x.png", "b_y.png"]
    assert val == ["a_9.png", "a_10.png"], "in natural order"
    part = folder(images, regions, paths=["a:2-9", "b/x.png"], every=3, hold_out=0.4)
    assert names(part, "train", tmp_path / "c") == ["a_2.png", "a_5.png", "b_x.png"]
    assert names(part, "val", tmp_path / "c") == ["a_8.png"]


def test_the_region_that_stands_out_is_the_first_object(
    images: Path, regions: RegionProposals, tmp_path: Path
) -> None:
    video = folder(images, regions).sequences("train", cache_dir=tmp_path / "c")[0]
    assert (video.info.height, video.info.width) == SIZE
    left, top, width, height = video.table.boxes[0]
    x, y = left + width / 2, top + height / 2
    assert 30 < x < 54 and 20 < y < 50, "its middle lies in the block"
    assert video.labels.tolist() == [0] * 4 and sorted(video.table.ids) == [1, 2, 3, 4]
    assert len(video.table.boxes) == 4


def test_windows_have_their_areas_and_shapes_and_stay_inside() -> None:
    found = windows((60, 120), [0.02, 0.1], [0.5, 2.0], 0.5)
    assert found.min() >= 0 and found.max() <= 1
    w, h = ((found[:, 2:] - found[:, :2]) * torch.tensor((120.0, 60.0))).T
    assert {round(float(x), 3) for x in w * h / 7200} == {0.02, 0.1}
    assert {round(float(x), 3) for x in w / h} == {0.5, 2.0}
    with pytest.raises(ValueError, match="areas"):
        windows((60, 120), [1.0], [0.5], 0.5)


def test_contrast_is_that_of_the_inside_and_its_surroundings() -> None:
    level = torch.zeros(1, 2, 20, 20)
    level[:, 0], level[:, 0, 8:12, 8:12], level[:, 1, 8:12, 8:12] = 1, 0, 1
    boxes = torch.tensor(((0.4, 0.4, 0.6, 0.6), (0.1, 0.1, 0.3, 0.3), (0.4, 0.4, 0.8, 0.6)))
    on, off, wide = contrast(level, boxes).tolist()
    assert on > 0.8 and abs(off) < 1e-6 and off < wide < on


def test_regions_are_computed_once_for_an_image_its_options_and_weights(
    images: Path, regions: RegionProposals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, cache = images / "a" / "1.png", tmp_path / "cache"
    first = regions.of(image, cache)
    looked: list[int] = []
    propose = RegionProposals.propose
    monkeypatch.setattr(
        RegionProposals, "propose", lambda self, image: looked.append(1) or propose(self, image)
    )
    moved = images / "moved.png"
    moved.write_bytes(image.read_bytes())
    again = proposals(count=4).of(moved, cache)
    np.testing.assert_array_equal(again.boxes, first.boxes)
    assert again.size == first.size and not looked, "the same content"
    other = Cells()
    nn.init.constant_(other.scale, 2.0)
    draw(images / "a" / "2.png", [BLOCK, [1, 1, 9, 9]])
    for made, file in (
        (proposals(count=4), images / "a" / "2.png"),
        (proposals(count=1), image),
        (proposals(count=4, backbone=other), image),
    ):
        made.of(file, cache)
    assert len(looked) == 3


def test_frames_of_videos_are_taken_once(
    regions: RegionProposals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_video(root / "v.mp4", squares(20))  # a second
    cache = root / "cache"  # below what is read: its images are not found once more
    source = folder(root, regions, interval=0.2, hold_out=0.4)
    train = source.sequences("train", cache_dir=cache)
    assert [int(video.files[0].stem) for video in train] == [1, 5, 9]
    times = [video.files[0].stat().st_mtime_ns for video in train]
    again = source.sequences("train", cache_dir=cache)
    assert [video.files[0].stat().st_mtime_ns for video in again] == times
    assert len(names(source, "val", cache)) == 2


def test_wrong_input_is_one_line(images: Path, regions: RegionProposals, tmp_path: Path) -> None:
    cache, empty, one = tmp_path / "c", tmp_path / "empty", tmp_path / "one"
    (empty / "deep").mkdir(parents=True)
    (empty / "labels.txt").write_text("0 0 0 1 1")
    draw(one / "only.png", [])
    for error, source, how in (
        (FileNotFoundError, folder(empty, regions), {}),
        (FileNotFoundError, folder(one, regions), {}),
        (FileNotFoundError, folder(images, regions, paths=["c"]), {}),
        (FileNotFoundError, folder(tmp_path / "gone", regions), {}),
        (ValueError, folder(images, regions, paths=["a:3-40"]), {}),
        (ValueError, folder(images, regions), {"split": "test"}),
        (ValueError, folder(images, regions), {"cache_dir": None}),
    ):
        with pytest.raises(error) as raised:
            source.sequences(**{"split": "train", "cache_dir": cache, **how})
        assert "\n" not in str(raised.value)


def test_what_cannot_be_read_is_an_error_or_left_out(
    images: Path, regions: RegionProposals, tmp_path: Path
) -> None:
    torn = images / "a" / "3.png"
    torn.write_bytes(torn.read_bytes()[:100])
    (images / "b" / "z.mp4").write_bytes(b"no video")
    source = folder(images, regions, paths=["a"])
    with pytest.raises(ValueError, match=r"3\.png.*on_error=skip"):
        names(source, "train", tmp_path / "c")
    with pytest.raises(ValueError, match=r"z\.mp4"):
        names(folder(images, regions, paths=["b"]), "train", tmp_path / "c")
    left = names(folder(images, regions), "train", tmp_path / "c", on_error="skip")
    assert "a_3.png" not in left and len(left) == 10
