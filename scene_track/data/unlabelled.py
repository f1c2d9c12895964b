"""Images and videos without labels: regions that stand out take the place of objects.

Every image is a still whose objects are its regions (``regions.py``), so a clip is the path of a
camera over it (``stills.py``) and a region is an identity along that path. Of a video, frames are
taken at a stated distance and kept as images.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import DirectoryPath, Field

from scene_track.data.footage import VIDEOS, natural, open_footage
from scene_track.data.images import EXTENSIONS, FrameError
from scene_track.data.regions import RegionProposals
from scene_track.data.still_folder import Faults
from scene_track.data.stills import still_video
from scene_track.data.video import OnError, SourceFolder, Video, refuse_equal_names
from scene_track.io.atomic import atomic_folder

log = logging.getLogger(__name__)

_SPEC = re.compile(r"^(?P<path>.+?)(?::(?P<first>\d+)-(?P<last>\d+))?$")
_LOG_EVERY_S = 20.0
_JPEG_QUALITY = 95
_ROUNDING_S = 1e-3  # of the times in a file


class UnlabelledFolder(SourceFolder):
    """Images and videos below one root; their regions are the objects of the one class."""

    LOOKED_FOR = "images and videos"
    class_names = ("region",)

    def __init__(
        self,
        *,
        root: DirectoryPath,
        paths: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)],
        every: Annotated[int, Field(ge=1)],
        interval: Annotated[float, Field(gt=0)],
        hold_out: Annotated[float, Field(gt=0, lt=1)],
        regions: RegionProposals,
    ) -> None:
        """Describes the folder; nothing is read yet. Options: ``conf/dataset/unlabelled.yaml``."""
        self.root = Path(root)
        self.paths = list(paths)
        self.every, self.interval, self.hold_out = every, interval, hold_out
        self.regions = regions

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """A video of one frame per image, with its regions as ground truth.

        Args:
            split: ``train``, or ``val`` for the images that are held out.
            on_error: ``raise``, or ``skip`` what cannot be read, counted and logged.
            cache_dir: where regions and frames of videos are kept.
            images: not used: stills are nothing without.

        Raises:
            FileNotFoundError: a path is not there, or no image is below it.
            ValueError: for another split, an image or a video that cannot be read, or without a
                folder to keep the regions in.
        """
        root = self.prepare()
        if split not in ("train", "val"):
            raise ValueError(
                f"dataset.train and val of images without labels are train and val, found {split}:"
                " type dataset.source.paths=[FOLDER] to choose what is read"
            )
        if cache_dir is None:
            raise ValueError(
                f"{root} cannot be written to, and regions are kept: type dataset.cache_dir=FOLDER"
            )
        faults = Faults(root, on_error)
        chosen = {"train": [], "val": []}
        for folder in self._folders(cache_dir, faults):
            held = min(round(len(folder) * self.hold_out), len(folder) - 1)
            chosen["train"] += folder[: len(folder) - held]
            chosen["val"] += folder[len(folder) - held :]
        if not chosen["val"]:  # a handful of images in each of many folders
            chosen["val"] = [chosen["train"].pop()]
        if not chosen["train"]:
            raise FileNotFoundError(
                f"{root}: one image, {chosen['val'][0].name}; at least two are needed, one of them"
                " validates"
            )
        videos = self._with_regions(chosen[split], cache_dir, faults)
        faults.report()
        if not videos:
            raise FileNotFoundError(f"{root}: none of its images can be read")
        return videos

    def _folders(self, cache_dir: Path, faults: Faults) -> list[list[Path]]:
        """The chosen images of each folder and video, in natural order."""
        groups: list[list[Path]] = []
        known: set[Path] = set()
        for spec in self.paths:
            match = _SPEC.match(spec)
            assert match is not None  # any text with a character does
            path = self.root / match["path"]
            if not path.exists():
                found = sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))
                raise FileNotFoundError(
                    f"{path}: no such file or folder; {self.root} holds"
                    f" {', '.join(found[:8]) or 'nothing'}. Type dataset.source.paths=[FOLDER]"
                )
            own = self._groups(path, cache_dir, faults)
            files = [file for group in own for file in group]
            if not files:
                raise FileNotFoundError(
                    f"{path}: no image ({', '.join(EXTENSIONS)}) and no video"
                    f" ({', '.join(VIDEOS)}) in it; type dataset.root=FOLDER"
                )
            if match["first"] is not None:
                first, last = int(match["first"]), int(match["last"])
                if not 1 <= first <= last <= len(files):
                    raise ValueError(f"{spec}: images are 1-{len(files)} in {path}")
                chosen = set(files[first - 1 : last])
                own = [[file for file in group if file in chosen] for group in own]
            for group in own:
                # Once, where paths overlap: no image trains and validates.
                fresh = [file for file in group[:: self.every] if file not in known]
                known.update(fresh)
                groups += [fresh] if fresh else []
        return groups

    def _groups(self, path: Path, cache_dir: Path, faults: Faults) -> list[list[Path]]:
        """All images of a path, folder by folder, each video a folder of its own."""
        found = [path] if path.is_file() else path.rglob("*")
        kept = cache_dir.resolve()  # may lie below the root
        files = sorted(
            (
                file
                for file in found
                if file.suffix.lower() in (*EXTENSIONS, *VIDEOS)
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(self.root).parts)
                and kept not in file.resolve().parents
            ),
            key=lambda file: (file.parent, natural(file)),
        )
        images = (file for file in files if file.suffix.lower() in EXTENSIONS)
        groups = [list(group) for _, group in groupby(images, lambda file: file.parent)]
        videos = (file for file in files if file.suffix.lower() in VIDEOS)
        return groups + [self._frames(video, cache_dir / "frames", faults) for video in videos]

    def _frames(self, video: Path, folder: Path, faults: Faults) -> list[Path]:
        """Frames of a video file as images, taken once; a broken end is left out, with a warning.

        Args:
            video: the file.
            folder: of the folders of frames.
            faults: takes a video that cannot be read.
        """
        stat = video.stat()
        about = f"{video.absolute()} {stat.st_size} {stat.st_mtime_ns} {self.interval}"
        place = folder / f"{video.stem}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
        if not place.is_dir():
            try:
                footage = open_footage(video)
            except ValueError as error:
                faults.add(str(error))
                return []
            log.info("%s: takes a frame every %s s", video, self.interval)
            due = 0.0
            with atomic_folder(place, keep=True) as new:  # other processes do the same
                for frame in footage.frames:
                    if frame.seconds < due - _ROUNDING_S:
                        continue
                    due = frame.seconds + self.interval
                    file = new / f"{frame.number:06d}.jpg"
                    Image.fromarray(frame.image).save(file, quality=_JPEG_QUALITY)
        return sorted(place.iterdir())

    def _with_regions(self, files: list[Path], cache_dir: Path, faults: Faults) -> list[Video]:
        """The images as stills, with their regions."""
        videos: list[Video] = []
        told = time.monotonic()
        for number, file in enumerate(dict.fromkeys(files), start=1):
            try:
                found = self.regions.of(file, cache_dir / "regions")
            except FrameError as error:
                faults.add(str(error))
                continue
            inside = self.root in file.parents
            path = file.relative_to(self.root if inside else file.parents[1])
            videos.append(
                still_video(
                    file,
                    name=path.as_posix().replace("/", "_"),
                    size=found.size,
                    boxes=found.boxes,
                    labels=[0] * len(found.boxes),
                    ignored=np.zeros((0, 4)),
                )
            )
            if time.monotonic() - told > _LOG_EVERY_S:
                told = time.monotonic()
                log.info("regions of %d of %d images", number, len(files))
        refuse_equal_names(videos, self.root)
        return videos
