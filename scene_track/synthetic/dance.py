"""A synthetic DanceTrack: drawn into a folder on first use, then read like the real one.

``python -m scene_track.synthetic.dance root=data/synthetic_dance`` draws the default dataset.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from scene_track.data.video import MotFolder
from scene_track.synthetic.folder import SPLITS, DrawnDataset, draw_by_hand

if TYPE_CHECKING:
    from scene_track.synthetic.choreography import Dance

_INSTANTS = 5  # painted per exposure
_MIN_VISIBLE = 0.1  # a dancer with less of its box inside the image has no row
_MIN_PIXELS = 3.0  # nor has one whose box inside the image is narrower than this


@dataclass(frozen=True, kw_only=True)
class SyntheticDance(DrawnDataset):
    """Look-alike dancers in DanceTrack's folder layout.

    Files: ``<root>/v<version>-<hash>/{train,val,test}/danceNNNN/{img1/00000001.jpg, gt/gt.txt,
    gt/xyz.txt, seqinfo.ini}`` and ``manifest.json``. ``gt.txt`` has DanceTrack's rows
    (``frame,id,left,top,width,height,1,1,1``): boxes of whole bodies, hidden or not, clipped to the
    image. A dancer outside the image has no row, and its old id when it returns. ``xyz.txt`` has
    ``frame,id,x,y,z``: the pelvis in metres in the camera frame (x right, y down, z ahead). The
    test split has no ``gt``, like DanceTrack's.

    The options are described in ``conf/dataset/synthetic_dance.yaml``.

    Raises:
        ValueError: ``min_dancers`` exceeds ``max_dancers``.
    """

    VERSION = 1
    class_names = ("dancer",)

    seed: Annotated[int, Field(ge=0)]
    train_sequences: Annotated[int, Field(ge=1, le=10_000)]
    val_sequences: Annotated[int, Field(ge=1, le=10_000)]
    test_sequences: Annotated[int, Field(ge=0, le=10_000)]
    frames: Annotated[int, Field(ge=2, le=100_000)]
    width: Annotated[int, Field(ge=64, le=4096, multiple_of=8)]
    height: Annotated[int, Field(ge=64, le=4096, multiple_of=8)]
    frame_rate: Annotated[int, Field(ge=1, le=240)]
    min_dancers: Annotated[int, Field(ge=1, le=30)]
    max_dancers: Annotated[int, Field(ge=1, le=30)]

    def __post_init__(self) -> None:
        """Checks the numbers of dancers."""
        if self.min_dancers > self.max_dancers:
            raise ValueError(
                f"dataset.source.min_dancers={self.min_dancers} is more than"
                f" max_dancers={self.max_dancers}: lower the first or raise the second"
            )

    def videos(self) -> list[tuple[str, int]]:
        """See :meth:`DrawnDataset.videos`."""
        counts = (self.train_sequences, self.val_sequences, self.test_sequences)
        return [(s, i) for s, n in zip(SPLITS, counts, strict=True) for i in range(n)]

    def place(self, split: str, number: int) -> str:
        """See :meth:`DrawnDataset.place`."""
        return f"{split}/dance{number + 1:04d}"

    def reader(self) -> MotFolder:
        """See :meth:`DrawnDataset.reader`."""
        return MotFolder(root=self.folder, classes={1: self.class_names[0]})

    def draw(self, folder: Path, split: str, number: int) -> None:
        """See :meth:`DrawnDataset.draw`."""
        # Imported here: listing and reading a dataset must not wait for the painter.
        from scene_track.synthetic.choreography import choreograph
        from scene_track.synthetic.dance_drawing import draw_costumes, draw_frame
        from scene_track.synthetic.dance_stage import draw_scenery

        rng = np.random.default_rng((self.seed, SPLITS.index(split), number))
        count = int(rng.integers(self.min_dancers, self.max_dancers + 1))
        exposure = rng.uniform(0.25, 0.55)  # of the frame interval
        quality = int(rng.integers(68, 90))
        offsets = np.linspace(-0.5, 0.5, _INSTANTS) * exposure
        times = (np.arange(self.frames)[:, None] + offsets).ravel() / self.frame_rate
        dance = choreograph(rng, times, count, self.width, self.height)
        costumes = draw_costumes(rng, count)
        scenery = draw_scenery(rng, dance)

        target = folder / self.place(split, number)
        (target / "img1").mkdir(parents=True)
        for frame in range(self.frames):
            instants = np.arange(frame * _INSTANTS, (frame + 1) * _INSTANTS)
            time = frame / self.frame_rate
            image = draw_frame(rng, dance, scenery, costumes, instants, time)
            image.save(target / "img1" / f"{frame + 1:08d}.jpg", quality=quality)
        (target / "seqinfo.ini").write_text(
            f"[Sequence]\nname={target.name}\nimDir=img1\nframeRate={self.frame_rate}\n"
            f"seqLength={self.frames}\nimWidth={self.width}\nimHeight={self.height}\nimExt=.jpg\n"
        )
        if split != "test":
            self._write_ground_truth(rng, dance, target / "gt")

    def _write_ground_truth(self, rng: np.random.Generator, dance: Dance, folder: Path) -> None:
        from scene_track.synthetic.choreography import PELVIS
        from scene_track.synthetic.dance_drawing import body_boxes

        middle = np.arange(self.frames) * _INSTANTS + _INSTANTS // 2
        boxes = body_boxes(dance, middle)
        clipped = boxes.clip(0, np.array((self.width, self.height) * 2))
        size, whole = clipped[..., 2:] - clipped[..., :2], boxes[..., 2:] - boxes[..., :2]
        pelvis = dance.joints[middle, :, PELVIS]
        seen = size.prod(-1) >= _MIN_VISIBLE * whole.prod(-1)
        seen &= (size.min(-1) >= _MIN_PIXELS) & (pelvis[..., 2] > 0.5)
        ids = rng.permutation(seen.shape[1]) + 1
        rows, places = "", ""
        for frame, dancer in np.argwhere(seen):
            left, top = clipped[frame, dancer, :2]
            w, h = size[frame, dancer]
            rows += f"{frame + 1},{ids[dancer]},{left:.2f},{top:.2f},{w:.2f},{h:.2f},1,1,1\n"
            x, y, z = pelvis[frame, dancer]
            places += f"{frame + 1},{ids[dancer]},{x:.4f},{y:.4f},{z:.4f}\n"
        folder.mkdir()
        (folder / "gt.txt").write_text(rows)
        (folder / "xyz.txt").write_text(places)


if __name__ == "__main__":
    draw_by_hand("synthetic_dance", sys.argv[1:])
