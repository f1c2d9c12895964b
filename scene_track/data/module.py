"""The data module: any source of videos, training clips and streaming validation.

Lightning's samplers are not used. The training loader orders itself by (seed, epoch)
and can be resumed at any batch; the validation loader gives each process whole sequences, so that a
tracker can stream and raw counts can simply be added up (``use_distributed_sampler: false``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from scene_track.data.batch import SceneBatch
from scene_track.data.box_clips import BoxClips, BoxStream
from scene_track.data.clips import ClipDataset, StreamDataset
from scene_track.data.collate import collate_shared
from scene_track.data.detections import NOISE, TRUTH, BoxVideo, noise_of, read_box_videos
from scene_track.data.feature_store import FeatureSource
from scene_track.data.parts import Further, MixedClips, MixedSource, Part
from scene_track.data.resumable_loader import ResumableLoader, WatchedLoader
from scene_track.data.stills import CameraPath
from scene_track.data.transforms import ClipAugment
from scene_track.data.video import Source, Video
from scene_track.data.visibility import balanced_weights, count_visibility

log = logging.getLogger(__name__)

_METADATA = "metadata"
_FRAMES = "frames"
_FEATURES = "features"


@dataclass(kw_only=True)
class Window:
    """How training clips are cut from sequences; see ``window`` in ``conf/dataset/_base.yaml``."""

    length: Annotated[int, Field(ge=1, le=1000)]
    stride: Annotated[int, Field(ge=1, le=100_000)]
    max_interval: Annotated[int, Field(ge=1, le=1000)]


@dataclass(kw_only=True)
class EvalWindow:
    """How sequences are cut into chunks of ``length`` frames for streaming."""

    length: Annotated[int, Field(ge=1, le=1000)]


@dataclass(kw_only=True)
class Loader:
    """How batches are made ready; see ``loader`` in ``conf/dataset/_base.yaml``."""

    num_workers: Annotated[int, Field(ge=0, le=256)]
    pin_memory: bool
    persistent_workers: bool
    prefetch_factor: Annotated[int, Field(ge=1, le=64)]
    drop_last: bool


class TrackingDataModule(LightningDataModule):
    """Training, validation and test data of a tracker."""

    clips_per_epoch: int | None = None
    """Clips of all parts together, by weight; None: weights are multiples of a part's windows."""

    def __init__(
        self,
        *,
        root: str,
        source: Any,
        size: Annotated[
            list[Annotated[int, Field(ge=16, le=8192)]], Field(min_length=2, max_length=2)
        ],
        window: Window,
        eval_window: EvalWindow,
        augment: ClipAugment,
        loader: Loader,
        batch_size: Annotated[int, Field(ge=1, le=4096)],
        train: str | list[str],
        val: str | list[str],
        test: str | list[str] | None,
        base_scale: Annotated[float, Field(ge=0.5, le=4)],
        cache: bool,
        cache_dir: str | None,
        on_error: Literal["raise", "skip"],
        seed: Annotated[int, Field(ge=0)],
        camera_path: CameraPath | None,
        detections: Annotated[str, Field(min_length=1)] | None,
        further: list[Further],
        camera: Annotated[int, Field(ge=0)],
    ) -> None:
        """Describes the data; nothing is read before :meth:`setup`.

        Options: see ``conf/dataset/_base.yaml``.
        """
        super().__init__()
        self.root = Path(root)
        self.source: Source = source
        self.size = (int(size[0]), int(size[1]))
        self.window = window
        self.eval_window = eval_window
        self.augment = augment
        self.loader = loader
        self.batch_size = batch_size
        self.splits: dict[str, str | list[str] | None] = {
            "train": train if isinstance(train, str) else list(train),
            "val": val if isinstance(val, str) else list(val),
            "test": test if test is None or isinstance(test, str) else list(test),
        }
        self.base_scale = base_scale
        self.cache = cache
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.on_error: Literal["raise", "skip"] = on_error
        self.seed = seed
        self.detections, self.camera, self.camera_path = detections, camera, camera_path
        self.further = [f if isinstance(f, Further) else Further(**f) for f in further]
        self._box_videos: dict[str, list[BoxVideo]] = {}
        self.features = FeatureSource()
        self._sequences: dict[str, list[Video]] = {}
        self._train_loader: ResumableLoader | None = None

    @property
    def class_names(self) -> list[str]:
        """Class names by label index."""
        return list(self.source.class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def prepare_data(self) -> None:
        """Makes the files exist (Lightning calls this on one process per machine)."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Reads the sequences of the splits that ``stage`` (fit, validate, test, predict) needs.

        Raises:
            FileNotFoundError: if a split is not there, with what to type.
            ValueError: for wrong content.
        """
        needs = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("test",),
        }
        for split in needs[stage] if stage is not None else ("train", "val"):
            self.sequences(split)
            self._boxes(split)

    def sequences(self, split: Literal["train", "val", "test"] | str) -> list[Video]:
        """The sequences of a split, with exact float64 ground truth in original pixels.

        Raises:
            FileNotFoundError: if the split is not there, with what to type.
            ValueError: for wrong content, or if the configuration has no such split.
        """
        if split not in self._sequences:
            where = self.splits.get(split)
            if where is None:
                raise ValueError(
                    f"there is no {split} split: type dataset.{split}=FOLDER, or name another split"
                )
            sequences = self.source.sequences(where, **self._how(images=self.detections is None))
            if split != "test":
                _refuse_unlabelled(sequences, f"dataset.{split}")
            self._sequences[split] = sequences
            if (counts := self.visibility_counts(split)) is not None:
                log.info(
                    "%s: %d clips of a ball; frames absent %d, visible %d, hard %d, occluded %d; "
                    "weights that balance them by half: %s",
                    split,
                    len(sequences),
                    *counts,
                    [round(weight, 2) for weight in balanced_weights(counts)],
                )
        return self._sequences[split]

    def _how(self, *, images: bool) -> dict[str, Any]:
        """Arguments of ``Source.sequences``."""
        cache_dir = self._cache_folder(_METADATA)
        return {"on_error": self.on_error, "cache_dir": cache_dir, "images": images}

    def visibility_counts(self, split: str) -> list[int] | None:
        """``[4]`` frames in which the ball is absent, visible, hard, occluded; None for boxes."""
        points = [s.points for s in self.sequences(split) if s.points is not None]
        return count_visibility(p[:, 2] for p in points).tolist() if points else None

    def train_dataloader(self) -> ResumableLoader:
        """Training batches, shuffled: the same loader on every call, whose position is saved."""
        if self._train_loader is None:
            # Learning a few batches by heart needs the same batches again and again.
            overfit = bool(getattr(self.trainer, "overfit_batches", 0))
            dataset = self._training_clips(overfit)
            self._train_loader = ResumableLoader(
                dataset,
                batch_size=self.batch_size,
                shuffle=not overfit,
                seed=self.seed,
                drop_last=self.loader.drop_last,
                num_workers=self.loader.num_workers,
                collate_fn=partial(collate_shared, length=self.window.length),
                pin_memory=self.loader.pin_memory,
                persistent_workers=self.loader.persistent_workers,
                prefetch_factor=self.loader.prefetch_factor,
            )
        return self._train_loader

    def _training_clips(self, overfit: bool) -> ClipDataset | MixedClips:
        """The clips of all parts; logs how many of an epoch are from which."""
        videos, itself = self.sequences("train"), Part.of(self.source, self.detections)
        parts = dict(self.source.parts if isinstance(self.source, MixedSource) else {"": itself})
        further = {f"dataset.further[{i}]": folder for i, folder in enumerate(self.further)}
        self._check_alike(parts | further)
        for name, folder in further.items():
            part = parts[name] = folder.part(self.source)
            how = self._how(images=part.detections is None)
            more = part.sequences("train", self.class_names, name=name, **how)
            _refuse_unlabelled(more, f"{name}.train")
            videos = videos + more
        clips: dict[str, ClipDataset] = {}
        read = {name: [video for video in videos if video.origin == name] for name in parts}
        for name, part in parts.items():
            boxes = self._boxes("train")
            if name and part.detections is not None:
                boxes = self._with_detections(read[name], part.detections, part.source.root)
            clips[name] = self._clips(read[name], boxes, overfit)
        if list(clips) == [""]:
            return clips[""]
        weights = {name: part.weight for name, part in parts.items()}
        if self.clips_per_epoch is not None:
            wanted, total = self.clips_per_epoch, sum(weights.values())
            weights = {name: wanted * w / total / len(clips[name]) for name, w in weights.items()}
        mixed = MixedClips(
            list(clips.values()), list(weights.values()), self.seed, same_every_epoch=overfit
        )
        for name, count in zip(parts, mixed.counts, strict=True):
            log.info(
                "%d of %d clips of an epoch are from %s (%d windows of %d videos or images)",
                *(count, len(mixed), name or self.root, len(clips[name]), len(read[name])),
            )
        return mixed

    def _check_alike(self, parts: Mapping[str, Part | Further]) -> None:
        """Refuses images in one part of a run and detections in another."""
        for name, part in parts.items():
            if (part.detections is None) != (self.detections is None):
                kind, other = ("images", "detections")[:: 1 if part.detections is None else -1]
                raise ValueError(
                    f"{name} gives {kind} and dataset.root {other}: all parts of a run give the"
                    " same; type detections=FOLDER or detections=noise for each"
                )

    def _clips(
        self, videos: list[Video], boxes: list[BoxVideo] | None, overfit: bool
    ) -> ClipDataset:
        """The training clips of some videos, of boxes alone or of images."""
        windows: dict[str, Any] = {
            "length": self.window.length,
            "stride": self.window.stride,
            "max_interval": self.window.max_interval,
            "augment": self.augment,
            "seed": self.seed,
            "same_every_epoch": overfit,
        }
        if boxes is not None:
            return BoxClips(boxes, camera_pairs=self.camera, **windows)
        return ClipDataset(
            videos,
            size=self.size,
            base_scale=self.base_scale,
            cache_dir=self._cache_folder(_FRAMES) if self.cache else None,
            on_error=self.on_error,
            features=self.features,
            camera_path=self.camera_path,
            **windows,
        )

    def _boxes(self, split: str) -> list[BoxVideo] | None:
        """The videos of a split with their detections; None with images."""
        if self.detections is None:
            return None
        if split not in self._box_videos:
            self._box_videos[split] = self._with_detections(
                self.sequences(split), self.detections, self.root
            )
        return self._box_videos[split]

    def _with_detections(self, videos: list[Video], source: str, root: Path) -> list[BoxVideo]:
        noise = None
        if source == NOISE and self.detections not in (None, NOISE, TRUTH):
            noise = noise_of(self._boxes("train") or ())
        return read_box_videos(videos, source, root=root, noise=noise)

    def val_dataloader(self) -> DataLoader[SceneBatch]:
        """Whole validation sequences of this process, in order, one chunk per batch."""
        return self.stream_dataloader("val")

    def test_dataloader(self) -> DataLoader[SceneBatch]:
        """Whole test sequences of this process, in order, one chunk per batch."""
        return self.stream_dataloader("test")

    predict_dataloader = test_dataloader

    def stream_dataloader(self, split: str) -> DataLoader[SceneBatch]:
        """Whole sequences of a split, of this process, in order, one chunk per batch.

        A process without a sequence gets one chunk of padding alone: Lightning skips a loop without
        batches, hooks and all, and the other processes would wait in theirs for ever.
        """
        sequences = self.sequences(split)
        mine = _share(sequences)
        boxes = self._boxes(split)
        dataset: StreamDataset | BoxStream
        if boxes is not None:
            own = [box for box in boxes if box.video in mine]
            dataset = BoxStream(own or boxes[:1], length=self.eval_window.length, idle=not mine)
        else:
            dataset = StreamDataset(
                mine or sequences[:1],
                idle=not mine,
                size=self.size,
                length=self.eval_window.length,
                cache_dir=self._cache_folder(_FRAMES) if self.cache else None,
                on_error=self.on_error,
                features=self.features,
            )
        return WatchedLoader(
            dataset,  # pyright: ignore[reportArgumentType]
            batch_size=1,
            shuffle=False,
            num_workers=self.loader.num_workers,
            collate_fn=partial(collate_shared, length=self.eval_window.length),
            pin_memory=self.loader.pin_memory,
        )

    def _cache_folder(self, kind: str) -> Path | None:
        """Where a cache lies; None when metadata cannot be kept anywhere.

        Raises:
            ValueError: if frames are to be kept and the root cannot be written to.
        """
        if self.cache_dir is not None:
            return self.cache_dir / kind
        folder = self.root / ".cache" / kind
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if os.access(there, os.W_OK):
            return folder
        if kind != _METADATA:
            option = "dataset.cache" if kind == _FRAMES else "model.backbone.cache"
            raise ValueError(
                f"{option}=true, but {there} cannot be written to: "
                f"type dataset.cache_dir=FOLDER or {option}=false"
            )
        return None

    def feature_folder(self) -> Path:
        """Where features of frames are kept; a ``ValueError`` where nothing can be written."""
        folder = self._cache_folder(_FEATURES)
        assert folder is not None
        return folder

    def check_repeatable(self) -> None:
        """Refuses transforms that change a frame's image from epoch to epoch.

        Raises:
            ValueError: there are some, with what to type.
        """
        changing = {f"augment.{k}": v for k, v in self.augment.unrepeatable().items()}
        if self.base_scale != 1:
            changing["base_scale"] = self.base_scale
        changing |= {} if self.camera_path is None else {"camera_path": "{...}"}
        if not changing:
            return
        shown = ", ".join(f"dataset.{name}={value}" for name, value in changing.items())
        off = {"base_scale": "1", "augment.crop": "null", "camera_path": "null"}
        typed = " ".join(f"dataset.{name}={off.get(name, '0')}" for name in changing)
        raise ValueError(
            "model.backbone.cache=true keeps one set of features per frame and one per mirrored"
            f" frame, but {shown} would change the image each time; type {typed}, or"
            " model.backbone.cache=false"
        )


def _refuse_unlabelled(sequences: list[Video], key: str) -> None:
    """A forgotten gt folder would otherwise be trained on as frames without objects."""
    if unlabelled := [s.name for s in sequences if not s.labelled]:
        raise FileNotFoundError(
            f"{sequences[0].folder.parent}: {len(unlabelled)} of {len(sequences)} sequences of"
            f" {key} have no {sequences[0].label_file}, first {unlabelled[0]}. Type"
            f" {key}=SPLIT with labelled sequences"
        )


def _share(sequences: list[Video]) -> list[Video]:
    """Every world-size-th sequence, from this process's rank on."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return sequences[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
    return sequences
