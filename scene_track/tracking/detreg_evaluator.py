"""Evaluation of pretraining without labels: which of the proposed regions the decoder finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch

from scene_track.data.batch import SceneBatch
from scene_track.data.video import Video
from scene_track.models.boxes import pairwise_iou
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.evaluation import gather_parts
from scene_track.tracking.evaluator import SceneEvaluator


class DetregEvaluator(SceneEvaluator):
    """``SceneEvaluator`` plus ``recall_regions``: the share of regions with a box of IoU >= 0.5."""

    LOGS: ClassVar[tuple[str, ...]] = (
        *SceneEvaluator.LOGS,
        "val/recall_regions",
        "val/embedding",  # a loss of the criterion
    )

    def reset(self, videos: Iterable[Video] = ()) -> None:
        """Forget all counts."""
        super().reset(videos)
        self._found = torch.zeros(2, dtype=torch.float64)  # regions that have a box, all regions

    @torch.no_grad()
    def update(self, model: SceneModel, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """See ``SceneEvaluator.update``; every query counts, however unsure."""
        super().update(model, predictions, batch)
        best = pairwise_iou(batch.boxes[0], predictions.boxes[0].float()).amax(-1)
        real = batch.valid[0] & ~batch.padding_mask[0].unsqueeze(-1)
        found = torch.stack(((best >= 0.5) & real, real)).sum((1, 2))
        self._found += found.double().cpu()

    def compute(self) -> dict[str, float]:
        """Figures over all images of all processes."""
        metrics = super().compute()
        found, regions = torch.stack(gather_parts(self._found)).sum(0).tolist()
        return metrics | {"recall_regions": found / regions if regions else 0.0}
