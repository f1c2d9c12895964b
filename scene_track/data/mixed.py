"""What ``dataset=mixed`` is made of; see :mod:`scene_track.data.parts`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from scene_track.data.module import TrackingDataModule
from scene_track.data.parts import MixedSource, Part

__all__ = ["MixedDataModule", "MixedSource", "Part"]


class MixedDataModule(TrackingDataModule):
    """As any dataset; weights are shares of ``clips_per_epoch``, not multiples of windows."""

    def __init__(self, *, clips_per_epoch: Annotated[int, Field(ge=1)], **rest: Any) -> None:
        """Describes the data."""
        super().__init__(**rest)
        self.clips_per_epoch = clips_per_epoch
