"""Small sequence folders on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeSequence = Callable[..., Path]


@pytest.fixture
def make_sequence(tmp_path: Path) -> MakeSequence:
    """Writes sequence folders whose frame n is a picture of grey level 10 n."""

    def make(
        name: str = "A",
        *,
        split: str = "train",
        length: int = 6,
        size: tuple[int, int] = (32, 48),
        digits: int = 6,
        extension: str = "png",
        gt: str | None = "",
        xyz: str | None = None,
        missing: Collection[int] = (),
    ) -> Path:
        folder = tmp_path / "root" / split / name
        (folder / "img1").mkdir(parents=True)
        for frame in range(1, length + 1):
            if frame not in missing:
                picture = np.full((*size, 3), 10 * frame, dtype=np.uint8)
                Image.fromarray(picture).save(folder / "img1" / f"{frame:0{digits}d}.{extension}")
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nimDir=img1\nframeRate=20\nseqLength={length}\n"
            f"imWidth={size[1]}\nimHeight={size[0]}\nimExt=.{extension}\n"
        )
        if gt is not None:
            (folder / "gt").mkdir()
            (folder / "gt" / "gt.txt").write_text(gt)
        if xyz is not None:
            (folder / "gt" / "xyz.txt").write_text(xyz)
        return folder

    return make


@pytest.fixture
def walking_gt() -> str:
    """One box whose left edge is at 2 n in frame n, 8 x 10 pixels, six frames."""
    return "".join(f"{n},7,{2 * n},4,8,10,1,1,1\n" for n in range(1, 7))


MakeClip = Callable[..., Path]


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Writes TrackNet clips: black pictures with one white pixel where the ball is."""

    def make(
        name: str = "game1/Clip1",
        *,
        balls: dict[int, tuple[int, int, int]],
        size: tuple[int, int] = (36, 64),
        labels: str | None = None,
        missing: Collection[int] = (),
        badminton: bool = False,
    ) -> Path:
        game, clip = name.split("/")
        root = tmp_path / "root"
        folder = root / game / ("frame" if badminton else "") / clip
        folder.mkdir(parents=True)
        names = {n: f"{n}.png" if badminton else f"{n:04d}.png" for n in balls}
        rows = []
        for n, (visibility, x, y) in balls.items():
            picture = np.zeros((*size, 3), dtype=np.uint8)
            if visibility:
                picture[y, x] = 255
            if n not in missing:
                Image.fromarray(picture).save(folder / names[n])
            place = f"{x},{y}" if visibility else (",", "0,0")[badminton]
            rows.append(
                f"{n},{visibility},{place}" if badminton else f"{names[n]},{visibility},{place},0"
            )
        header = (
            "Frame,Visibility,X,Y"
            if badminton
            else "file name,visibility,x-coordinate,y-coordinate,status"
        )
        text = "\n".join([header, *rows]) + "\n" if labels is None else labels
        file = root / game / "csv" / f"{clip}_ball.csv" if badminton else folder / "Label.csv"
        if text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return folder

    return make


@pytest.fixture
def flight() -> dict[int, tuple[int, int, int]]:
    """Six frames: the ball goes right, is absent in frame 2, occluded in frame 4."""
    return {n: ((1, 1, 0, 2, 3, 1)[n], 5 + 8 * n, 4 + 3 * n) for n in range(6)}
