"""A heatmap's peaks as detections: boxes without extent, which any tracker of balls understands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from scene_track.ball.peaks import Refinement, find_peaks
from scene_track.data.batch import SceneBatch
from scene_track.models.clip_model import ClipModel
from scene_track.models.predictions import HeatmapPredictions
from scene_track.tracking.inference import by_frame
from scene_track.tracking.tracker import Detections


@dataclass(kw_only=True)
class PeakFinder:
    """Reads the hottest peaks out of the heatmaps of a window; see ``find_peaks``."""

    count: Annotated[int, Field(ge=1, le=100)]
    refine: Refinement
    radius: Annotated[int, Field(ge=1, le=32)]

    def __call__(
        self, model: ClipModel, predictions: HeatmapPredictions, batch: SceneBatch
    ) -> Iterator[tuple[int, Detections]]:
        """The peaks of each frame, hottest first, the heat as score; see ``by_frame``."""
        places, heat = find_peaks(
            predictions.heatmap_logits[0, :, 0], self.count, refine=self.refine, radius=self.radius
        )
        # Copied to the host once per window: what follows is a handful of numbers per frame.
        places, heat = places.cpu(), heat.cpu()
        boxes = torch.cat((places, torch.zeros_like(places)), dim=-1)
        return by_frame(batch, boxes, heat, torch.zeros(heat.shape, dtype=torch.long))
