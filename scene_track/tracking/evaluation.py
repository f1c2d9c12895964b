"""What an evaluator is to the module that trains, and how processes put their counts together."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from scene_track.data.batch import SceneBatch
from scene_track.tracking.inference import ReadDetections
from scene_track.tracking.split_report import SplitReport

_Part = TypeVar("_Part")


class Evaluator(Protocol):
    """Takes the streamed windows of whole sequences, counts, and says what came out."""

    LOGS: ClassVar[tuple[str, ...]]
    """Names of the metrics that it logs, and ``val/loss``: the pre-flight check reads them from the
    source."""

    GIVES: ClassVar[str]
    """What its detections are, ``boxes`` or ``points``; compared with the tracker's ``READS``."""

    report: type[SplitReport]
    """Counts and shows the tracks of a split in ``evaluate``."""

    @property
    def read(self) -> ReadDetections:
        """Turns predictions of a window (B = 1) into detections, frame by frame."""
        ...

    def reset(self) -> None:
        """Forget all counts."""
        ...

    def update(self, model: Any, predictions: Any, batch: SceneBatch) -> None:
        """Take the next window (B = 1) of a sequence."""
        ...

    def compute(self) -> dict[str, float]:
        """Figures over all sequences of all processes, by the last part of their names."""
        ...

    def picture(self) -> NDArray[np.uint8] | None:
        """``[H, W, 3]`` uint8 picture of the epoch; None without frames."""
        ...


def gather_parts(part: _Part) -> list[_Part]:
    """What every process holds, by rank, in every process; in one process only ``part``.

    A collective: every process must call it equally often, also one without anything to give.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [part]
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
