"""Losses: torchvision's numbers, naive loops, masks, extreme inputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from scene_track.objectives.losses import (
    box_giou,
    box_l1,
    draw_center_heatmap,
    heatmap_focal_loss,
    sigmoid_focal_loss,
)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 1.5), (-1.0, 2.0), (0.25, 0.0)])
def test_focal_against_torchvision(alpha: float, gamma: float) -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(40, 3)).requires_grad_()
    targets = (torch.rand(40, 3) > 0.7).float()
    ours = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    theirs = torchvision_focal(logits, targets, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(ours, theirs)
    (ours_gradient,) = torch.autograd.grad(ours.sum(), logits)
    (theirs_gradient,) = torch.autograd.grad(theirs.sum(), logits)
    torch.testing.assert_close(ours_gradient, theirs_gradient)


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, heatmap_focal_loss])
def test_focal_of_extreme_logits_is_finite(loss) -> None:
    logits = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4]).repeat(2, 1).requires_grad_()
    targets = torch.tensor([[0.0], [1.0]]).expand(2, 5)
    value = loss(logits, targets)
    assert torch.isfinite(value).all()
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert value[0, 0] == 0 and value[1, -1] == 0  # sure and right
    assert value[0, -1] > 1e3 and value[1, 0] > 1e3  # sure and wrong still hurts


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, heatmap_focal_loss, box_l1, box_giou])
def test_masked_elements_cost_and_teach_nothing(loss) -> None:
    torch.manual_seed(1)
    boxes = loss in (box_l1, box_giou)
    first = torch.rand(6, 4).requires_grad_()
    second = torch.rand(6, 4)
    keep = torch.tensor([True, False, True, True, False, False])
    value = loss(first, second, keep if boxes else keep[:, None])
    whole = loss(first, second)
    assert (value[~keep] == 0).all()
    assert torch.equal(value[keep], whole[keep])
    (gradient,) = torch.autograd.grad(value.sum(), first)
    assert (gradient[~keep] == 0).all() and (gradient[keep] != 0).any()


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, heatmap_focal_loss, box_l1, box_giou])
def test_float32_inside_autocast(loss) -> None:
    torch.manual_seed(2)
    first, second = torch.rand(5, 4).bfloat16(), torch.rand(5, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(first, second)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(first.float(), second.float()))


def test_heatmap_focal_against_the_formula() -> None:
    torch.manual_seed(3)
    logits = 2 * torch.randn(2, 5, 6)
    target = torch.rand(2, 5, 6) * 0.9
    target[0, 2, 3] = target[1, 0, 0] = 1.0
    got = heatmap_focal_loss(logits, target)
    for i in range(2):
        for y in range(5):
            for x in range(6):
                p = 1 / (1 + math.exp(-float(logits[i, y, x])))
                t = float(target[i, y, x])
                if t == 1:
                    expected = -((1 - p) ** 2) * math.log(p)
                else:
                    expected = -((1 - t) ** 4) * p**2 * math.log(1 - p)
                assert float(got[i, y, x]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def naive_heatmap(
    boxes: Tensor, labels: Tensor, valid: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    classes, height, width = shape
    heat = torch.zeros(boxes.shape[0], *shape)
    for n in range(boxes.shape[0]):
        for m in range(boxes.shape[1]):
            if not valid[n, m]:
                continue
            cx, cy, w, h = boxes[n, m].tolist()
            column = min(max(math.floor(cx * width), 0), width - 1)
            row = min(max(math.floor(cy * height), 0), height - 1)
            sigma_x, sigma_y = max(0.1 * w * width, 0.5), max(0.1 * h * height, 0.5)
            for y in range(height):
                for x in range(width):
                    bump = math.exp(
                        -((x - column) ** 2) / (2 * sigma_x**2) - (y - row) ** 2 / (2 * sigma_y**2)
                    )
                    c = int(labels[n, m])
                    heat[n, c, y, x] = max(float(heat[n, c, y, x]), bump)
    return heat


def test_heatmap_against_a_naive_loop() -> None:
    torch.manual_seed(4)
    boxes = torch.rand(3, 5, 4)
    boxes[0, 0, :2] = torch.tensor([-0.2, 1.3])  # a centre outside falls on the border cell
    boxes[0, 1, :2] = 1.0
    labels = torch.randint(0, 2, (3, 5))
    valid = torch.rand(3, 5) > 0.3
    valid[0, :2] = True
    got = draw_center_heatmap(boxes, labels, valid, 2, 7, 9)
    torch.testing.assert_close(got, naive_heatmap(boxes, labels, valid, (2, 7, 9)))


def test_heatmap_of_nothing_is_empty_and_ignores_what_padding_holds() -> None:
    nothing = draw_center_heatmap(
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(2, 0, dtype=torch.bool),
        3,
        4,
        5,
    )
    assert nothing.shape == (2, 3, 4, 5) and (nothing == 0).all()
    padding = draw_center_heatmap(
        torch.rand(2, 3, 4),
        torch.full((2, 3), -1),
        torch.zeros(2, 3, dtype=torch.bool),
        1,
        4,
        5,
    )
    assert (padding == 0).all()


def test_heatmap_and_losses_never_wait_for_the_device() -> None:
    # A meta tensor has no data: whatever would wait for a device raises here.
    heat = draw_center_heatmap(
        torch.zeros(2, 3, 4, device="meta"),
        torch.zeros(2, 3, dtype=torch.long, device="meta"),
        torch.ones(2, 3, dtype=torch.bool, device="meta"),
        2,
        6,
        8,
    )
    logits = torch.zeros(2, 2, 6, 8, device="meta", requires_grad=True)
    heatmap_focal_loss(logits, heat, heat > 0.1).sum().backward()
    boxes = torch.zeros(2, 3, 4, device="meta", requires_grad=True)
    (box_giou(boxes, boxes.detach()) + box_l1(boxes, boxes.detach())).sum().backward()
    assert boxes.grad is not None and boxes.grad.shape == boxes.shape


def test_box_losses_by_hand() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])
    moved = torch.tensor([0.6, 0.5, 0.2, 0.4])
    assert box_l1(box, moved).item() == pytest.approx(0.3)
    # intersection .1 x .2, union .04 + .08 - .02, hull .3 x .4
    assert box_giou(box, moved).item() == pytest.approx(1 - (0.02 / 0.10 - 0.02 / 0.12), abs=1e-5)
    tiny = torch.tensor([0.3137, 0.7713, 0.01, 0.01])
    assert box_giou(tiny, tiny).item() < 1e-6
