"""Several sources in one run, each with a weight, a root, classes and splits of its own.

``dataset=mixed`` names them as parts, ``dataset.further`` adds folders of videos to any dataset.
Classes of equal name are one. Clips come from all of them by weight (``MixedClips``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, DirectoryPath, Field

from scene_track.data.clips import ClipDataset
from scene_track.data.samples import Sample
from scene_track.data.seqinfo import sequence_folders
from scene_track.data.video import MotFolder, OnError, Source, Video

Split = str | list[str]


class Part:
    """One source, with its own root, classes and splits."""

    # No dataclass: Hydra would take it for a configuration inside the mapping of parts.
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
        self.source: Any = source
        self.weight = weight
        # As ``dataset.detections``, of the dataset itself and of further folders; None = images.
        self.detections: str | None = None
        self.splits = {"train": train, "val": val, "test": test}

    @classmethod
    def of(cls, source: Source, detections: str | None) -> Part:
        """A whole dataset as the one part, of which the videos are read already."""
        splits: dict[str, Any] = dict.fromkeys(("train", "val", "test"), "")
        part = cls(source=source, weight=1.0, **splits)
        part.detections = detections
        return part

    def sequences(
        self, split: str, class_names: Sequence[str], *, name: str = "", **how: Any
    ) -> list[Video]:
        """The videos of a split, with labels as indices into ``class_names``, those of the run.

        Raises:
            FileNotFoundError, ValueError: as the source does.
            ValueError: there is no such split, or a class that the run has not.
        """
        where = self.splits[split]
        if where is None:
            at = f"dataset.source.parts.{name}"
            raise ValueError(f"{at} has no {split} split: type {at}.{split}=SPLIT")
        own = self.source.class_names
        if unknown := [label for label in own if label not in class_names]:
            raise ValueError(
                f"class {unknown[0]} of {self.source.root} is none of this dataset's,"
                f" {', '.join(class_names)}: type {name}.classes={{NUMBER: {class_names[0]}}}"
            )
        labels = np.array([class_names.index(label) for label in own])
        where = where if isinstance(where, str) else list(where)
        return [
            replace(video, labels=labels[video.labels], origin=name)
            for video in self.source.sequences(where, **how)
        ]


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

    def part(self, source: Source) -> Part:
        """The folder as a part beside the source of the dataset.

        Raises:
            FileNotFoundError: there is no sequence.
            ValueError: no class numbers are stated, and the source has none.
        """
        classes = self.classes or getattr(source, "classes", None)
        if not isinstance(classes, dict):
            if len(source.class_names) > 1:
                raise ValueError(
                    "dataset.further: its folders have numbers for classes, and this dataset has"
                    f" names; type classes={{1: {source.class_names[0]}}} for each of them"
                )
            classes = {1: source.class_names[0]}
        train = self.train
        if train is None:
            train = [folder.name for folder in sequence_folders(self.root)]
        if not train:
            raise FileNotFoundError(
                f"dataset.further: no sequence in {self.root}; looked for */seqinfo.ini"
            )
        source = MotFolder(root=self.root, classes=classes)
        part = Part(source=source, weight=self.weight, train=train, val=None, test=None)
        part.detections = self.detections
        return part


class MixedSource:
    """Reads the parts; their class names are joined, equal names are one class."""

    def __init__(self, *, parts: dict[str, Part | None], validate: str) -> None:
        """Describes the parts by a name for tables and logs; None leaves a part out.

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
        """See ``Source.sequences``.

        Videos of all parts (``train``), or of the one that validates (``val``, ``test``): the
        options of the parts; there is no other split.
        """
        if not isinstance(split, str) or split not in ("train", "val", "test"):
            raise ValueError(
                f"dataset.train, val and test of a mixed dataset are train, val and test, found"
                f" {split}: type dataset.source.parts.NAME.train=SPLIT"
            )
        how: dict[str, Any] = {"on_error": on_error, "cache_dir": cache_dir, "images": images}
        names = list(self.parts) if split == "train" else [self.validate]
        return [
            video
            for name in names
            for video in self.parts[name].sequences(split, self.class_names, name=name, **how)
        ]


class MixedClips:
    """Clips of several data sets in one, each with its share of an epoch.

    A part with weight w gives w times as many clips to an epoch as it has windows. Which ones goes
    round: a weight of 1/3 sees all of them in three epochs.
    """

    def __init__(
        self,
        parts: Sequence[ClipDataset],
        weights: Sequence[float],
        seed: int,
        *,
        same_every_epoch: bool = False,
    ) -> None:
        """Joins the parts, with one weight > 0 each.

        The seed is of the order in which a part's windows come; ``same_every_epoch`` gives those of
        the first epoch again and again.
        """
        self.same_every_epoch = same_every_epoch
        self.parts = list(parts)
        self.counts = [
            max(1, round(len(part) * weight)) for part, weight in zip(parts, weights, strict=True)
        ]
        self._starts = np.cumsum([0, *self.counts])
        self._orders = [
            np.random.default_rng((seed, number)).permutation(len(part))
            for number, part in enumerate(parts)
        ]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of an (epoch, index) pair."""
        epoch, index = (0, key[1]) if self.same_every_epoch else key
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part, order = self.parts[number], self._orders[number]
        turn, place = divmod(
            epoch * self.counts[number] + index - int(self._starts[number]), len(part)
        )
        return part[(turn, int(order[place]))]
