"""Finds the peaks of heatmaps, to a fraction of a cell.

Positions are 0-1 of the canvas; the centre of cell i of n lies at (i + 0.5) / n. Everything runs on
the device of the heatmap, for all frames at once.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Refinement = Literal["argmax", "parabola", "softargmax"]


def find_peaks(
    logits: Tensor, count: int, *, refine: Refinement = "parabola", radius: int = 3
) -> tuple[Tensor, Tensor]:
    """Finds the hottest local maxima of each heatmap.

    Args:
        logits: ``[N, Hh, Wh]``.
        count: K peaks; missing ones have a score of 0.
        refine: ``argmax`` = the cell's centre; ``parabola`` = the vertex of a parabola through the
            logarithms of the hottest cell and its neighbours, exact for a sampled Gaussian (along
            an axis on which a border cell has but one neighbour, the cell's centre);
            ``softargmax`` = the mean position of the cells within ``radius``, weighted by their
            values.
        radius: cells; two peaks of a map are farther apart than this.

    Returns:
        Positions ``[N, K, 2]`` (x, y; 0-1 of the canvas) and values ``[N, K]`` 0-1, hottest first.
    """
    n, height, width = logits.shape
    # Sigmoid is monotone: the maxima of logits are those of the values, without ties at 1.
    logits = logits.float()
    # Compared by place, not by value: of equal neighbours only the first is a maximum.
    _, hottest = F.max_pool2d(logits[:, None], 2 * radius + 1, 1, radius, return_indices=True)
    here = torch.arange(height * width, device=logits.device).view(height, width)
    candidates = logits.masked_fill(hottest[:, 0] != here, float("-inf"))
    count = min(count, height * width)
    score, index = candidates.flatten(1).topk(count, dim=1)
    x, y = index % width, index // width
    if refine == "argmax":
        offset = torch.zeros(n, count, 2, device=logits.device)
    else:
        offset = (_parabola if refine == "parabola" else _mean)(logits, x, y, radius)
    places = torch.stack((x, y), dim=-1) + 0.5 + offset
    return places / places.new_tensor((width, height)), score.sigmoid()


def expected_position(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Soft-arg-max: the mean position under the softmax of all cells, which has a gradient.

    From Nibali et al., *Numerical Coordinate Regression with CNNs* (2018).

    Args:
        logits: ``[..., Hh, Wh]``.
        temperature: by which the logits are divided; lower = nearer to the arg-max.

    Returns:
        ``[..., 2]`` x, y in 0-1 of the canvas.
    """
    height, width = logits.shape[-2:]
    weights = (logits.float() / temperature).flatten(-2).softmax(-1).unflatten(-1, (height, width))
    across = (torch.arange(width, device=logits.device) + 0.5) / width
    down = (torch.arange(height, device=logits.device) + 0.5) / height
    return torch.stack(((weights.sum(-2) * across).sum(-1), (weights.sum(-1) * down).sum(-1)), -1)


def _parabola(logits: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """``[N, K, 2]`` cells from the hottest cell to the vertex, each within half a cell."""
    # A parabola needs both neighbours: an axis that lacks one gets the cell's centre.
    height, width = logits.shape[-2:]
    inside = torch.stack(((x > 0) & (x < width - 1), (y > 0) & (y < height - 1)), dim=-1)
    heat = F.pad(F.logsigmoid(logits)[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    middle = heat[rows, y + 1, x + 1]

    def vertex(before: Tensor, after: Tensor) -> Tensor:
        bend = (2 * middle - before - after).clamp(min=1e-6)
        return ((after - before) / (2 * bend)).clamp(-0.5, 0.5)

    offset = torch.stack(
        (
            vertex(heat[rows, y + 1, x], heat[rows, y + 1, x + 2]),
            vertex(heat[rows, y, x + 1], heat[rows, y + 2, x + 1]),
        ),
        dim=-1,
    )
    return offset * inside


def _mean(logits: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """``[N, K, 2]`` cells from the hottest cell to the weighted mean of its surroundings."""
    heat = F.pad(logits.sigmoid(), (radius,) * 4)
    step = torch.arange(2 * radius + 1, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)[:, None, None, None]
    around = heat[rows, y[..., None, None] + step[:, None], x[..., None, None] + step]
    weight = around.sum((-1, -2)).clamp(min=1e-12)
    away = (step - radius).float()
    across = (around.sum(-2) * away).sum(-1) / weight
    down = (around.sum(-1) * away).sum(-1) / weight
    return torch.stack((across, down), dim=-1)
