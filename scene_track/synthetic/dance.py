"""A synthetic DanceTrack: written to disk on first use, then read like the real one.

``python -m scene_track.synthetic.dance root=data/synthetic_dance`` writes the default set.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from scene_track.data.video import MotFolder, OnError, Video
from scene_track.synthetic.folder import SPLITS, DrawnFolder, Job, by_hand, work

VERSION = 1  # increase whenever the pictures or the ground truth of the same parameters change

_MODULE = "scene_track.synthetic.dance"  # __name__ is "__main__" when run as a script
_INSTANTS = 5  # painted per exposure
_MIN_VISIBLE = 0.1  # a dancer with less of its box inside the picture has no row
_MIN_PIXELS = 3.0  # nor has one whose box inside the picture is narrower than this


@dataclass(frozen=True)
class _Spec:
    """Everything that the pictures depend on."""

    version: int
    seed: int
    train_sequences: int
    val_sequences: int
    test_sequences: int
    frames: int
    width: int
    height: int
    frame_rate: int
    min_dancers: int
    max_dancers: int

    def jobs(self) -> list[Job]:
        """(split, number) of every sequence."""
        counts = (self.train_sequences, self.val_sequences, self.test_sequences)
        return [(s, i) for s, n in zip(SPLITS, counts, strict=True) for i in range(n)]


class SyntheticDance:
    """Look-alike dancers in DanceTrack's folder layout.

    Files: ``<root>/v<version>-<fingerprint>/{train,val,test}/danceNNNN/{img1/00000001.jpg,
        gt/gt.txt,
    gt/xyz.txt, seqinfo.ini}`` and ``manifest.json``. ``gt.txt`` has DanceTrack's rows
    (``frame,id,left,top,width,height,1,1,1``): boxes of whole bodies, also where something hides
        them, clipped
    to the picture; a dancer outside the picture has no row, and its own id again when it returns.
    ``xyz.txt`` has ``frame,id,x,y,z``: the pelvis in metres in the camera frame (x right, y down, z
    ahead). The test split has no ``gt``, like DanceTrack's.
    """

    class_names = ("dancer",)

    def __init__(
        self,
        *,
        root: str,
        seed: Annotated[int, Field(ge=0)] = 0,
        train_sequences: Annotated[int, Field(ge=1, le=10_000)] = 24,
        val_sequences: Annotated[int, Field(ge=1, le=10_000)] = 12,
        test_sequences: Annotated[int, Field(ge=0, le=10_000)] = 2,
        frames: Annotated[int, Field(ge=2, le=100_000)] = 60,
        width: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 448,
        height: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 256,
        frame_rate: Annotated[int, Field(ge=1, le=240)] = 20,
        min_dancers: Annotated[int, Field(ge=1, le=30)] = 4,
        max_dancers: Annotated[int, Field(ge=1, le=30)] = 7,
        workers: Annotated[int, Field(ge=1, le=256)] | None = None,
    ) -> None:
        """Describes the data set; nothing is written before :meth:`prepare`.

        Args:
            root: folder that holds the data set's own folder.
            seed: other seed, other pictures.
            train_sequences: sequences of the training split.
            val_sequences: sequences of the validation split.
            test_sequences: sequences of the test split.
            frames: frames per sequence.
            width: picture width in pixels.
            height: picture height in pixels.
            frame_rate: frames per second; movement per frame shrinks when it grows.
            min_dancers: least number of dancers in a sequence.
            max_dancers: greatest number of dancers in a sequence.
            workers: processes that draw; None = one per core that this process may use.

        Raises:
            ValueError: if ``min_dancers`` exceeds ``max_dancers``.
        """
        if min_dancers > max_dancers:
            raise ValueError(
                f"dataset.source.min_dancers={min_dancers} is more than max_dancers={max_dancers}: "
                "lower the first or raise the second"
            )
        self.root = Path(root)
        self.workers = workers
        self.spec = _Spec(
            version=VERSION,
            seed=seed,
            train_sequences=train_sequences,
            val_sequences=val_sequences,
            test_sequences=test_sequences,
            frames=frames,
            width=width,
            height=height,
            frame_rate=frame_rate,
            min_dancers=min_dancers,
            max_dancers=max_dancers,
        )

    @property
    def drawn(self) -> DrawnFolder:
        """Where and how it is drawn."""
        return DrawnFolder(
            root=self.root,
            spec=self.spec,
            videos={job: f"{job[0]}/{_name(job[1])}" for job in self.spec.jobs()},
            module=_MODULE,
            what="synthetic dance sequences",
            workers=self.workers,
        )

    @property
    def folder(self) -> Path:
        """The DanceTrack folder of exactly these parameters."""
        return self.drawn.folder

    def prepare(self) -> Path:
        """Writes the data set unless it is there; safe to call from several processes at once.

        Returns:
            The DanceTrack folder.

        Raises:
            RuntimeError: if drawing failed; what the drawing process printed is part of the
                message.
        """
        return self.drawn.prepare()

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
    ) -> list[Video]:
        """The sequences of a split, read by the DanceTrack reader; see :meth:`MotFolder.sequences`.

        Raises:
            FileNotFoundError: if :meth:`prepare` has not been called, or the split is unknown.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: not drawn yet, call prepare() first")
        reader = MotFolder(root=self.folder, classes={1: self.class_names[0]})
        return reader.sequences(split, on_error=on_error, cache_dir=cache_dir)


def _name(number: int) -> str:
    return f"dance{number + 1:04d}"


def write_sequence(spec: _Spec, folder: Path, split: str, number: int) -> None:
    """Draws one sequence into ``folder/split/danceNNNN``."""
    # Here, not above: listing and reading a data set must not wait for the painter.
    from scene_track.synthetic.choreography import PELVIS, choreograph
    from scene_track.synthetic.dance_drawing import (
        body_boxes,
        draw_costumes,
        draw_frame,
        draw_scenery,
    )

    rng = np.random.default_rng((spec.seed, SPLITS.index(split), number))
    count = int(rng.integers(spec.min_dancers, spec.max_dancers + 1))
    exposure = rng.uniform(0.25, 0.55)  # of the frame interval
    quality = int(rng.integers(68, 90))
    offsets = np.linspace(-0.5, 0.5, _INSTANTS) * exposure
    times = (np.arange(spec.frames)[:, None] + offsets).ravel() / spec.frame_rate
    dance = choreograph(rng, times, count, spec.width, spec.height)
    costumes = draw_costumes(rng, count)
    scenery = draw_scenery(rng, dance)

    target = folder / split / _name(number)
    (target / "img1").mkdir(parents=True)
    for frame in range(spec.frames):
        first = frame * _INSTANTS
        shift = tuple(int(v) for v in rng.integers(0, 64, 2))
        image = draw_frame(
            dance,
            scenery,
            costumes,
            np.arange(first, first + _INSTANTS),
            frame / spec.frame_rate,
            (shift[0], shift[1]),
        )
        image.save(target / "img1" / f"{frame + 1:08d}.jpg", quality=quality)
    (target / "seqinfo.ini").write_text(
        f"[Sequence]\nname={_name(number)}\nimDir=img1\nframeRate={spec.frame_rate}\n"
        f"seqLength={spec.frames}\nimWidth={spec.width}\nimHeight={spec.height}\nimExt=.jpg\n"
    )
    if split == "test":
        return

    middle = np.arange(spec.frames) * _INSTANTS + _INSTANTS // 2
    boxes = body_boxes(dance, middle)
    clipped = boxes.clip(0, np.array((spec.width, spec.height) * 2))
    size, whole = clipped[..., 2:] - clipped[..., :2], boxes[..., 2:] - boxes[..., :2]
    pelvis = dance.joints[middle, :, PELVIS]
    seen = size.prod(-1) >= _MIN_VISIBLE * whole.prod(-1)
    seen &= (size.min(-1) >= _MIN_PIXELS) & (pelvis[..., 2] > 0.5)
    ids = rng.permutation(count) + 1
    rows, places = [], []
    for frame in range(spec.frames):
        for dancer in np.flatnonzero(seen[frame]):
            left, top = clipped[frame, dancer, :2]
            w, h = size[frame, dancer]
            rows.append(f"{frame + 1},{ids[dancer]},{left:.2f},{top:.2f},{w:.2f},{h:.2f},1,1,1\n")
            x, y, z = pelvis[frame, dancer]
            places.append(f"{frame + 1},{ids[dancer]},{x:.4f},{y:.4f},{z:.4f}\n")
    (target / "gt").mkdir()
    (target / "gt" / "gt.txt").write_text("".join(rows))
    (target / "gt" / "xyz.txt").write_text("".join(places))


def _write(spec: dict[str, Any], folder: Path, split: str, number: int) -> None:
    write_sequence(_Spec(**spec), folder, split, number)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work(_write)
    else:
        by_hand(
            sys.argv[1:], lambda root: SyntheticDance(root=root).prepare(), "data/synthetic_dance"
        )
