"""What was found in one frame of a video, in its pixels: what the Python API gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_track.data.targets import PIXEL_CENTRE
from scene_track.viz.boxes import draw_boxes


@dataclass(frozen=True, eq=False)
class FrameTracks:
    """What was found in one frame.

    Pixels are those of the video as a player shows it; 0 is the outer edge of the first one.

    Attributes:
        number: of the frame, from 1.
        seconds: since the first frame of the video.
        ids: ``[N]`` int64 identities; -1 where nobody is told apart (``Run.detect``).
        rectangles: ``[N, 4]`` float64 left, top, width, height in pixels, as in MOTChallenge files.
            A ball has width and height 0.
        scores: ``[N]`` float64 existence, 0-1.
        labels: ``[N]`` int64 class indices, see ``Run.class_names``.
        image: ``[H, W, 3]`` uint8 RGB.
    """

    number: int
    seconds: float
    ids: NDArray[np.int64]
    rectangles: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    image: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """``[N, 4]`` left, top, right, bottom in pixels."""
        return np.concatenate(
            (self.rectangles[:, :2], self.rectangles[:, :2] + self.rectangles[:, 2:]), axis=1
        )

    @property
    def points(self) -> NDArray[np.float64]:
        """``[N, 2]`` x, y of the middle of each box; an integer is the centre of a pixel."""
        return self.rectangles[:, :2] + self.rectangles[:, 2:] / 2 - PIXEL_CENTRE

    @property
    def canvas_boxes(self) -> NDArray[np.float64]:
        """``[N, 4]`` cxcywh, 0-1 of the image."""
        scale = np.array(self.image.shape[1::-1] * 2, dtype=np.float64)
        middle = self.rectangles[:, :2] + self.rectangles[:, 2:] / 2
        return np.concatenate((middle, self.rectangles[:, 2:]), axis=1) / scale

    def draw(self) -> NDArray[np.uint8]:
        """``[H, W, 3]`` uint8 RGB: the image with boxes and identities."""
        return draw_boxes(self.image, self.canvas_boxes, self.ids)

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``.

        Raises:
            ModuleNotFoundError: the package ``supervision`` is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_supervision() needs the package supervision: type pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels,
            tracker_id=self.ids,
        )
