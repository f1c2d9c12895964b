"""The data module: any source of videos, training clips and streaming validation.

Lightning's samplers are not used. The training loader orders itself by (seed, epoch)
and can be resumed at any batch; the validation loader gives each process whole sequences, so that a
tracker can stream and raw counts can simply be added up (``use_distributed_sampler: false``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from scene_track.data.batch import SceneBatch
from scene_track.data.box_clips import BoxClips, BoxStream, MixedClips
from scene_track.data.clips import ClipDataset, StreamDataset
from scene_track.data.collate import collate_shared
from scene_track.data.detections import NOISE, TRUTH, BoxVideo, noise_of, read_box_videos
from scene_track.data.feature_store import FeatureSource
from scene_track.data.further import Further
from scene_track.data.resumable_loader import ResumableLoader, WatchedLoader
from scene_track.data.stills import CameraPath
from scene_track.data.transforms import ClipAugment
from scene_track.data.video import Source, Video
from scene_track.data.visibility import balanced_weights, count_visibility

log = logging.getLogger(__name__)

_METADATA = "metadata"
_FRAMES = "frames"
_FEATURES = "features"


class Window:
    """How training clips are cut from sequences."""

    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=1, le=1000)],
        stride: Annotated[int, Field(ge=1, le=100_000)],
        max_interval: Annotated[int, Field(ge=1, le=1000)],
    ) -> None:
        """Sets the window.

        Args:
            length: frames per clip.
            stride: frames between the starts of windows.
            max_interval: a clip takes every k-th frame, k random from 1 to this.
        """
        self.length = length
        self.stride = stride
        self.max_interval = max_interval


class EvalWindow:
    """How sequences are cut into chunks for streaming."""

    def __init__(self, *, length: Annotated[int, Field(ge=1, le=1000)]) -> None:
        """Sets the frames per chunk, ``length``."""
        self.length = length


class Loader:
    """How batches are made ready."""

    def __init__(
        self,
        *,
        num_workers: Annotated[int, Field(ge=0, le=256)],
        pin_memory: bool,
        persistent_workers: bool,
        prefetch_factor: Annotated[int, Field(ge=1, le=64)],
        drop_last: bool,
    ) -> None:
        """Sets the loader.

        Args:
            num_workers: processes that prepare batches; 0 = the training process itself.
            pin_memory: page-locked batches, for a GPU.
            persistent_workers: keep the processes between epochs.
            prefetch_factor: batches that each process prepares ahead.
            drop_last: leave out a last training batch that is not full.
        """
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.persistent_workers = persistent_workers
        self.prefetch_factor = prefetch_factor
        self.drop_last = drop_last


class TrackingDataModule(LightningDataModule):
    """Training, validation and test data of a tracker."""

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

        Args:
            root: folder of the dataset; caches lie in its ``.cache`` folder unless ``cache_dir``
                is given.
            source: gives sequences per split; see :class:`scene_track.data.video.Source`.
            size: [height, width] of the frames that the model sees, pixels.
            window: how training clips are cut.
            eval_window: how validation and test sequences are cut.
            augment: transforms of training clips.
            loader: how batches are made ready.
            batch_size: training clips per batch and process.
            train: training split: a folder under the root, or sequences such as
                ``ADL-Rundle-6:1-400``.
            val: validation split.
            test: test split; None = there is none.
            base_scale: training frames are resized to this multiple of ``size`` (and so cached)
                before scale jitter cuts into them.
            cache: keep resized frames on disk.
            cache_dir: folder of the caches; None = ``<root>/.cache``.
            on_error: ``raise``, or ``skip`` faulty rows and frames, counted and logged.
            seed: of the order and of every random draw.
            camera_path: makes training clips of still images; None = there are none.
            detections: folder of a detector's files, ``<sequence>.txt``, which the model is given
                in place of images; ``noise`` = ground truth with errors, those of the detector
                whose files other folders have, ``truth`` = without. None = images.
            further: further folders of training videos.
            camera: pairs of boxes that tell a movement of the camera, taken off clips; 0 = never.
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
        splits = needs[stage] if stage is not None else ("train", "val")
        for split in splits:
            self.sequences(split)
            self._boxes(split)
        if "train" in splits:
            self._read_further()

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
            sequences = self.source.sequences(
                where,
                on_error=self.on_error,
                cache_dir=self._cache_folder(_METADATA),
                images=self.detections is None,
            )
            unlabelled = [s.name for s in sequences if not s.labelled]
            if unlabelled and split != "test":
                # A forgotten gt folder would otherwise be trained on as frames without objects.
                raise FileNotFoundError(
                    f"{sequences[0].folder.parent}: {len(unlabelled)} of {len(sequences)} "
                    f"sequences of the {split} split have no {sequences[0].label_file}, "
                    f"first {unlabelled[0]}. "
                    f"Type dataset.{split}=SPLIT with labelled sequences"
                )
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

    def visibility_counts(self, split: str) -> list[int] | None:
        """``[4]`` frames of a split in which the ball is absent, visible, hard to see, occluded.

        :func:`scene_track.data.visibility.balanced_weights` makes weights of them. None where
        targets are boxes.
        """
        points = [s.points for s in self.sequences(split) if s.points is not None]
        return count_visibility(p[:, 2] for p in points).tolist() if points else None

    def train_dataloader(self) -> ResumableLoader:
        """Training batches, shuffled.

        The same loader on every call; Lightning saves its position in checkpoints and gives it
        back.
        """
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
        """The clips of all folders."""
        parts = [self._clips(self.sequences("train"), self._boxes("train"), overfit)]
        if not self.further:
            return parts[0]
        for name in self._read_further():
            parts.append(self._clips(self._sequences[name], self._box_videos.get(name), overfit))
        weights = [1.0, *(folder.weight for folder in self.further)]
        return MixedClips(parts, weights, self.seed, same_every_epoch=overfit)

    def _read_further(self) -> list[str]:
        """Reads the further folders, once; what they are called among the splits."""
        names = [f"further[{place}]" for place in range(len(self.further))]
        for name, folder in zip(names, self.further, strict=True):
            if name not in self._sequences:
                videos = folder.videos(
                    getattr(self.source, "classes", {1: "person"}),
                    detections=self.detections,
                    on_error=self.on_error,
                    cache_dir=self._cache_folder(_METADATA),
                )
                if (source := folder.detections) is not None:
                    self._box_videos[name] = self._with_detections(videos, source, folder.root)
                self._sequences[name] = videos
        return names

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
            return BoxClips(boxes, camera=self.camera, **windows)
        return ClipDataset(
            videos,
            size=self.size,
            base_scale=self.base_scale,
            cache_dir=self._cache_folder(_FRAMES) if self.cache else None,
            on_error=self.on_error,
            features=self.features,
            camera=self.camera_path,
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
        """Where features of frames are kept.

        Raises:
            ValueError: there is no folder that can be written to.
        """
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


def _share(sequences: Sequence[Video]) -> list[Video]:
    """Every world-size-th sequence, from this process's rank on."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return list(sequences)[rank::world]
    return list(sequences)
