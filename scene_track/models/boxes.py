"""Box arithmetic whose gradients survive degenerate boxes.

All boxes are cxcywh, 0-1 of the canvas, unless a name says xyxy. Two choices are special. Ratios of
areas divide by the plain area instead of ``area + eps``: an epsilon of 1e-6 costs two *identical*
10-pixel boxes of a 1000-pixel image a GIoU loss of 0.01, a bias that small objects never train
away. And where an area vanishes the ratio is zero with a bounded gradient, so that a collapsed box
hurts nobody. Half-precision inputs are computed in float32, float64 stays float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Areas below this (the square of a thousandth of a pixel on a 1000-pixel canvas) count as zero.
_NO_AREA = 1e-12


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision raised to float32; everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """``[..., 4]`` (cx, cy, w, h) to (left, top, right, bottom), in the same unit."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """``[..., 4]`` (left, top, right, bottom) to (cx, cy, w, h), in the same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of ``x``, finite everywhere.

    Args:
        x: any shape; values outside 0-1 are clamped.
        eps: distance kept from 0 and 1; the answer lies within ``±log(1 / eps)``.

    Returns:
        Same shape, float32 for half-precision input.
    """
    x = at_least_float32(x).clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def _ratio(part: Tensor, whole: Tensor, eps: float) -> Tensor:
    """``part / (whole + eps)``; with ``eps=0``, bounded gradient where the whole vanishes."""
    if eps > 0:
        return part / (whole + eps)
    something = whole > _NO_AREA
    # `where` inside: a division by zero in a branch not taken would still put NaN in the gradient.
    return torch.where(something, part, 0.0) / torch.where(something, whole, 1.0)


def _area(extent: Tensor) -> Tensor:
    """Area of ``[..., 2]`` (width, height); negative extents have none."""
    width, height = extent.clamp(min=0).unbind(-1)
    return width * height  # not prod(): its backward is slower and looks for zeros


def _iou_terms(first: Tensor, second: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU, union and the two sets of corners of broadcastable cxcywh boxes.

    Areas are taken from the corners, never from w * h: the intersection of a box with itself is
    then its area to the last bit, and its IoU exactly 1.
    """
    a = cxcywh_to_xyxy(at_least_float32(first))
    b = cxcywh_to_xyxy(at_least_float32(second))
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = _area(overlap)
    union = _area(a[..., 2:] - a[..., :2]) + _area(b[..., 2:] - b[..., :2]) - intersection
    return _ratio(intersection, union, eps), union, a, b


def elementwise_iou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """IoU of broadcastable boxes, one by one.

    Args:
        first: ``[..., 4]`` cxcywh.
        second: ``[..., 4]`` cxcywh, broadcastable to ``first``.
        eps: added to the denominator; 0 divides exactly and gives 0 for boxes without area.

    Returns:
        ``[...]`` in 0-1.
    """
    return _iou_terms(first, second, eps)[0]


def elementwise_giou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of broadcastable boxes, one by one.

    Args:
        first: ``[..., 4]`` cxcywh.
        second: ``[..., 4]`` cxcywh, broadcastable to ``first``.
        eps: added to the denominators; 0 divides exactly, so identical boxes give 1 however small.

    Returns:
        ``[...]`` in -1-1.
    """
    iou, union, a, b = _iou_terms(first, second, eps)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull_area = _area(hull)
    return iou - _ratio(hull_area - union, hull_area, eps)


def pairwise_iou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """IoU of all pairs: ``[..., A, 4]`` and ``[..., B, 4]`` cxcywh to ``[..., A, B]`` in 0-1."""
    return elementwise_iou(first[..., :, None, :], second[..., None, :, :], eps)


def pairwise_giou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """GIoU of all pairs: ``[..., A, 4]`` and ``[..., B, 4]`` cxcywh to ``[..., A, B]`` in -1-1."""
    return elementwise_giou(first[..., :, None, :], second[..., None, :, :], eps)


@torch.no_grad()
def nms_keep(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Exact greedy non-maximum suppression of many images at once, without leaving the device.

    Greedy suppression is the only fixed point of ``keep_i = no j < i with keep_j and IoU_ij >
    threshold``. Repeating that line settles one more link of the longest chain of suppressions each
    time: a handful of rounds in practice, K at most.

    Args:
        boxes: ``[N, K, 4]`` cxcywh, sorted by descending score along K. Memory is ``N * K * K``:
            meant for K up to about 300.
        iou_threshold: a box goes if a better, kept one overlaps it by *more* than this.

    Returns:
        ``[N, K]`` bool, True = kept.
    """
    n, k = boxes.shape[:2]
    keep = torch.ones(n, k, dtype=torch.bool, device=boxes.device)
    if keep.numel() == 0:
        return keep
    better = torch.ones(k, k, dtype=torch.bool, device=boxes.device).tril(-1)  # [i, j]: j before i
    suppressed = (pairwise_iou(boxes, boxes) > iou_threshold) & better
    # On an accelerator, looking costs more (it waits for the device) than the rounds it saves; in
    # an exported graph every round is written out.
    looks = boxes.device.type == "cpu" and not torch.compiler.is_exporting()
    if looks and not suppressed.any():
        return keep
    suppresses = suppressed.float()
    for _ in range(k):
        # Counts the kept, better, overlapping boxes; only "none" matters: exact in any precision.
        settled = torch.matmul(suppresses, keep.unsqueeze(-1).float()).squeeze(-1) == 0
        if looks and torch.equal(settled, keep):
            break
        keep = settled
    return keep
