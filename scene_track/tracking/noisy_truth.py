"""Ground truth with the errors of ``data/noise.py``, in the form of ``detect_videos``.

Everything random follows from the seed and a video's name, so a video gets the same noise in
whatever company and order it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from scene_track.data.boxes import to_relative
from scene_track.data.noise import Noise, observe
from scene_track.data.video import Video
from scene_track.tracking.tracker import Detections, VideoInfo


def truth_as_detections(
    sequences: Iterable[Video], noise: Noise, *, seed: int
) -> Iterator[tuple[VideoInfo, Detections]]:
    """Every frame of labelled sequences, in the form of ``detect_videos``.

    Detections have no identity tokens; the exact ground truth goes with them.

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
        boxes = to_relative(sequence.table.boxes, info.size)
        random = np.random.default_rng((seed, zlib.crc32(sequence.name.encode())))
        for position, frame in enumerate(sequence.frames.tolist()):
            rows = sequence.rows(position)
            seen = observe(boxes[rows], sequence.labels[rows], boxes, noise, random)
            yield (
                video,
                Detections(
                    frame=frame,
                    seconds=frame / video.frame_rate,
                    boxes=torch.from_numpy(seen.boxes).float(),
                    scores=torch.from_numpy(seen.scores).float(),
                    labels=torch.from_numpy(seen.labels),
                    true_boxes=torch.from_numpy(boxes[rows]).float(),
                    true_ids=torch.from_numpy(sequence.table.ids[rows]),
                ),
            )
