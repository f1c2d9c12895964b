"""The pictures of a run, out of its TensorBoard events."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

_TAG = "val/tracks"


@dataclass(frozen=True)
class Picture:
    """One picture of a validation.

    Attributes:
        step: optimiser steps before it.
        url: the picture itself as a ``data:`` address.
    """

    step: int
    url: str


def pictures(folder: Path) -> list[Picture]:
    """The first and the last picture of a run's validations; none where it drew none."""
    if not any(folder.glob("events.out.tfevents.*")):
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 1})
    events.Reload()
    if _TAG not in events.Tags()["images"]:
        return []
    images = events.Images(_TAG)
    found = [images[0], images[-1]] if len(images) > 1 else images
    return [
        Picture(
            image.step,
            "data:image/png;base64," + base64.b64encode(image.encoded_image_string).decode(),
        )  # fmt: skip
        for image in found
    ]
