"""Elementwise losses, unreduced on purpose.

Every function answers one number per element, zero where ``mask`` is False, and leaves sum and
division to the criterion: only it knows the count over all accumulated batches and all processes.
Half precision is raised to float32 first, and no operation here is one that autocast would lower
again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scene_track.models.boxes import at_least_float32, cxcywh_to_xyxy, elementwise_giou


def _masked(loss: Tensor, mask: Tensor | None) -> Tensor:
    return loss if mask is None else torch.where(mask, loss, 0.0)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``[B, T, M, C]`` of ``values [B, T, N, C]`` at ``index [B, T, M]``, each below N."""
    return values.gather(2, index.unsqueeze(-1).expand(*index.shape, values.shape[-1]))


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss of independent binary decisions (Lin et al., ICCV 2017).

    Args:
        logits: ``[...]`` raw scores.
        targets: ``[...]`` 0-1, the same shape as ``logits``.
        mask: bool, broadcastable to ``[...]``, True = counts; None = everything counts.
        alpha: weight of positives, 1 - alpha that of negatives, 0-1; below 0 both weigh 1.
        gamma: how fast easy examples fade, 0 or at least 1; 0 is cross entropy.

    Returns:
        ``[...]`` losses >= 0, at least float32.
    """
    logits = at_least_float32(logits)
    targets = targets.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    missing = probability + targets - 2 * probability * targets  # 1 - probability of the truth
    loss = cross_entropy * missing**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return _masked(loss, mask)


def heatmap_focal_loss(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = 4.0,
) -> Tensor:
    """Penalty-reduced pixel-wise focal loss (CornerNet, ECCV 2018, eq. 1; CenterNet eq. 1).

    Cells whose target is exactly 1 are positives; all others are negatives that count the less the
    closer they are to a peak. Papers divide the sum by the number of objects.

    Args:
        logits: ``[..., h, w]`` raw scores.
        target: ``[..., h, w]`` 0-1, peaks exactly 1 (see ``draw_center_heatmap``).
        mask: bool, broadcastable to ``[..., h, w]``, True = counts.
        alpha: focusing exponent, at least 1.
        beta: exponent of the reduced penalty around peaks.

    Returns:
        ``[..., h, w]`` losses >= 0, at least float32.
    """
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    probability = logits.sigmoid()
    # logsigmoid instead of log(sigmoid + eps): no epsilon to choose, exact when sure.
    positive = -F.logsigmoid(logits) * (1 - probability) ** alpha
    negative = -F.logsigmoid(-logits) * probability**alpha * (1 - target) ** beta
    loss = torch.where(target >= 1, positive, negative)
    return _masked(loss, mask)


@torch.no_grad()
def draw_center_heatmap(
    boxes: Tensor,
    labels: Tensor,
    valid: Tensor,
    num_classes: int,
    height: int,
    width: int,
    sigma_fraction: float = 0.1,
    min_sigma: float = 0.5,
) -> Tensor:
    """Heatmaps of object centres: one anisotropic Gaussian per object, the maximum where they meet.

    Each Gaussian stands on the *cell* that holds the centre, so its peak is exactly 1; where the
    centre lies within the cell is the box regression's affair. Drawn on the device of ``boxes``,
    all at once.

    Args:
        boxes: ``[N, M, 4]`` cxcywh, 0-1 of the canvas; centres outside fall on the border cell.
        labels: ``[N, M]`` int64 class indices below ``num_classes``; ignored where not valid.
        valid: ``[N, M]`` bool, True = a real object.
        num_classes: C.
        height: rows h of the heatmap.
        width: columns w of the heatmap.
        sigma_fraction: standard deviation as a share of the box's width and height.
        min_sigma: smallest standard deviation in cells.

    Returns:
        ``[N, C, h, w]`` float32 in 0-1.
    """
    n, m = boxes.shape[:2]
    boxes = boxes.float()
    scale = boxes.new_tensor((width, height))
    last_cell = scale - 1
    cell = (boxes[..., :2] * scale).floor().clamp(min=0).minimum(last_cell)  # [N, M, 2]
    sigma = (boxes[..., 2:] * scale * sigma_fraction).clamp(min=min_sigma)

    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype) - cell[..., :1]
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype) - cell[..., 1:]
    across = torch.exp(-0.5 * (columns / sigma[..., :1]) ** 2)  # [N, M, w]
    down = torch.exp(-0.5 * (rows / sigma[..., 1:]) ** 2) * valid.unsqueeze(-1)  # [N, M, h]
    bumps = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(2)  # [N, M, h * w]

    channel = labels.masked_fill(~valid, 0).unsqueeze(-1).expand(n, m, height * width)
    heat = boxes.new_zeros(n, num_classes, height * width)
    return heat.scatter_reduce_(1, channel, bumps, "amax").view(n, num_classes, height, width)


@torch.no_grad()
def mostly_inside(boxes: Tensor, regions: Tensor, mask: Tensor) -> Tensor:
    """Whether at least half of a box lies in one of the regions, as COCO matches crowd regions.

    Args:
        boxes: ``[..., Q, 4]`` cxcywh, 0-1 of the canvas.
        regions: ``[..., M, 4]`` cxcywh.
        mask: ``[..., M]`` bool, True = a region.

    Returns:
        ``[..., Q]`` bool.
    """
    a = cxcywh_to_xyxy(at_least_float32(boxes)).unsqueeze(-2)
    b = cxcywh_to_xyxy(at_least_float32(regions)).unsqueeze(-3)
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    width, height = overlap.clamp(min=0).unbind(-1)
    box_width, box_height = (a[..., 2:] - a[..., :2]).unbind(-1)
    inside = (width * height >= 0.5 * box_width * box_height) & (overlap > 0).all(-1)
    return (inside & mask.unsqueeze(-2)).any(-1)


@torch.no_grad()
def cells_inside(regions: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """The cells of a map whose centre lies in one of the regions.

    Args:
        regions: ``[N, M, 4]`` cxcywh, 0-1 of the canvas.
        mask: ``[N, M]`` bool, True = a region.
        height: rows h of the map.
        width: columns w of the map.

    Returns:
        ``[N, h, w]`` bool.
    """
    corners = cxcywh_to_xyxy(regions.float())
    x = (torch.arange(width, device=regions.device) + 0.5) / width
    y = (torch.arange(height, device=regions.device) + 0.5) / height
    across = (x >= corners[..., :1]) & (x < corners[..., 2:3])  # [N, M, w]
    down = (y >= corners[..., 1:2]) & (y < corners[..., 3:]) & mask.unsqueeze(-1)  # [N, M, h]
    return torch.bmm(down.float().transpose(1, 2), across.float()) > 0


def quality_focal_loss(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """Focal loss towards a target between 0 and 1 (Li et al., NeurIPS 2020, eq. 4).

    Zero where the value is the target, so a heatmap trained with it takes the Gaussian's shape, and
    a parabola through the logarithms of its peak finds the centre to a fraction of a cell.

    Args:
        logits: ``[...]`` raw scores.
        target: ``[...]`` 0-1.
        mask: bool, broadcastable to ``[...]``, True = counts.
        gamma: how fast cells near their target fade, at least 1.

    Returns:
        ``[...]`` losses >= 0, at least float32.
    """
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _masked(cross_entropy * (logits.sigmoid() - target).abs() ** gamma, mask)


def heatmap_mse_loss(logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared difference of the values.

    Args:
        logits: ``[...]`` raw scores.
        target: ``[...]`` 0-1.
        mask: bool, broadcastable to ``[...]``, True = counts.

    Returns:
        ``[...]`` in 0-1, at least float32.
    """
    return _masked((at_least_float32(logits).sigmoid() - target) ** 2, mask)


@torch.no_grad()
def draw_point_heatmap(
    points: Tensor, peaks: Tensor, height: int, width: int, *, sigma: float
) -> Tensor:
    """Heatmaps of points: a round Gaussian around each, the maximum where they meet.

    The Gaussian is centred on the *point*, not on the cell that holds it, so its largest cell is
    below 1 and tells, with its neighbours, where in the cell the point lies. Cell i of n has its
    centre at (i + 0.5) / n. Drawn on the device of ``points``, all at once.

    Args:
        points: ``[N, M, 2]`` x, y in 0-1 of the canvas; outside of it the rest of the bump remains.
        peaks: ``[N, M]`` 0-1, or bool: height of each Gaussian; 0 = no point.
        height: rows Hh of the heatmap.
        width: columns Wh of the heatmap.
        sigma: standard deviation, cells.

    Returns:
        ``[N, Hh, Wh]`` float32 in 0-1.
    """
    place = points.float() * points.new_tensor((width, height), dtype=torch.float32) - 0.5
    columns = torch.arange(width, device=points.device) - place[..., :1]
    rows = torch.arange(height, device=points.device) - place[..., 1:]
    across = torch.exp(-0.5 * (columns / sigma) ** 2)  # [N, M, Wh]
    down = torch.exp(-0.5 * (rows / sigma) ** 2) * peaks.unsqueeze(-1)  # [N, M, Hh]
    return (down.unsqueeze(-1) * across.unsqueeze(-2)).amax(dim=1)


def box_l1(boxes: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum of the absolute differences of the four coordinates.

    Args:
        boxes: ``[..., 4]`` cxcywh, 0-1 of the canvas.
        targets: ``[..., 4]`` cxcywh.
        mask: ``[...]`` bool, True = counts.

    Returns:
        ``[...]`` in 0-4, at least float32.
    """
    return _masked((at_least_float32(boxes) - at_least_float32(targets)).abs().sum(-1), mask)


def box_giou(boxes: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 - generalised IoU, box by box; exactly 0 for identical boxes however small.

    Args:
        boxes: ``[..., 4]`` cxcywh, 0-1 of the canvas.
        targets: ``[..., 4]`` cxcywh.
        mask: ``[...]`` bool, True = counts.

    Returns:
        ``[...]`` in 0-2, at least float32.
    """
    return _masked(1 - elementwise_giou(boxes, targets), mask)
