"""Further folders of training videos: several data sets in one run, each with its own weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, DirectoryPath, Field

from scene_track.data.seqinfo import sequence_folders
from scene_track.data.video import MotFolder, OnError, Video


class Further(BaseModel):
    """A folder of training videos in the MOTChallenge layout, beside ``dataset.root``.

    Attributes:
        root: the folder.
        train: split or list of sequences, as ``dataset.train``; None = all sequences in it.
        detections: as ``dataset.detections``; None = images.
        weight: clips of it in an epoch as a multiple of its windows, > 0.
        classes: as ``dataset.source.classes``; None = the same.
    """

    model_config = ConfigDict(extra="forbid")

    root: DirectoryPath
    train: str | list[str] | None = None
    detections: Annotated[str, Field(min_length=1)] | None = None
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    classes: dict[int, str] | None = None

    def videos(
        self, classes: Any, *, detections: str | None, on_error: OnError, cache_dir: Path | None
    ) -> list[Video]:
        """Its training videos.

        Args:
            classes: those of the run, where it names none.
            detections: those of the run.
            on_error: see ``MotFolder.sequences``.
            cache_dir: see there.

        Raises:
            FileNotFoundError: a sequence is missing, or there is none.
            ValueError: wrong content, or it does not go with the run.
        """
        if (self.detections is None) != (detections is None):
            mine, other = ("detections" if x else "images" for x in (self.detections, detections))
            raise ValueError(
                f"dataset.further: {self.root} gives {mine} and dataset.root {other}: all folders"
                " of a run give the same; type detections=FOLDER or detections=noise for each"
            )
        if not isinstance(classes, dict):
            raise ValueError(
                "dataset.further: its folders have numbers for classes, and this dataset has"
                " names; type dataset=mixed for both in one run"
            )
        where = self.train
        if where is None:
            where = [folder.name for folder in sequence_folders(self.root)]
        if not where:
            raise FileNotFoundError(
                f"dataset.further: no sequence in {self.root}; looked for */seqinfo.ini"
            )
        videos = MotFolder(root=self.root, classes=self.classes or classes).sequences(
            where, on_error=on_error, cache_dir=cache_dir, images=self.detections is None
        )
        if bare := [video.name for video in videos if not video.labelled]:
            raise FileNotFoundError(
                f"dataset.further: {len(bare)} of {len(videos)} sequences of {self.root} have no"
                f" {videos[0].label_file}, first {bare[0]}: type train=[NAME] with labelled ones"
            )
        return videos
