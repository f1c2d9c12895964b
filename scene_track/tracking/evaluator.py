"""Evaluation of people while a scene model trains: tracks, and average precision by source.

Boxes are compared in the pixels of the original images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.data.boxes import to_pixels
from scene_track.data.video import Video
from scene_track.metrics.detection import DetectionCounts, count_detections, detection_metrics
from scene_track.metrics.tracking import TrackingCounts, tracking_metrics
from scene_track.models.boxes import nms_keep
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.evaluation import Evaluator, gather_parts
from scene_track.tracking.inference import (
    SequenceTracks,
    video_of,
    window_detections,
)
from scene_track.tracking.scene_report import SceneReport
from scene_track.tracking.tracker import Detections, TrackedFrame, Tracker, VideoInfo
from scene_track.viz.scene import SceneVisualiser

_TRACKING = {
    "hota": "HOTA",
    "deta": "DetA",
    "assa": "AssA",
    "loca": "LocA",
    "idf1": "IDF1",
    "mota": "MOTA",
}

# Average precision of the decoder, of decoder + NMS and of the dense proposals + NMS: the three
# that tell a fault of the boxes from duplicate queries from a weak decoder.
_SOURCES = ("", "_nms", "_dense")


@dataclass(frozen=True)
class _Shown:
    """A frame that waits for its tracks to be drawn."""

    image: NDArray[np.uint8]
    true_boxes: NDArray[np.float64]
    true_ids: NDArray[np.int64]


class TrackEvaluator(Evaluator[_Shown]):
    """Streams detections of boxes through the tracker and counts the tracks; draws nothing."""

    GIVES: ClassVar[str] = "boxes"
    LOGS: ClassVar[tuple[str, ...]] = (*(f"val/{name}" for name in _TRACKING), "val/loss")

    read = staticmethod(window_detections)
    report = SceneReport

    def figures(self, total: TrackingCounts) -> dict[str, float]:
        """See ``Evaluator.figures``; 0-1 (``mota`` may be below 0)."""
        figures = tracking_metrics(total)
        return {short: float(figures[name]) for short, name in _TRACKING.items()}


class SceneEvaluator(TrackEvaluator):
    """``TrackEvaluator`` plus average precision, and images of some frames."""

    LOGS: ClassVar[tuple[str, ...]] = (
        *TrackEvaluator.LOGS,
        *(f"val/{figure}{source}" for source in _SOURCES for figure in ("ap50", "ap75")),
    )

    def __init__(
        self,
        *,
        tracker: Tracker,
        visualiser: SceneVisualiser,
        num_classes: Annotated[int, Field(ge=1)],
        nms_iou: Annotated[float, Field(gt=0, le=1)],
        dense_candidates: Annotated[int, Field(ge=1)],
    ) -> None:
        """Store the parts. Options: see ``conf/head/bbox.yaml``."""
        self.num_classes, self.nms_iou = num_classes, nms_iou
        self.dense_candidates = dense_candidates
        super().__init__(tracker=tracker, visualiser=visualiser)

    def reset(self, videos: Iterable[Video] = ()) -> None:
        """See ``Evaluator.reset``."""
        super().reset(videos)
        # By video and source, of each frame [N, 6]: cxcywh 0-1, score, label.
        self._detected: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
        self._precision: dict[str, dict[str, DetectionCounts]] = {}

    @torch.no_grad()
    def update(self, model: SceneModel, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """See ``Evaluator.update``."""
        self._collect(predictions, batch)
        super().update(model, predictions, batch)

    def show(
        self, predictions: ScenePredictions, batch: SceneBatch, t: int, detections: Detections
    ) -> _Shown | None:
        """See ``Evaluator.show``."""
        # Features may stand for the images; without a visualiser the copy is spared.
        if not (self.visualiser.max_frames and batch.frames.numel()):
            return None
        assert detections.true_boxes is not None and detections.true_ids is not None
        return _Shown(
            batch.frames[0, t].permute(1, 2, 0).cpu().numpy(),
            detections.true_boxes.double().cpu().numpy(),
            detections.true_ids.cpu().numpy(),
        )

    def draw(self, video: VideoInfo, tracks: TrackedFrame, shown: _Shown) -> None:
        """See ``Evaluator.draw``."""
        self.visualiser.add_frame(
            shown.image,
            (tracks.boxes, tracks.ids, tracks.scores),
            (shown.true_boxes, shown.true_ids),
            f"{video.name} frame {tracks.frame}",
        )

    def finished(self, video: Video, tracks: SequenceTracks) -> None:
        """See ``Evaluator.finished``; average precision looks at the same ground truth."""
        super().finished(video, tracks)
        rows = [video.rows(int(np.searchsorted(video.frames, f))) for f in tracks.frames.tolist()]
        self._precision[video.name] = {
            name: count_detections(
                [video.table.boxes[row] for row in rows],
                [to_pixels(frame[:, :4], video.info.size) for frame in found],
                [frame[:, 4] for frame in found],
                gt_labels=[video.labels[row] for row in rows],
                pred_labels=[frame[:, 5] for frame in found],
                num_classes=self.num_classes,
            )
            for name, found in self._detected.pop(video.name).items()
        }

    def figures(self, total: TrackingCounts) -> dict[str, float]:
        """See ``Evaluator.figures``."""
        metrics = super().figures(total)
        parts = [item for part in gather_parts(self._precision) for item in part.items()]
        parts.sort(key=lambda item: item[0])
        for name in _SOURCES:
            counts = (by_source[name] for _, by_source in parts)
            precision = detection_metrics(sum(counts, DetectionCounts.zero(self.num_classes)))
            metrics[f"ap50{name}"] = precision["AP50"]
            metrics[f"ap75{name}"] = precision["AP75"]
        return metrics

    def _collect(self, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """Keep the detections of the three sources of a window, copied to the host at once."""
        detected = self._detected.setdefault(video_of(batch).name, {name: [] for name in _SOURCES})
        sources = self._sources(predictions)
        ends = np.cumsum([found.shape[1] for found in sources])[:-1]
        tables = np.split(torch.cat(sources, dim=1).cpu().numpy(), ends, axis=1)
        for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
            for name, table in zip(_SOURCES, tables, strict=True):
                detected[name].append(table[t, table[t, :, 6] > 0, :6])

    def _sources(self, predictions: ScenePredictions) -> list[Tensor]:
        """``[T, N, 7]`` of each of ``_SOURCES``: cxcywh, score, label and whether it counts."""
        boxes, scores = predictions.boxes[0].float(), predictions.exist_conf[0, :, :, 0].float()
        labels = predictions.cls_logits[0].argmax(-1)
        order = scores.argsort(dim=1, descending=True)
        boxes = boxes.gather(1, order.unsqueeze(-1).expand_as(boxes))
        scores, labels = scores.gather(1, order), labels.gather(1, order)
        kept = nms_keep(boxes, self.nms_iou)
        heat = predictions.dense.heat_logits[0].float().sigmoid()
        best, label = heat.max(dim=1)
        count = min(self.dense_candidates, best[0].numel())
        dense_scores, cells = best.flatten(1).topk(count, dim=1)
        dense = predictions.dense.boxes[0].float().flatten(2).transpose(1, 2)
        dense = dense.gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))
        dense_labels = label.flatten(1).gather(1, cells)

        def table(boxes: Tensor, *columns: Tensor) -> Tensor:
            return torch.cat((boxes.double(), torch.stack(columns, dim=-1).double()), dim=-1)

        return [
            table(boxes, scores, labels, torch.ones_like(kept)),
            table(boxes, scores, labels, kept),
            table(dense, dense_scores, dense_labels, nms_keep(dense, self.nms_iou)),
        ]
