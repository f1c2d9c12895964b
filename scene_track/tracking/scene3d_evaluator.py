"""Evaluation of the 3-D head: tracking as ever, and the error of positions in metres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment

from scene_track.data.batch import SceneBatch
from scene_track.data.video import Video
from scene_track.models.boxes import pairwise_iou
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.evaluation import gather_parts
from scene_track.tracking.evaluator import SceneEvaluator


class Scene3dEvaluator(SceneEvaluator):
    """``SceneEvaluator`` plus ``xyz_error`` (mean, metres) and ``xyz_found`` (share of objects)."""

    LOGS: ClassVar[tuple[str, ...]] = (*SceneEvaluator.LOGS, "val/xyz_error", "val/xyz_found")

    def reset(self, videos: Iterable[Video] = ()) -> None:
        """Forget all counts."""
        super().reset(videos)
        # Sum of errors, matched objects, all objects with a known position.
        self._xyz = torch.zeros(3, dtype=torch.float64)

    @torch.no_grad()
    def update(self, model: SceneModel, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """See ``SceneEvaluator.update``; objects are matched to sure queries by IoU >= 0.5."""
        super().update(model, predictions, batch)
        if batch.xyz is None:
            return
        for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
            known = batch.valid[0, t] & batch.xyz[0, t].isfinite().all(-1)
            sure = predictions.exist_conf[0, t, :, 0] >= 0.5
            overlap = pairwise_iou(batch.boxes[0, t, known], predictions.boxes[0, t, sure].float())
            rows, columns = linear_sum_assignment(-overlap.cpu().numpy())
            good = overlap[rows, columns] >= 0.5
            wanted = batch.xyz[0, t, known][rows]
            answer = predictions.extras["player_xyz"][0, t, sure][columns]
            error = (answer - wanted).norm(dim=-1)[good].double()
            self._xyz += torch.tensor((error.sum(), good.sum(), known.sum()), dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Figures over all sequences of all processes."""
        metrics = super().compute()
        error, found, objects = torch.stack(gather_parts(self._xyz)).sum(0).tolist()
        return metrics | {
            # Without a single match there is no error to speak of: infinitely far.
            "xyz_error": error / found if found else float("inf"),
            "xyz_found": found / objects if objects else 0.0,
        }
