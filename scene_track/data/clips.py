"""Training clips and streaming chunks of videos.

A sample is requested by (epoch, index), and everything random about it follows from (seed, epoch,
index). The order and number of workers, and a resume, change nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scene_track.data.feature_store import FeatureSource, FrameKey
from scene_track.data.frame_store import FrameStore, read_frame
from scene_track.data.images import FrameError
from scene_track.data.resumable_loader import derive_seed
from scene_track.data.samples import Sample, mix
from scene_track.data.stills import CameraPath, as_clip, moved_boxes, render, resolution
from scene_track.data.targets import Objects, read_objects
from scene_track.data.transforms import Clip, ClipAugment
from scene_track.data.video import OnError, Video

log = logging.getLogger(__name__)


@dataclass
class _Read:
    """What was read of some frames.

    Attributes:
        frames: see ``Sample.frames``.
        used: positions of the frames that could be read.
        features: see ``Sample.features``.
    """

    frames: Tensor
    used: list[int]
    features: list[Tensor | FrameKey] | None


def window_starts(count: int, length: int, stride: int) -> list[int]:
    """First positions of windows over ``count`` frames; the last window reaches the end.

    A sequence shorter than ``length`` has one window, which is short.
    """
    if count <= length:
        return [0]
    starts = list(range(0, count - length + 1, stride))
    if starts[-1] + length < count:
        starts.append(count - length)
    return starts


class _Clips:
    """What training and streaming clips share: reading frames and targets at given positions."""

    def __init__(
        self,
        sequences: Sequence[Video],
        *,
        size: tuple[int, int],
        cache_dir: Path | None,
        on_error: OnError,
        features: FeatureSource | None,
    ) -> None:
        self.sequences = list(sequences)
        self.features = features or FeatureSource()
        self.stores = [FrameStore(s, size, cache_dir) for s in self.sequences]
        self.on_error: OnError = on_error
        self.skipped: set[Path] = set()

    def _read(self, number: int, positions: Sequence[int]) -> _Read:
        """The images of some frames of a video, those that could be read."""
        store = self.stores[number]
        frames: list[Tensor] = []
        used: list[int] = []
        for position in positions:
            try:
                frames.append(store.read(position))
            except FrameError as error:
                self._skip(store.sequence.files[position], error)
                continue
            used.append(position)
        if not frames:
            return _Read(torch.zeros(0, 3, *store.size, dtype=torch.uint8), used, None)
        return _Read(torch.stack(frames), used, None)

    def _skip(self, file: Path, error: FrameError) -> None:
        """Log a frame that cannot be read, once; with ``on_error="raise"`` that is the end."""
        if self.on_error == "raise":
            raise FrameError(
                f"{error}; restore it, or type dataset.on_error=skip to go on without"
            ) from None
        if file not in self.skipped:
            self.skipped.add(file)
            log.warning("skipped frame (%d so far): %s", len(self.skipped), error)

    def _look_up(
        self, number: int, positions: Sequence[int], *, mirrored: bool, pictures: bool | None = None
    ) -> _Read:
        """As ``_read``, with features in place of images where they are stored.

        Args:
            number: of the sequence.
            positions: of the frames.
            mirrored: left and right will be exchanged.
            pictures: read the images too: of all frames (True), or of all if the features of one
                are missing (None), or of those alone that have no features (False).
        """
        sequence = self.sequences[number]
        looked = [self.features.look_up(sequence, p, mirrored=mirrored) for p in positions]
        found = {
            p: key if row is None else row for p, (key, row) in zip(positions, looked, strict=True)
        }
        missing = [p for p, entry in found.items() if isinstance(entry, FrameKey)]
        if pictures or (pictures is None and missing):
            read = self._read(number, positions)
            used = read.used
        else:
            read = self._read(number, missing)
            lost = set(missing) - set(read.used)
            used = [p for p in positions if p not in lost]
        return _Read(read.frames, used, [found[p] for p in used])

    def _sample(
        self,
        sequence: Video,
        clip: Clip,
        read: _Read,
        objects: Objects,
        asked: int,
    ) -> Sample:
        used, features = read.used, read.features
        height, width = clip.frames.shape[-2:]
        corners = clip.boxes.as_subclass(Tensor)
        scale = corners.new_tensor((width, height))
        centre = (corners[:, :2] + corners[:, 2:]) / 2 / scale
        extent = (corners[:, 2:] - corners[:, :2]) / scale
        boxes = torch.cat((centre, extent), dim=1)
        keep = clip.keep.split(objects.counts)

        def per_frame(values: Tensor) -> list[Tensor]:
            return [v[k] for v, k in zip(values.split(objects.counts), keep, strict=True)]

        xyz = None
        if objects.xyz is not None:
            places = torch.from_numpy(objects.xyz).float()
            if clip.mirrored:
                places = places * places.new_tensor((-1.0, 1.0, 1.0))
            xyz = per_frame(places)
        return Sample(
            frames=clip.frames.as_subclass(Tensor),
            boxes=per_frame(boxes),
            labels=per_frame(torch.from_numpy(objects.labels)),
            track_ids=per_frame(torch.from_numpy(objects.ids)),
            confidence=per_frame(torch.from_numpy(objects.ids >= 0).float()),
            visibility=objects.visibility_per_frame(clip.keep),
            points=None if sequence.points is None else sequence.points[used],
            xyz=xyz,
            frame_indices=torch.from_numpy(sequence.frames[used or [asked]].copy()),
            sequence=sequence,
            features=features,
        )


class ClipDataset(_Clips):
    """Training clips: interval, direction and looks are random, the same for a whole clip."""

    def __init__(
        self,
        sequences: Sequence[Video],
        *,
        size: tuple[int, int],
        length: int,
        stride: int,
        max_interval: int,
        augment: ClipAugment,
        seed: int,
        base_scale: float = 1.0,
        same_every_epoch: bool = False,
        cache_dir: Path | None = None,
        on_error: OnError = "raise",
        features: FeatureSource | None = None,
        camera_path: CameraPath | None = None,
    ) -> None:
        """Lists the windows.

        Args:
            sequences: the videos.
            size: (height, width) of the clips in pixels.
            length: frames per clip.
            stride: frames between the starts of windows. Each epoch moves every start on by a
                random 0 to stride - 1 frames, so that all frames are seen.
            max_interval: a clip takes every k-th frame, k uniform from 1 to this, less where the
                sequence is too short.
            augment: the transforms.
            seed: of every random draw, with epoch and index.
            base_scale: frames are kept at this multiple of ``size`` before the transforms.
            same_every_epoch: draw for every epoch what epoch 0 draws, to learn a few clips by
                heart.
            cache_dir: folder for resized frames; None = decode every time.
            on_error: ``raise``, or ``skip`` frames that cannot be read: the clip gets shorter.
            features: where features are looked for; None = nowhere.
            camera_path: makes clips of still images; None = there are none.

        Raises:
            ValueError: there are still images and no camera path.
        """
        base = (round(size[0] * base_scale), round(size[1] * base_scale))
        super().__init__(
            sequences, size=base, cache_dir=cache_dir, on_error=on_error, features=features
        )
        self.size = size
        self.length = length
        self.stride = stride
        self.max_interval = max_interval
        self.augment = augment
        self.camera_path = camera_path
        self.seed = seed
        self.same_every_epoch = same_every_epoch
        self.windows = [
            (number, start)
            for number, sequence in enumerate(self.sequences)
            for start in window_starts(len(sequence), length, stride)
        ]
        if camera_path is None and any(s.ignored is not None for s in self.sequences):
            raise ValueError(
                "still images need a camera that makes clips of them: type dataset=coco,"
                " dataset=crowdhuman or dataset=mixed, or give dataset.camera_path"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def positions(self, key: tuple[int, int], generator: torch.Generator) -> list[int]:
        """Positions in its sequence of the frames of a sample, in the order of the clip."""
        number, start = self.windows[key[1]]
        count = len(self.sequences[number])
        length = min(self.length, count)
        most = min(self.max_interval, (count - 1) // (length - 1)) if length > 1 else 1
        interval = int(torch.randint(1, most + 1, (), generator=generator))
        start += int(torch.randint(0, self.stride, (), generator=generator))
        start = min(start, count - 1 - (length - 1) * interval)
        positions = list(range(start, start + (length - 1) * interval + 1, interval))
        return positions[::-1] if self.augment.draw_reversed(generator) else positions

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of an (epoch, index) pair.

        Raises:
            FrameError: with ``on_error="raise"``, for a frame that cannot be read.
        """
        epoch, index = key
        if self.same_every_epoch:
            epoch = 0
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, index))
        sample = self._clip(epoch, index, generator)
        weight = self.augment.draw_mix(generator)
        if weight < 1:
            other = int(torch.randint(0, len(self), (), generator=generator))
            sample = mix(sample, self._clip(epoch, other, generator), weight)
        return self.augment.add_objects(sample, generator)

    def _clip(self, epoch: int, index: int, generator: torch.Generator) -> Sample:
        """One augmented clip; every draw comes from the generator."""
        number, _ = self.windows[index]
        sequence = self.sequences[number]
        if sequence.ignored is not None:
            return self._still(sequence, generator)
        asked = self.positions((epoch, index), generator)
        mirrored = self.augment.will_mirror(generator)
        if self.features.serves(epoch):
            pictures = self.features.pictures
            read = self._look_up(number, asked, mirrored=mirrored, pictures=pictures)
        else:
            read = self._read(number, asked)
        objects = read_objects(sequence, read.used)
        corners = objects.corners(
            sequence.info.size, (read.frames.shape[-2], read.frames.shape[-1])
        )
        clip = Clip.of(read.frames, corners)
        if read.used:
            clip = self.augment(clip, self.size, generator)
            assert clip.mirrored == mirrored, "features would be of the other side"
        else:
            canvas = self.augment.canvas(self.size)
            clip = Clip.of(torch.zeros(0, 3, *canvas, dtype=torch.uint8), corners)
        return self._sample(sequence, clip, read, objects, asked[0])

    def _still(self, still: Video, generator: torch.Generator) -> Sample:
        """A clip that a camera takes of a still image."""
        camera = self.camera_path
        assert camera is not None
        interval = int(torch.randint(1, self.max_interval + 1, (), generator=generator))
        sequence = as_clip(still, self.length, interval, camera.frame_rate)
        image, canvas = still.info.size, self.stores[0].size
        seconds = torch.from_numpy(sequence.frames) / camera.frame_rate
        maps = camera.draw(seconds, image, canvas, generator)
        shrink = resolution(maps)
        size = (max(1, round(image[0] * shrink)), max(1, round(image[1] * shrink)))
        read = self._read_all(sequence, size)
        objects = read_objects(sequence, read.used)
        if not read.used:
            empty = torch.zeros(0, 3, *self.augment.canvas(self.size), dtype=torch.uint8)
            clip = Clip.of(empty, objects.corners(image, canvas))
            return self._sample(sequence, clip, read, objects, 0)
        frame = torch.repeat_interleave(torch.arange(self.length), torch.tensor(objects.counts))
        corners = moved_boxes(maps[frame], torch.from_numpy(objects.boxes)).float()
        frames = render(read.frames, maps, image, canvas)
        frames, seen = camera.occlude(frames, corners, objects.counts, generator)
        clip = self.augment(Clip.of(frames, corners), self.size, generator)
        ignored = torch.from_numpy(objects.ids < 0)
        boxes = clip.boxes.as_subclass(Tensor)
        left = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)  # however little of a region is left
        clip.keep = torch.where(ignored, left, clip.keep & seen)
        return self._sample(sequence, clip, read, objects, 0)

    def _read_all(self, still: Video, size: tuple[int, int]) -> _Read:
        """The one image behind all frames of a clip, ``[3, h, w]``."""
        try:
            return _Read(read_frame(still, 0, size), list(range(len(still))), None)
        except FrameError as error:
            self._skip(still.files[0], error)
            return _Read(torch.zeros(3, 0, 0, dtype=torch.uint8), [], None)


class StreamDataset(_Clips):
    """Whole sequences in order, as consecutive chunks that do not overlap; nothing is random.

    Boxes are as in the file, normalised, also where they reach over the border (values below 0 or
    above 1 at their corners), because this is what the official evaluation scores.
    """

    def __init__(
        self,
        sequences: Sequence[Video],
        *,
        size: tuple[int, int],
        length: int,
        idle: bool = False,
        cache_dir: Path | None = None,
        on_error: OnError = "raise",
        features: FeatureSource | None = None,
    ) -> None:
        """Lists the chunks of ``length`` frames; see ``ClipDataset``.

        ``idle`` gives one chunk without frames instead of the chunks of the sequences.
        """
        super().__init__(
            sequences, size=size, cache_dir=cache_dir, on_error=on_error, features=features
        )
        self.size = size
        self.length = length
        self.idle = idle
        self.chunks = [
            (number, start)
            for number, sequence in enumerate(self.sequences)
            for start in range(0, len(sequence), length)
        ][: 1 if idle else None]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Sample:
        """The chunk with this number.

        Raises:
            FrameError: with ``on_error="raise"``, for a frame that cannot be read.
        """
        number, start = self.chunks[index]
        sequence = self.sequences[number]
        asked = list(range(start, min(start + self.length, len(sequence))))
        if self.features.serves() and not self.idle:
            # The first chunk keeps its images: an evaluator draws them.
            pictures = self.features.pictures or start == 0 or None
            read = self._look_up(number, asked, mirrored=False, pictures=pictures)
        else:
            read = self._read(number, [] if self.idle else asked)
        objects = read_objects(sequence, read.used)
        clip = Clip.of(read.frames, objects.corners(sequence.info.size, self.size))
        return self._sample(sequence, clip, read, objects, asked[0])
