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
        """Describes the data.

        Raises:
            ValueError: ``further`` or ``detections`` is given.
        """
        super().__init__(**rest)
        if self.further or self.detections is not None:
            raise ValueError(
                "dataset=mixed reads images of dataset.source.parts alone: type dataset.further=[]"
                " and dataset.detections=null, and name further folders as parts"
            )
        self.clips_per_epoch = clips_per_epoch
