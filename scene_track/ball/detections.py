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
from scene_track.tracking.tracker import Detections


@dataclass(kw_only=True)
class PeakFinder:
    """Reads the hottest peaks out of the heatmaps of a window; see ``find_peaks``.

    Attributes:
        count: peaks per frame.
        refine: where in the hottest cell the ball is.
        radius: cells; no two peaks are this close, and a soft-arg-max looks no farther.
    """

    count: Annotated[int, Field(ge=1, le=100)]
    refine: Refinement
    radius: Annotated[int, Field(ge=1, le=32)]

    def __call__(
        self, model: ClipModel, predictions: HeatmapPredictions, batch: SceneBatch
    ) -> Iterator[tuple[int, Detections]]:
        """The peaks of each frame of one window (B = 1), padding left out.

        Yields:
            Position of the frame in the window, and its peaks, hottest first; the heat is the
            score.
        """
        places, heat = find_peaks(
            predictions.heatmap_logits[0, :, 0], self.count, refine=self.refine, radius=self.radius
        )
        # Copied to the host once per window: what follows is a handful of numbers per frame.
        places, heat = places.cpu(), heat.cpu()
        valid, true_boxes, true_ids = (
            field[0].cpu() for field in (batch.valid, batch.boxes, batch.track_ids)
        )
        boxes = torch.cat((places, torch.zeros_like(places)), dim=-1)
        labels = torch.zeros(heat.shape[-1], dtype=torch.long)
        clock = batch.seconds[0].tolist()
        numbers = batch.frame_indices[0].tolist()
        for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
            yield (
                t,
                Detections(
                    frame=numbers[t],
                    seconds=clock[t],
                    boxes=boxes[t],
                    scores=heat[t],
                    labels=labels,
                    true_boxes=true_boxes[t, valid[t]],
                    true_ids=true_ids[t, valid[t]],
                ),
            )
