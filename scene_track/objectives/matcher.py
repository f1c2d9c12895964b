"""One-to-one matching of queries and targets, without the cross-image cost matrix.

The public reference computes the cost of every query of a batch against every target of the
*batch*, O(B^2), and reads one matrix per image. Here targets are padded, the cost is one batched
``[N, Q, M]`` tensor on the device, and one transfer brings it to the host, where scipy solves each
image. Cost and indices are those of DINO's ``HungarianMatcher`` (Zhang et al., ICLR 2023),
epsilons included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from scene_track.models.boxes import pairwise_giou

# DINO's epsilons. They shift costs (of small boxes visibly), so equal indices need equal epsilons.
_LOG_EPS = 1e-8
_GIOU_EPS = 1e-6
_FOCAL_GAMMA = 2.0

Matches = list[tuple[Tensor, Tensor]]

_Indices = NDArray[np.int64]


class HungarianMatcher(nn.Module):
    """Cheapest one-to-one assignment under class, L1 and GIoU costs.

    Two entrances share one cost: ``match_padded`` for training (padded tensors in and out) and
    ``forward`` with DINO's dictionaries.
    """

    def __init__(
        self,
        cost_class: Annotated[float, Field(ge=0)],
        cost_bbox: Annotated[float, Field(ge=0)],
        cost_giou: Annotated[float, Field(ge=0)],
        focal_alpha: Annotated[float, Field(ge=0, le=1)],
    ) -> None:
        """Set the weights (the signature is DINO's, so positional arguments work as there).

        Options: see ``conf/matcher/hungarian.yaml``.

        Raises:
            ValueError: all three weights are zero, or one is negative.
        """
        super().__init__()
        check_weights(cost_class, cost_bbox, cost_giou)
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox
        self.cost_giou = cost_giou
        self.focal_alpha = focal_alpha

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> Matches:
        """Match a batch given as DINO gives it.

        Args:
            outputs: ``pred_logits [N, Q, C]`` and ``pred_boxes [N, Q, 4]`` (cxcywh, 0-1).
            targets: N dictionaries with ``labels [n]`` (integers below C) and ``boxes [n, 4]``.

        Returns:
            N pairs (query indices, target indices) of int64 on the CPU, min(Q, n) long, queries
            ascending.

        Raises:
            ValueError: shapes or lengths disagree, a label is not below C, or a cost is not finite.
        """
        logits, boxes = check_dictionaries(outputs, targets)
        device = boxes.device
        padded_labels = pad_sequence([t["labels"].long() for t in targets], batch_first=True)
        padded_boxes = pad_sequence([t["boxes"] for t in targets], batch_first=True)
        counts = torch.tensor([len(t["labels"]) for t in targets])
        valid = torch.arange(padded_labels.shape[1]) < counts[:, None]
        solved = self._solve(
            logits, boxes, padded_labels.to(device), padded_boxes.to(device), valid.to(device)
        )
        return [(torch.as_tensor(query), torch.as_tensor(target)) for query, target in solved]

    @torch.no_grad()
    def match_padded(
        self,
        logits: Tensor,
        boxes: Tensor,
        target_labels: Tensor,
        target_boxes: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Match padded frames; stack decoder layers along N to match them all with one transfer.

        Args:
            logits: ``[N, Q, C]``.
            boxes: ``[N, Q, 4]`` cxcywh, 0-1 of the canvas.
            target_labels: ``[N, M]`` int64 below C where valid.
            target_boxes: ``[N, M, 4]`` cxcywh.
            valid: ``[N, M]`` bool, True = a real object.

        Returns:
            ``[N, M]`` int64 on the device of ``boxes``: the query of each target; -1 for padding
            and, where there are more targets than queries, for targets left over.

        Raises:
            ValueError: a valid label is not below C, or a cost is not finite.
        """
        solved = self._solve(logits, boxes, target_labels, target_boxes, valid)
        answer = np.full(tuple(valid.shape), -1, dtype=np.int64)
        for row, (query, target) in zip(answer, solved, strict=True):
            row[target] = query
        return torch.as_tensor(answer).to(boxes.device, non_blocking=True)

    def cost(
        self, logits: Tensor, boxes: Tensor, target_labels: Tensor, target_boxes: Tensor
    ) -> Tensor:
        """Cost of every query against every target of the same frame.

        Args:
            logits: ``[N, Q, C]``.
            boxes: ``[N, Q, 4]`` cxcywh.
            target_labels: ``[N, M]`` int64, 0 to C - 1.
            target_boxes: ``[N, M, 4]`` cxcywh.

        Returns:
            ``[N, Q, M]``, float32 (float64 if the predictions are), also inside autocast.
        """
        precision = torch.promote_types(
            torch.float32, torch.promote_types(logits.dtype, boxes.dtype)
        )
        with torch.autocast(boxes.device.type, enabled=False):
            boxes, target_boxes = boxes.to(precision), target_boxes.to(precision)
            # Gather first: M columns are worth computing, not C.
            columns = target_labels.unsqueeze(1).expand(-1, logits.shape[1], -1)
            probability = logits.to(precision).gather(2, columns).sigmoid()
            positive = -torch.log(probability + _LOG_EPS) * (1 - probability) ** _FOCAL_GAMMA
            negative = -torch.log(1 - probability + _LOG_EPS) * probability**_FOCAL_GAMMA
            focal = self.focal_alpha * positive - (1 - self.focal_alpha) * negative
            distance = torch.cdist(boxes, target_boxes, p=1)
            giou = pairwise_giou(boxes, target_boxes, eps=_GIOU_EPS)
            return self.cost_bbox * distance + self.cost_class * focal - self.cost_giou * giou

    def _solve(
        self,
        logits: Tensor,
        boxes: Tensor,
        target_labels: Tensor,
        target_boxes: Tensor,
        valid: Tensor,
    ) -> list[tuple[_Indices, _Indices]]:
        """Per frame: (query indices ascending, target indices into the padded M)."""
        n, queries, classes = logits.shape
        known = (target_labels >= 0) & (target_labels < classes)
        cost = self.cost(logits, boxes, target_labels.masked_fill(~known, 0), target_boxes)
        # A label out of range cannot raise on a device without waiting for it: it travels as NaN.
        cost = cost.masked_fill(~known.unsqueeze(1), torch.nan)
        # The one transfer to the host; `valid` rides along as an extra row.
        host = torch.cat((cost, valid.unsqueeze(1).to(cost.dtype)), dim=1).cpu().numpy()
        solved: list[tuple[_Indices, _Indices]] = []
        for i in range(n):  # scipy solves one matrix at a time; there is no batched exact solver
            columns = np.flatnonzero(host[i, queries] > 0)
            matrix = host[i, :queries][:, columns]
            if not np.isfinite(matrix).all():
                raise ValueError(
                    _explain(
                        i, logits[i], boxes[i], target_labels[i, columns], target_boxes[i, columns]
                    )
                )
            # scipy has no type stubs
            query, target = optimize.linear_sum_assignment(matrix)  # pyright: ignore
            solved.append((query.astype(np.int64), columns[target].astype(np.int64)))
        return solved


def check_weights(cost_class: float, cost_bbox: float, cost_giou: float) -> None:
    """Refuse weights that match nothing.

    Raises:
        ValueError: a weight is negative, or all are zero.
    """
    weights = {"cost_class": cost_class, "cost_bbox": cost_bbox, "cost_giou": cost_giou}
    if min(weights.values()) < 0 or max(weights.values()) == 0:
        raise ValueError(f"matcher weights are {weights}; expected >= 0 and at least one > 0")


def check_dictionaries(
    outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Check the form of DINO's dictionaries (shapes only, nothing that waits for a device).

    Returns:
        ``pred_logits`` and ``pred_boxes``.

    Raises:
        ValueError: a key is missing, or shapes or lengths disagree.
    """
    for key in ("pred_logits", "pred_boxes"):
        if key not in outputs:
            raise ValueError(f"outputs have keys {sorted(outputs)}; the matcher needs {key!r}")
    logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
    if logits.ndim != 3 or boxes.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(
            f"logits {list(logits.shape)} and boxes {list(boxes.shape)};"
            " expected [N, Q, C] and [N, Q, 4]"
        )
    if len(targets) != logits.shape[0]:
        raise ValueError(
            f"{len(targets)} targets for {logits.shape[0]} images; expected one per image"
        )
    for i, target in enumerate(targets):
        for key in ("labels", "boxes"):
            if key not in target:
                raise ValueError(f"target {i} has keys {sorted(target)}; it needs {key!r}")
        labels, target_boxes = target["labels"], target["boxes"]
        if labels.ndim != 1 or tuple(target_boxes.shape) != (len(labels), 4):
            raise ValueError(
                f"target {i}: labels {list(labels.shape)} and boxes {list(target_boxes.shape)};"
                " expected [n] and [n, 4]"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels are {labels.dtype}; expected integers (torch.int64)")
    return logits, boxes


def _explain(
    image: int, logits: Tensor, boxes: Tensor, target_labels: Tensor, target_boxes: Tensor
) -> str:
    """Name what made the costs of an image useless (slow path, only on the way to an error)."""
    classes = logits.shape[-1]
    wrong = target_labels[(target_labels < 0) | (target_labels >= classes)]
    if wrong.numel():
        return (
            f"image {image} has target label {int(wrong[0])}; the model has {classes} classes, so"
            f" labels must be 0 to {classes - 1}"
        )
    named = {"pred_logits": logits, "pred_boxes": boxes, "target boxes": target_boxes}
    for name, tensor in named.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            return (
                f"image {image}: {bad} of {tensor.numel()} numbers in {name} are NaN or infinite;"
                " the matcher needs finite numbers"
            )
    return f"image {image}: matching costs overflow; the matcher needs boxes within 0-1"
