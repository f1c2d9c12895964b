"""Whole-sequence evaluation of a scene model while it trains.

Windows of a sequence arrive in order; each frame goes through the tracker once. A finished sequence
is turned into raw counts, counts add up over sequences and over processes, and only at the end do
they become figures. Boxes are compared in the pixels of the original footage.

Counts are added in the order of the sequences' names, whoever counted them: average precision ranks
equal scores in the order in which they come, so several processes would otherwise differ from one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from scene_track.data.batch import SceneBatch
from scene_track.metrics.detection import DetectionCounts, count_detections, detection_metrics
from scene_track.metrics.sequence import TrackingSequence
from scene_track.metrics.tracking import TrackingCounts, count_tracking, tracking_metrics
from scene_track.models.boxes import nms_keep
from scene_track.models.predictions import ScenePredictions
from scene_track.models.scene import SceneModel
from scene_track.tracking.evaluation import gather_parts
from scene_track.tracking.inference import to_pixels, video_of, window_detections
from scene_track.tracking.scene_report import SceneReport
from scene_track.tracking.tracker import TrackedFrame, Tracker, VideoInfo
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
class _Counted:
    """Raw counts of a finished sequence."""

    name: str
    tracking: TrackingCounts
    detections: dict[str, DetectionCounts]  # by source


@dataclass
class _Detections:
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)


@dataclass
class _Waiting:
    image: NDArray[np.uint8] | None  # None where no picture is drawn
    true_boxes: NDArray[np.float64]
    true_ids: NDArray[np.int64]
    frame: int


@dataclass
class _OpenSequence:
    video: VideoInfo
    gt_labels: list[NDArray[np.int64]] = field(default_factory=list)
    gt_ids: list[NDArray[np.int64]] = field(default_factory=list)
    gt_boxes: list[NDArray[np.float64]] = field(default_factory=list)
    # Of the frames that the tracker still holds back, oldest first.
    waiting: deque[_Waiting] = field(default_factory=deque)
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    detections: dict[str, _Detections] = field(
        default_factory=lambda: {name: _Detections() for name in _SOURCES}
    )


class SceneEvaluator:
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
        num_classes: Annotated[int, Field(ge=1)] = 1,
        nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.7,
        dense_candidates: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        """Store the parts.

        Args:
            tracker: turns detections into tracks.
            visualiser: collects frames for the epoch's picture.
            num_classes: C; average precision is the mean over classes.
            nms_iou: overlap of the NMS in ``*_nms`` and ``*_dense``.
            dense_candidates: hottest cells that count as dense detections.
        """
        self.tracker, self.visualiser = tracker, visualiser
        self.num_classes, self.nms_iou = num_classes, nms_iou
        self.dense_candidates = dense_candidates
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._open: _OpenSequence | None = None
        self._counted: list[_Counted] = []
        self.visualiser.reset()

    @torch.no_grad()
    def update(self, model: SceneModel, predictions: ScenePredictions, batch: SceneBatch) -> None:
        """Take the next window (B = 1) of a sequence.

        Args:
            model: the model that predicted; its pointer head assigns identities.
            predictions: of the window.
            batch: the window, with ground truth where there is some.

        Raises:
            ValueError: more than one clip in the batch, or a tracker that needs a pointer head
                that the model has not.
        """
        video = video_of(batch)
        if self._open is None or self._open.video != video:
            self._close()
            self._open = _OpenSequence(video)
            self.tracker.start(video, model.identity)
        self._collect_detections(predictions, batch, (video.height, video.width))
        # The pointer head is trained in float32 and runs so in ``evaluate``: Lightning's autocast,
        # in which a validation step runs, would assign other identities than it does there.
        with torch.autocast(batch.frames.device.type, enabled=False):
            for t, detections in self.read(model, predictions, batch):
                assert detections.true_boxes is not None and detections.true_ids is not None
                waiting = _Waiting(
                    image=batch.frames[0, t].permute(1, 2, 0).cpu().numpy()
                    if self.visualiser.max_frames  # spares the copy
                    and batch.frames.numel()  # features may stand for the pictures
                    else None,
                    true_boxes=detections.true_boxes.double().cpu().numpy(),
                    true_ids=detections.true_ids.cpu().numpy(),
                    frame=detections.frame,
                )
                self._open.gt_ids.append(waiting.true_ids)
                self._open.waiting.append(waiting)
                self._take(self.tracker.update(detections))

    def _take(self, frames: list[TrackedFrame]) -> None:
        """Keep the frames that the tracker has let go, in order, and offer them as pictures."""
        assert self._open is not None
        video = self._open.video
        for tracks in frames:
            waiting = self._open.waiting.popleft()
            assert waiting.frame == tracks.frame, "a tracker returns every frame once, in order"
            self._open.ids.append(tracks.ids)
            self._open.boxes.append(to_pixels(tracks.boxes, (video.height, video.width)))
            if waiting.image is not None:
                self.visualiser.add_frame(
                    waiting.image,
                    (tracks.boxes, tracks.ids, tracks.scores),
                    (waiting.true_boxes, waiting.true_ids),
                    f"{video.name} frame {tracks.frame}",
                )

    def _collect_detections(
        self, predictions: ScenePredictions, batch: SceneBatch, size: tuple[int, int]
    ) -> None:
        """Keep the detections of the three sources, and the ground truth, of a window."""
        boxes, scores = predictions.boxes[0].float(), predictions.exist_conf[0, :, :, 0].float()
        labels = predictions.cls_logits[0].argmax(-1)
        frames = torch.nonzero(~batch.padding_mask[0]).flatten().tolist()
        order = scores.argsort(dim=1, descending=True)
        sorted_boxes = boxes.gather(1, order.unsqueeze(-1).expand_as(boxes))
        kept = nms_keep(sorted_boxes, self.nms_iou)
        sorted_scores, sorted_labels = scores.gather(1, order), labels.gather(1, order)
        heat = predictions.dense.heat_logits[0].float().sigmoid()
        best, label = heat.max(dim=1)
        count = min(self.dense_candidates, best[0].numel())
        dense_scores, cells = best.flatten(1).topk(count, dim=1)
        dense_boxes = predictions.dense.boxes[0].float().flatten(2).transpose(1, 2)
        dense_boxes = dense_boxes.gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))
        dense_labels = label.flatten(1).gather(1, cells)
        dense_kept = nms_keep(dense_boxes, self.nms_iou)
        everything = torch.ones_like(kept)
        sources = {
            "": (sorted_boxes, sorted_scores, sorted_labels, everything),
            "_nms": (sorted_boxes, sorted_scores, sorted_labels, kept),
            "_dense": (dense_boxes, dense_scores, dense_labels, dense_kept),
        }
        assert self._open is not None
        for t in frames:
            valid = batch.valid[0, t]
            true_boxes = batch.boxes[0, t, valid].double().cpu().numpy()
            self._open.gt_labels.append(batch.labels[0, t, valid].cpu().numpy())
            self._open.gt_boxes.append(to_pixels(true_boxes, size))
            for name, (box, score, klass, keep) in sources.items():
                chosen = keep[t]
                detected = self._open.detections[name]
                detected.boxes.append(to_pixels(box[t, chosen].double().cpu().numpy(), size))
                detected.scores.append(score[t, chosen].double().cpu().numpy())
                detected.labels.append(klass[t, chosen].cpu().numpy())

    def _close(self) -> None:
        """Turn the open sequence into counts."""
        if self._open is None:
            return
        self._take(self.tracker.finish())
        sequence = TrackingSequence.from_frames(
            self._open.gt_ids, self._open.gt_boxes, self._open.ids, self._open.boxes
        )
        detections = {
            name: count_detections(
                self._open.gt_boxes,
                detected.boxes,
                detected.scores,
                gt_labels=self._open.gt_labels,
                pred_labels=detected.labels,
                num_classes=self.num_classes,
            )
            for name, detected in self._open.detections.items()
        }
        self._counted.append(_Counted(self._open.video.name, count_tracking(sequence), detections))
        self._open = None

    def compute(self) -> dict[str, float]:
        """Figures over all sequences of all processes, by short name (``hota``, ``ap50``, ...).

        Every process must call it (see ``gather_parts``), and every one gets the same figures.
        """
        self._close()
        everywhere = [counted for part in gather_parts(self._counted) for counted in part]
        everywhere.sort(key=attrgetter("name"))
        tracking = sum((counted.tracking for counted in everywhere), TrackingCounts.zero())
        figures = tracking_metrics(tracking)
        metrics = {short: float(figures[name]) for short, name in _TRACKING.items()}
        for name in _SOURCES:
            parts = (counted.detections[name] for counted in everywhere)
            precision = detection_metrics(sum(parts, DetectionCounts.zero(self.num_classes)))
            metrics[f"ap50{name}"] = precision["AP50"]
            metrics[f"ap75{name}"] = precision["AP75"]
        return metrics

    def picture(self) -> NDArray[np.uint8] | None:
        """``[H, W, 3]`` uint8 contact sheet of the epoch, None without frames."""
        return self.visualiser.picture() if len(self.visualiser) else None
