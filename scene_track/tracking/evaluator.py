"""Evaluation of people while a scene model trains: tracks, and average precision by source.

Boxes are compared in the pixels of the original images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.data.video import Video
from scene_track.metrics.detection import DetectionCounts, count_detections, detection_metrics
from scene_track.metrics.tracking import TrackingCounts, tracking_metrics
from scene_track.models.boxes import nms_keep
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.evaluation import Evaluator, Window, gather_parts
from scene_track.tracking.inference import (
    SequenceTracks,
    to_pixels,
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


def tracking_figures(total: TrackingCounts) -> dict[str, float]:
    """The logged figures of tracks, by short name, 0-1 (``mota`` may be below 0)."""
    figures = tracking_metrics(total)
    return {short: float(figures[name]) for short, name in _TRACKING.items()}


@dataclass
class _Detected:
    """What one source detected in a video, frame by frame, in pixels."""

    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidates:
    """Boxes ``[T, N, 4]``, scores and labels ``[T, N]``, and which of them count."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor


@dataclass(frozen=True)
class _Shown:
    """A frame that waits for its tracks to be drawn."""

    image: NDArray[np.uint8]
    true_boxes: NDArray[np.float64]
    true_ids: NDArray[np.int64]


class SceneEvaluator(Evaluator[_Shown]):
    """Streams predictions through the tracker and counts."""

    GIVES: ClassVar[str] = "boxes"

    LOGS: ClassVar[tuple[str, ...]] = (
        "val/hota",
        "val/deta",
        "val/assa",
        "val/loca",
        "val/idf1",
        "val/mota",
        "val/ap50",
        "val/ap75",
        "val/ap50_nms",
        "val/ap75_nms",
        "val/ap50_dense",
        "val/ap75_dense",
        "val/loss",
    )

    read = staticmethod(window_detections)
    report = SceneReport

    def __init__(
        self,
        *,
        tracker: Tracker,
        visualiser: SceneVisualiser,
        num_classes: Annotated[int, Field(ge=1)],
        nms_iou: Annotated[float, Field(gt=0, le=1)],
        dense_candidates: Annotated[int, Field(ge=1)],
    ) -> None:
        """Store the parts.

        Args:
            tracker: turns detections into tracks.
            visualiser: collects frames for the image of the epoch.
            num_classes: C; average precision is the mean over classes.
            nms_iou: overlap of the NMS in ``*_nms`` and ``*_dense``.
            dense_candidates: hottest cells that count as dense detections.
        """
        self.num_classes, self.nms_iou = num_classes, nms_iou
        self.dense_candidates = dense_candidates
        super().__init__(tracker=tracker, visualiser=visualiser)

    def reset(self, videos: Iterable[Video] = ()) -> None:
        """See ``Evaluator.reset``."""
        super().reset(videos)
        self._detected: dict[str, dict[str, _Detected]] = {}  # by video, by source
        self._precision: dict[str, dict[str, DetectionCounts]] = {}

    @torch.no_grad()
    def update(self, model: SceneModel, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """See ``Evaluator.update``."""
        self._collect(predictions, batch, video_of(batch))
        super().update(model, predictions, batch)

    def show(self, window: Window, t: int, detections: Detections) -> _Shown | None:
        """See ``Evaluator.show``."""
        frames = window.batch.frames
        # Features may stand for the images; without a visualiser the copy is spared.
        if not (self.visualiser.max_frames and frames.numel()):
            return None
        assert detections.true_boxes is not None and detections.true_ids is not None
        return _Shown(
            frames[0, t].permute(1, 2, 0).cpu().numpy(),
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
                detected.boxes,
                detected.scores,
                gt_labels=[video.labels[row] for row in rows],
                pred_labels=detected.labels,
                num_classes=self.num_classes,
            )
            for name, detected in self._detected.pop(video.name).items()
        }

    def figures(self, total: TrackingCounts) -> dict[str, float]:
        """See ``Evaluator.figures``."""
        metrics = tracking_figures(total)
        parts = [item for part in gather_parts(self._precision) for item in part.items()]
        parts.sort(key=lambda item: item[0])
        for name in _SOURCES:
            counts = (by_source[name] for _, by_source in parts)
            precision = detection_metrics(sum(counts, DetectionCounts.zero(self.num_classes)))
            metrics[f"ap50{name}"] = precision["AP50"]
            metrics[f"ap75{name}"] = precision["AP75"]
        return metrics

    def _collect(self, predictions: ScenePredictions, batch: SceneBatch, video: VideoInfo) -> None:
        """Keep the detections of the three sources of a window."""
        size = (video.height, video.width)
        detected = self._detected.setdefault(video.name, {name: _Detected() for name in _SOURCES})
        sources = self._sources(predictions)
        for t in torch.nonzero(~batch.padding_mask[0]).flatten().tolist():
            for name, found in sources.items():
                kept, into = found.kept[t], detected[name]
                into.boxes.append(to_pixels(found.boxes[t, kept].double().cpu().numpy(), size))
                into.scores.append(found.scores[t, kept].double().cpu().numpy())
                into.labels.append(found.labels[t, kept].cpu().numpy())

    def _sources(self, predictions: ScenePredictions) -> dict[str, _Candidates]:
        """Detections of the decoder, of the decoder after NMS, and of the dense proposals."""
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
        return {
            "": _Candidates(boxes, scores, labels, torch.ones_like(kept)),
            "_nms": _Candidates(boxes, scores, labels, kept),
            "_dense": _Candidates(dense, dense_scores, dense_labels, nms_keep(dense, self.nms_iou)),
        }
