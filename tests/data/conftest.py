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
