"""Several sources in one run: MOT folders, still images and drawn videos, by weight.

An epoch holds exactly the shares that the weights state (``MixedClips``), and each source is gone
through before it starts again. Further folders of one kind and one class map are simpler:
``dataset.further``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from scene_track.data.box_clips import MixedClips
from scene_track.data.module import TrackingDataModule
from scene_track.data.video import OnError, Source, Video

log = logging.getLogger(__name__)

Split = str | list[str]


class Part:
    """One source of a mixed dataset, with its own root, classes and splits."""

    def __init__(
        self,
        *,
        source: Any,
        weight: Annotated[float, Field(gt=0)],
        train: Split,
        val: Split | None,
        test: Split | None,
    ) -> None:
        """Describes the part.

        Args:
            source: the reader; see :class:`scene_track.data.video.Source`.
            weight: share of the clips, relative to the other parts.
            train: training split, as of the part's own dataset.
            val: validation split; None = there is none.
            test: test split; None = there is none.
        """
        self.source: Source = source
        self.weight = weight
        self.splits = {"train": train, "val": val, "test": test}


class MixedSource:
    """Reads the parts; their class names are joined, equal names are one class."""

    def __init__(self, *, parts: dict[str, Part | None], validate: str) -> None:
        """Describes the parts; nothing is read yet.

        Args:
            parts: by a name for tables and logs; None leaves a part out.
            validate: name of the part whose validation and test splits count.

        Raises:
            ValueError: there is no part, or none of the name ``validate``.
        """
        self.parts = {name: part for name, part in parts.items() if part is not None}
        if validate not in self.parts:
            known = ", ".join(self.parts) or "none"
            raise ValueError(
                f"dataset.source.validate={validate}: the parts of the dataset are {known}"
            )
        self.validate = validate

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label index, in the order of the parts."""
        names = [name for part in self.parts.values() for name in part.source.class_names]
        return tuple(dict.fromkeys(names))

    def prepare(self) -> Path:
        """Makes the files of all parts exist; the root of the part that validates."""
        roots = {name: part.source.prepare() for name, part in self.parts.items()}
        return roots[self.validate]

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
        images: bool = True,
    ) -> list[Video]:
        """Videos of all parts (``train``), or of the one that validates (``val``, ``test``).

        Args:
            split: ``train``, ``val`` or ``test``: the options of the parts.
            on_error: ``raise``, or ``skip`` what is wrong, counted and logged.
            cache_dir: where parsed sequences are kept; None = not kept.
            images: False where the images of videos are not read.

        Raises:
            FileNotFoundError, ValueError: as the parts do.
            ValueError: for another split, or one that the part does not have.
        """
        if not isinstance(split, str) or split not in ("train", "val", "test"):
            raise ValueError(
                f"dataset.train, val and test of a mixed dataset are train, val and test, found"
                f" {split}: type dataset.source.parts.NAME.train=SPLIT"
            )
        names = list(self.parts) if split == "train" else [self.validate]
        index = {name: label for label, name in enumerate(self.class_names)}
        videos: list[Video] = []
        for name in names:
            part = self.parts[name]
            where = part.splits[split]
            if where is None:
                raise ValueError(
                    f"dataset.source.parts.{name} has no {split} split: type"
                    f" dataset.source.parts.{name}.{split}=SPLIT"
                )
            labels = np.array([index[own] for own in part.source.class_names])
            where = where if isinstance(where, str) else list(where)
            for video in part.source.sequences(
                where, on_error=on_error, cache_dir=cache_dir, images=images
            ):
                videos.append(replace(video, labels=labels[video.labels], origin=name))
        return videos


class MixedDataModule(TrackingDataModule):
    """As any dataset; training clips come from the parts by weight."""

    def __init__(self, *, clips_per_epoch: Annotated[int, Field(ge=1)], **rest: Any) -> None:
        """Describes the data.

        Args:
            clips_per_epoch: clips of all parts together.
            **rest: as of the base class.

        Raises:
            ValueError: ``further`` or ``detections`` is given.
        """
        super().__init__(**rest)
        if self.further or self.detections is not None:
            raise ValueError(
                "dataset=mixed reads images of dataset.source.parts alone: type dataset.further=[]"
                " and dataset.detections=null, and name further folders as parts"
            )
        self.clips_per_epoch = clips_per_epoch

    def _training_clips(self, overfit: bool) -> MixedClips:
        """The clips of all parts; logs how many are from which part."""
        assert isinstance(self.source, MixedSource)
        parts, sequences = self.source.parts, self.sequences("train")
        videos = {name: [v for v in sequences if v.origin == name] for name in parts}
        clips = {name: self._clips(videos[name], None, overfit) for name in parts}
        total = sum(part.weight for part in parts.values())
        wanted = {n: self.clips_per_epoch * part.weight / total for n, part in parts.items()}
        mixed = MixedClips(
            list(clips.values()),
            [wanted[n] / len(clips[n]) for n in parts],
            self.seed,
            same_every_epoch=overfit,
        )
        for name, count in zip(parts, mixed.counts, strict=True):
            log.info(
                "mixed: %d of %d clips of an epoch are from %s (%d windows of %d videos or images)",
                *(count, len(mixed), name, len(clips[name]), len(videos[name])),
            )
        return mixed
