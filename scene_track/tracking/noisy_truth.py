"""The ground truth as a detector of known error rates would report it.

A tracker that is given these boxes is judged apart from any detector: how far does association come
with boxes that are this good? Everything random follows from the seed and a sequence's name, so a
sequence gets the same noise in whatever company and order it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scene_track.data.video import Video
from scene_track.tracking.tracker import Detections, VideoInfo

# Beta distributions that the scores are drawn from. They overlap as those of a real detector do: of
# the true boxes 1 in 7 is below 0.67, of the false ones 1 in 7 above.
_TRUE_SCORE, _FALSE_SCORE = (8.0, 2.0), (4.0, 4.0)


@dataclass(frozen=True)
class Noise:
    """Error rates of a detector.

    Attributes:
        misses: probability that a true box is not reported, 0-1.
        jitter: standard deviation of the centre in widths and heights, and of the logarithms of
            width and height.
        false_positives: mean number of boxes per frame that are on nobody (Poisson).
    """

    misses: float = 0.05
    jitter: float = 0.05
    false_positives: float = 0.2

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a rate is out of its range.
        """
        if not 0 <= self.misses <= 1:
            raise ValueError(f"misses={self.misses}: expected a probability, 0-1")
        for name in ("jitter", "false_positives"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number >= 0")

    @property
    def exact(self) -> bool:
        """Whether there is none: every box is reported as it is, with score 1."""
        return not (self.misses or self.jitter or self.false_positives)

    def __str__(self) -> str:
        if self.exact:
            return "exact"
        return (
            f"{self.misses:.0%} missed, {self.jitter:.0%} jitter,"
            f" {self.false_positives:g} false a frame"
        )


EXACT = Noise(misses=0.0, jitter=0.0, false_positives=0.0)


def truth_as_detections(
    sequences: Iterable[Video], noise: Noise, *, seed: int
) -> Iterator[tuple[VideoInfo, Detections]]:
    """Every frame of the sequences, in the form of ``detect_videos``.

    Args:
        sequences: with ground truth.
        noise: how good the detector is.
        seed: >= 0, another one, other errors.

    Yields:
        VideoInfo and detections, without identity tokens; the exact ground truth goes with them.

    Raises:
        ValueError: a sequence has no ground truth.
    """
    for sequence in sequences:
        if not sequence.labelled:
            raise ValueError(
                f"{sequence.name} has no gt/gt.txt: detections made of ground truth need it"
            )
        info = sequence.info
        video = VideoInfo(sequence.name, float(info.frame_rate), info.height, info.width)
        scale = np.array((video.width, video.height, video.width, video.height), dtype=np.float64)
        corner = sequence.table.boxes / scale
        boxes = np.concatenate((corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]), axis=1)
        random = np.random.default_rng((seed, zlib.crc32(sequence.name.encode())))
        for position, frame in enumerate(sequence.frames.tolist()):
            rows = sequence.rows(position)
            seen, scores, labels = _observe(
                boxes[rows], sequence.labels[rows], boxes, noise, random
            )
            yield (
                video,
                Detections(
                    frame=frame,
                    seconds=frame / video.frame_rate,
                    boxes=torch.from_numpy(seen).float(),
                    scores=torch.from_numpy(scores).float(),
                    labels=torch.from_numpy(labels),
                    true_boxes=torch.from_numpy(boxes[rows]).float(),
                    true_ids=torch.from_numpy(sequence.table.ids[rows]),
                ),
            )


def _observe(
    true: NDArray[np.float64],
    labels: NDArray[np.int64],
    of_video: NDArray[np.float64],
    noise: Noise,
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes, scores and labels that are reported of one frame.

    Args:
        true: ``[N, 4]`` cxcywh 0-1 in this frame.
        labels: ``[N]``.
        of_video: ``[R, 4]`` all true boxes of the video, which lend false ones their size.
        noise: error rates.
        random: draws.
    """
    if noise.exact:
        return true, np.ones(len(true)), labels
    found = random.random(len(true)) >= noise.misses
    boxes, labels = true[found], labels[found]
    shift, growth = noise.jitter * random.standard_normal((2, len(boxes), 2))
    boxes = np.concatenate(
        (boxes[:, :2] + shift * boxes[:, 2:], boxes[:, 2:] * np.exp(growth)), axis=1
    )
    count = int(random.poisson(noise.false_positives)) if len(of_video) else 0
    sizes = of_video[random.integers(len(of_video), size=count), 2:] if count else boxes[:0, 2:]
    # Inside the picture, as far as a box of this size fits.
    room = np.clip(1 - sizes, 0, None)
    false = np.concatenate((0.5 + (random.random((count, 2)) - 0.5) * room, sizes), axis=1)
    scores = np.concatenate(
        (random.beta(*_TRUE_SCORE, len(boxes)), random.beta(*_FALSE_SCORE, count))
    )
    return (
        np.concatenate((boxes, false)),
        scores,
        np.concatenate((labels, np.zeros(count, dtype=np.int64))),
    )
