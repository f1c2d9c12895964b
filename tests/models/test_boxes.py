"""Boxes: hand-drawn cases, torchvision's numbers, degenerate boxes, exact suppression."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou, nms

from scene_track.models.boxes import (
    cxcywh_to_xyxy,
    elementwise_giou,
    elementwise_iou,
    inverse_sigmoid,
    nms_keep,
    pairwise_giou,
    pairwise_iou,
    xyxy_to_cxcywh,
)


def random_boxes(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(*shape, 4, generator=generator, dtype=torch.float64)
    return (boxes * torch.tensor([1.0, 1.0, 0.4, 0.4]) + 0.001).to(dtype)


def test_corners_by_hand_and_back() -> None:
    box = torch.tensor([0.5, 0.4, 0.2, 0.6])
    torch.testing.assert_close(cxcywh_to_xyxy(box), torch.tensor([0.4, 0.1, 0.6, 0.7]))
    boxes = random_boxes(5, 7)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


def test_iou_and_giou_by_hand() -> None:
    # Two unit squares: shifted by half a side, and one empty unit square apart.
    square = torch.tensor([0.5, 0.5, 1.0, 1.0])
    half = torch.tensor([1.0, 0.5, 1.0, 1.0])
    apart = torch.tensor([2.5, 0.5, 1.0, 1.0])
    assert elementwise_iou(square, half).item() == pytest.approx(1 / 3)
    assert elementwise_giou(square, half).item() == pytest.approx(1 / 3)
    assert elementwise_iou(square, apart).item() == 0
    assert elementwise_giou(square, apart).item() == pytest.approx(-1 / 3)


def test_pairwise_against_torchvision() -> None:
    first, second = random_boxes(3, 11, seed=1), random_boxes(3, 6, seed=2)
    for i in range(3):
        a, b = cxcywh_to_xyxy(first[i]), cxcywh_to_xyxy(second[i])
        torch.testing.assert_close(pairwise_iou(first, second)[i], box_iou(a, b))
        torch.testing.assert_close(
            pairwise_giou(first, second)[i], generalized_box_iou(a, b), atol=1e-6, rtol=0
        )


@settings(max_examples=100, deadline=None)
@given(
    center=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    pixels=st.tuples(st.floats(3, 1000), st.floats(3, 1000)),
)
def test_identical_boxes_are_perfect_however_small(
    center: tuple[float, float], pixels: tuple[float, float]
) -> None:
    box = torch.tensor([*center, pixels[0] / 1000, pixels[1] / 1000])
    assert (1 - elementwise_giou(box, box.clone())).abs().item() < 1e-6
    assert (1 - elementwise_iou(box, box.clone())).abs().item() < 1e-6


def test_giou_gradient_matches_finite_differences() -> None:
    first = random_boxes(6, seed=5).requires_grad_()
    second = random_boxes(6, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(elementwise_giou, (first, second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.3, 0.7, 0.0, 0.0), (0.3, 0.7, 0.0, 0.0)),  # one point twice
        ((0.3, 0.7, 0.0, 0.0), (0.6, 0.1, 0.0, 0.0)),  # two points
        ((0.3, 0.7, 0.0, 0.2), (0.3, 0.7, 0.0, 0.2)),  # one line twice
        ((0.3, 0.7, 0.0, 0.2), (0.3, 0.7, 0.2, 0.0)),  # crossing lines
        ((0.3, 0.7, 0.0, 0.0), (0.3, 0.7, 0.2, 0.2)),  # point in a box
        ((0.3, 0.7, 1e-20, 1e-20), (0.3, 0.7, 1e-20, 1e-20)),  # areas that underflow
        ((0.3, 0.7, -0.1, 0.2), (0.3, 0.7, 0.2, 0.2)),  # inside out
    ],
)
def test_degenerate_boxes_give_finite_values_and_gradients(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    a = torch.tensor(first, requires_grad=True)
    b = torch.tensor(second, requires_grad=True)
    for function in (elementwise_iou, elementwise_giou):
        value = function(a, b)
        assert -1 <= value.item() <= 1
        for gradient in torch.autograd.grad(value, (a, b)):
            assert torch.isfinite(gradient).all()
            assert gradient.abs().max() < 1e3


def test_a_collapsed_box_is_drawn_towards_its_target() -> None:
    point = torch.tensor([0.2, 0.8, 0.0, 0.0], requires_grad=True)
    target = torch.tensor([0.4, 0.6, 0.2, 0.2])
    (1 - elementwise_giou(point, target)).backward()
    assert point.grad is not None
    assert point.grad[0] < 0  # descent moves right ...
    assert point.grad[1] > 0  # ... and up, to the target


def test_precision() -> None:
    exact = random_boxes(20, seed=7)
    other = random_boxes(20, seed=8)
    assert elementwise_giou(exact, other).dtype == torch.float64
    reference = pairwise_giou(exact.float(), other.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pairwise_giou(exact.float(), other.float())
        halves = pairwise_giou(exact.bfloat16(), other.bfloat16())
    assert inside.dtype == halves.dtype == torch.float32
    assert torch.equal(inside, reference)
    torch.testing.assert_close(
        halves, pairwise_giou(exact.bfloat16().double(), other.bfloat16().double()).float()
    )


def test_inverse_sigmoid_inverts_and_stays_finite() -> None:
    x = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid(), x)
    ends = torch.tensor([-1.0, 0.0, 1.0, 2.0], requires_grad=True)
    logits = inverse_sigmoid(ends, eps=1e-3)
    limit = torch.log(torch.tensor(1e3))
    torch.testing.assert_close(logits.detach(), torch.stack((-limit, -limit, limit, limit)))
    logits.sum().backward()
    assert ends.grad is not None and torch.isfinite(ends.grad).all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 40, 150])
def test_nms_against_torchvision(threshold: float, count: int) -> None:
    boxes = random_boxes(4, count, seed=count, dtype=torch.float32)
    boxes[1] = boxes[1] * 0.2 + 0.4  # crowded: long chains of suppression
    boxes[2, 1::2] = boxes[2, : 2 * (count // 2) : 2]  # exact duplicates
    boxes[3, ::3, 2:] = 0  # boxes without area
    keep = nms_keep(boxes, threshold)
    scores = torch.arange(count, 0, -1, dtype=torch.float32)
    for i in range(4):
        kept = nms(cxcywh_to_xyxy(boxes[i]), scores, threshold)
        assert keep[i].nonzero().squeeze(1).tolist() == kept.sort().values.tolist()


def test_nms_settles_the_longest_possible_chain() -> None:
    # Each box overlaps only its neighbours (IoU 1/3): every second one stays, and the last verdict
    # depends on the first.
    count = 61
    row = torch.zeros(1, count, 4)
    row[..., 0] = torch.arange(count) * 0.5
    row[..., 1:] = 1.0
    assert nms_keep(row, 0.3)[0].tolist() == [i % 2 == 0 for i in range(count)]


def test_nms_of_nothing() -> None:
    assert nms_keep(torch.zeros(3, 0, 4), 0.5).shape == (3, 0)
    assert nms_keep(torch.zeros(0, 5, 4), 0.5).shape == (0, 5)


def test_nms_never_looks_at_the_data_on_an_accelerator() -> None:
    # A meta tensor has no data: whatever would wait for a device raises here.
    assert nms_keep(torch.zeros(2, 30, 4, device="meta"), 0.5).shape == (2, 30)
