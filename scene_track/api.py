"""The trained tracker as a Python object: ``scene_track.load(RUN)``, then ``run.track(VIDEO)``.

``python -m scene_track.predict`` is made of this. Frames are read by a thread of their own while
the model works, and nothing here grows with the length of a video.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from numpy.typing import ArrayLike
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from scene_track.config.shipped import option_values
from scene_track.config.trained import checked_group
from scene_track.data.batch import SceneBatch
from scene_track.data.boxes import to_relative
from scene_track.data.detections import read_detections
from scene_track.data.footage import Footage, FootageFrame, open_footage, read_rgb
from scene_track.data.frame_store import resize_frame
from scene_track.data.mot_files import BoxTable
from scene_track.data.seqinfo import SequenceInfo
from scene_track.io.background import Clock, close, read_ahead
from scene_track.models.clip_model import ClipModel
from scene_track.tracking.evaluation import Evaluator
from scene_track.tracking.frame_tracks import FrameTracks as FrameTracks
from scene_track.tracking.inference import Association, detect_videos, to_pixels
from scene_track.tracking.tracker import TrackedFrame
from scene_track.training.checkpointing import resolve_checkpoint
from scene_track.training.precision import autocast_type
from scene_track.training.trained_run import (
    evaluator_node,
    load_model,
    precision_of,
    refuse_other_tracker,
)

_LONGEST = 8  # frames of a window where the model sees no images
_AHEAD = 2  # windows that are read while the model works on another one


@dataclass
class Speeds:
    """Where the time of a video went.

    Attributes:
        frames: that were tracked.
        reading: decoding and resizing, beside the model.
        model: the move to the device and the model.
        tracking: association.
    """

    frames: int = 0
    reading: Clock = field(default_factory=Clock)
    model: Clock = field(default_factory=Clock)
    tracking: Clock = field(default_factory=Clock)


@dataclass(frozen=True, eq=False)
class Run:
    """A checkpoint that is ready to track; ``scene_track.load`` makes it.

    Attributes:
        checkpoint: the file.
        model: in evaluation mode on ``device``: called with one window of frames, its times and
            the state that the window before has left; gives predictions and the next state.
        config: of the training run.
        evaluator: of the training run; turns predictions into detections.
        tracker: configuration of the tracker, with its ``_target_``.
        size: (height, width) of the images that the model sees.
        window: frames that go through the model together.
        class_names: by label index; empty where the run does not say.
        device: where the model is.
        autocast: type in which it works; float32 = as it is.
        trusted: module prefixes besides ours from which a class may be built.
    """

    checkpoint: Path
    model: ClipModel
    config: DictConfig
    evaluator: Evaluator
    tracker: DictConfig
    size: tuple[int, int]
    window: int
    class_names: tuple[str, ...]
    device: torch.device
    autocast: torch.dtype
    trusted: tuple[str, ...] = ()

    @property
    def of_a_ball(self) -> bool:
        """Whether it finds one ball, a point, and not boxes."""
        return self.evaluator.GIVES == "points"

    def with_tracker(self, tracker: str | DictConfig) -> Run:
        """The same run with another tracker.

        Args:
            tracker: an option of ``conf/tracker`` such as ``"bytetrack"``, or a configuration.

        Raises:
            FileNotFoundError: there is no such option.
            ValueError: it does not fit the code, or reads something else than the run gives.
        """
        if isinstance(tracker, str):
            tracker = OmegaConf.create(option_values("tracker", tracker))
        node = checked_group(
            OmegaConf.create({"tracker": tracker}),
            "tracker",
            source="tracker",
            trusted=self.trusted,
        )
        evaluator = evaluator_node(self.config, self.checkpoint, self.trusted)
        refuse_other_tracker(node, evaluator, self.checkpoint)
        return replace(self, tracker=node)

    def track(
        self,
        source: str | int | Path | Iterable[ArrayLike],
        fps: float | None = None,
        tracker: str | DictConfig | None = None,
        detections: str | Path | None = None,
    ) -> Iterator[FrameTracks]:
        """Track a video, frame by frame.

        A tracker that looks ahead (``tracker.lookahead``) gives each frame so much later.

        Args:
            source: a video file, a folder or a glob of images, a sequence folder, the number of a
                camera, the address of a stream, or RGB arrays ``[H, W, 3]`` uint8.
            fps: frames per second, in place of the times that the source states; must be given for
                images and arrays.
            tracker: see ``with_tracker``; None = that of the run.
            detections: file of any detector's boxes for a run of ``model=association``, which
                detects nothing: ``frame,-1,left,top,width,height,score``, in pixels.

        Yields:
            Every frame, those without anybody included.

        Raises:
            FileNotFoundError: there is no such source.
            ValueError: it is no video, or tracker, detections and model do not fit.

        Example:
            >>> import scene_track
            >>> run = scene_track.load("outputs/runs/dance")
            >>> for frame in run.track("video.mp4"):
            ...     assert len(frame.ids) == len(frame.boxes) == len(frame.scores)
            >>> frame.number, round(frame.seconds, 2)
            (10, 0.45)

            Frames may come from anywhere:

            >>> import numpy as np
            >>> noise = (np.zeros((64, 96, 3), np.uint8) for _ in range(3))
            >>> [frame.number for frame in run.track(noise, fps=30)]
            [1, 2, 3]
        """
        run = self if tracker is None else self.with_tracker(tracker)
        # A caller's own generator is not moved to another thread.
        ahead = isinstance(source, str | int | Path)
        return run.follow(open_footage(source, fps), ahead=ahead, detections=detections)

    @torch.inference_mode()
    def detect(
        self,
        images: Iterable[ArrayLike | str | Path],
        score: float = 0.5,
        duplicate_iou: float = 0.8,
    ) -> Iterator[FrameTracks]:
        """Detect in images that have nothing to do with each other.

        Args:
            images: ``[H, W, 3]`` uint8 RGB each, of any size, or image files.
            score: detections up to this existence are left out, 0-1.
            duplicate_iou: of two that overlap by more, the less sure one is left out, 0-1.

        Yields:
            Of every image its detections, surest first.

        Example:
            >>> import numpy as np, scene_track
            >>> run = scene_track.load("outputs/runs/dance")
            >>> (found,) = run.detect([np.zeros((64, 96, 3), np.uint8)], score=0.99)
            >>> len(found)
            0
        """
        frames: deque[FootageFrame] = deque()

        def windows() -> Iterator[SceneBatch]:
            for number, given in enumerate(images, start=1):
                image = read_rgb(given) if isinstance(given, str | Path) else given
                shown = next(open_footage([image], fps=1.0).frames)
                frames.append(replace(shown, number=number))
                height, width = shown.image.shape[:2]
                footage = Footage(f"image {number}", 1.0, height, width, 1, False, iter(()))
                yield self._window([(frames[-1], self._fit(frames[-1]))], footage, 1, None)

        self._check_input(None)
        for video, detections in self._detect(windows()):
            kept = detections.distinct(score, duplicate_iou)
            tracks = TrackedFrame(
                frame=kept.frame,
                ids=np.full(len(kept.scores), -1, dtype=np.int64),
                boxes=kept.boxes.double().cpu().numpy(),
                scores=kept.scores.double().cpu().numpy(),
                labels=kept.labels.cpu().numpy(),
            )
            yield _result(frames.popleft(), tracks, (video.height, video.width))

    @torch.inference_mode()
    def follow(
        self,
        footage: Footage,
        *,
        ahead: bool = True,
        detections: str | Path | None = None,
        speeds: Speeds | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[FrameTracks]:
        """Track footage that is open; see ``track``.

        Args:
            footage: its frames are taken, and its file is closed at the end.
            ahead: read it in a thread of its own.
            detections: see ``track``.
            speeds: counts where the time goes.
            stop: once set, no further frame is read: the tracks end there.
        """
        self._check_input(detections)
        tracker = instantiate(self.tracker)
        if tracker.needs_truth:
            raise ValueError(
                f"{type(tracker).__name__} needs ground truth, which a video has not: type"
                " tracker=identity or tracker=bytetrack"
            )
        boxes = None if detections is None else _boxes_of(Path(detections), footage)
        speeds, size = speeds or Speeds(), (footage.height, footage.width)
        # Windows of boxes are long, and the images of a video are kept until they are drawn.
        window = min(self.window, _LONGEST) if self._reads_detections else self.window
        length = 1 if footage.live else window

        def read() -> Iterator[tuple[FootageFrame, Tensor]]:
            try:
                for frame in footage.frames:
                    yield frame, self._fit(frame)
            finally:
                close(footage.frames)

        items = speeds.reading.timed(read())
        if ahead:
            items = read_ahead(items, _AHEAD * length, stop=stop, newest=footage.live)
        waiting: deque[FootageFrame] = deque()
        ready: deque[FrameTracks] = deque()

        def windows() -> Iterator[SceneBatch]:
            part: list[tuple[FootageFrame, Tensor]] = []
            for item in items:
                waiting.append(item[0])
                part.append(item)
                if len(part) == length:
                    yield self._window(part, footage, length, boxes)
                    part = []
            if part:
                yield self._window(part, footage, length, boxes)

        association = Association(
            tracker,
            self.model.identity,
            lambda _, tracks, frame: ready.append(_result(frame, tracks, size)),
            collect=False,
        )
        try:
            for video, found in self._detect(windows()):
                speeds.frames += 1
                speeds.model.busy_s += found.compute_s
                started = time.perf_counter()
                association.push(video, found, waiting.popleft())
                speeds.tracking.busy_s += time.perf_counter() - started
                while ready:
                    yield ready.popleft()
            association.finish()
            while ready:
                yield ready.popleft()
        finally:
            close(items)

    def _check_input(self, detections: str | Path | None) -> None:
        """Refuse a file of detections for a model that detects, and its absence for one without."""
        if self._reads_detections == (detections is not None):
            return
        if self._reads_detections:
            raise ValueError(
                f"{self.checkpoint} is of model=association, which detects nothing: type"
                " detections=FILE with rows frame,-1,left,top,width,height,score"
            )
        raise ValueError(
            f"{self.checkpoint} detects by itself: type detections=null, or a checkpoint of"
            " model=association"
        )

    @property
    def _reads_detections(self) -> bool:
        return self.model.READS == "detections"

    def _fit(self, frame: FootageFrame) -> Tensor:
        """``[3, h, w]`` uint8 as the model sees it; without pixels if it sees detections."""
        if self._reads_detections:
            return torch.zeros(3, 0, 0, dtype=torch.uint8)
        return resize_frame(torch.from_numpy(frame.image).permute(2, 0, 1), self.size)

    def _window(
        self,
        items: list[tuple[FootageFrame, Tensor]],
        footage: Footage,
        length: int,
        boxes: BoxTable | None,
    ) -> SceneBatch:
        # In training the first frame has the number 1, and so the time of one frame.
        first = 1 / footage.frame_rate
        numbers = [frame.number for frame, _ in items]
        size = (footage.height, footage.width)
        return SceneBatch.unlabelled(
            torch.stack([image for _, image in items]),
            numbers,
            [frame.seconds + first for frame, _ in items],
            name=footage.name,
            frame_rate=footage.frame_rate,
            size=size,
            length=length,
            detections=None if boxes is None else [_given(boxes.at(n), size) for n in numbers],
        )

    def _detect(self, windows: Iterable[SceneBatch]) -> Iterator[Any]:
        return detect_videos(
            self.model,
            windows,
            device=self.device,
            precision=self.autocast,
            read=self.evaluator.read,
        )


def _boxes_of(file: Path, footage: Footage) -> BoxTable:
    """Detections of a video from a file."""
    info = SequenceInfo(
        name=footage.name,
        image_dir="",
        frame_rate=footage.frame_rate,
        length=2**31,  # the header of a video may lie
        width=footage.width,
        height=footage.height,
        extension="",
    )
    return read_detections(file, info)


def _given(rows: BoxTable, size: tuple[int, int]) -> Tensor:
    """``[Q, 5]`` float32 cxcywh, 0-1, and score of one frame."""
    given = np.concatenate((to_relative(rows.boxes, size), rows.confidence[:, None]), axis=1)
    return torch.from_numpy(given.astype(np.float32))


def _result(frame: FootageFrame, tracks: TrackedFrame, size: tuple[int, int]) -> FrameTracks:
    return FrameTracks(
        number=frame.number,
        seconds=frame.seconds,
        ids=tracks.ids,
        rectangles=to_pixels(tracks.boxes, size),
        scores=tracks.scores,
        labels=tracks.labels,
        image=frame.image,
    )


def class_names_of(source: DictConfig) -> tuple[str, ...]:
    """Class names of a configured source by label index; the data need not be there."""
    parts = source.get("parts")
    if parts is not None:  # of dataset=mixed; equal names are one class
        own = [class_names_of(part.source) for part in parts.values() if part is not None]
        return tuple(dict.fromkeys(name for names in own for name in names))
    classes = source.get("classes")
    if classes is not None:
        return tuple(map(str, classes.values() if isinstance(classes, DictConfig) else classes))
    if source.get("class_name") is not None:
        return (str(source.class_name),)
    # Of other data the class of the source says it, if it is one of ours.
    target = str(source.get("_target_"))
    names = (
        getattr(get_class(target), "class_names", ()) if target.startswith("scene_track.") else ()
    )
    return names if isinstance(names, tuple) else ()


def load(
    checkpoint: str | Path,
    tracker: str | DictConfig | None = None,
    *,
    device: str | torch.device | None = None,
    trusted: Iterable[str] = (),
) -> Run:
    """Load a trained tracker.

    Args:
        checkpoint: run folder (its best checkpoint) or ``.ckpt``.
        tracker: see ``Run.with_tracker``; None = that of the run.
        device: such as ``"cpu"``; None = the GPU if there is one.
        trusted: module prefixes besides ours from which a class may be built.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it does not fit the code.

    Example:
        >>> import scene_track
        >>> run = scene_track.load("outputs/runs/dance", tracker="identity")
        >>> run.class_names
        ('dancer',)
    """
    path, prefixes = resolve_checkpoint(checkpoint, prefer="best"), tuple(trusted)
    model, config = load_model(path, prefixes)
    evaluator = evaluator_node(config, path, prefixes)
    own = checked_group(config, "tracker", source=str(path), trusted=prefixes)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    height, width = config.dataset.size
    run = Run(
        checkpoint=path,
        model=model.to(where, memory_format=torch.channels_last),  # type: ignore[call-overload]
        config=config,
        evaluator=instantiate(evaluator),
        tracker=own,
        size=(int(height), int(width)),
        window=int(config.dataset.eval_window.length),
        class_names=class_names_of(config.dataset.source),
        device=where,
        autocast=autocast_type(precision_of(config, where)),
        trusted=prefixes,
    )
    return run if tracker is None else run.with_tracker(tracker)
