"""Matcher: the public reference's answers, brute force, padding, and clear errors."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scene_track.objectives.matcher import HungarianMatcher

GOLDEN = Path(__file__).parents[1] / "golden" / "dino_matcher.npz"


def check_golden_cases(file: Path) -> None:
    data = np.load(file)
    cases = sorted({key.split("_")[0] for key in data.files})
    assert cases
    for case in cases:
        sizes = data[f"{case}_sizes"].tolist()
        labels = torch.from_numpy(data[f"{case}_tlabels"]).split(sizes)
        boxes = torch.from_numpy(data[f"{case}_tboxes"]).split(sizes)
        matcher = HungarianMatcher(*(float(w) for w in data[f"{case}_weights"]))
        answer = matcher(
            {
                "pred_logits": torch.from_numpy(data[f"{case}_logits"]),
                "pred_boxes": torch.from_numpy(data[f"{case}_boxes"]),
            },
            [{"labels": a, "boxes": b} for a, b in zip(labels, boxes, strict=True)],
        )
        assert [len(query) for query, _ in answer] == data[f"{case}_nmatch"].tolist(), case
        query = torch.cat([query for query, _ in answer])
        target = torch.cat([target for _, target in answer])
        assert query.dtype == target.dtype == torch.int64
        np.testing.assert_array_equal(query.numpy(), data[f"{case}_src"], err_msg=case)
        np.testing.assert_array_equal(target.numpy(), data[f"{case}_tgt"], err_msg=case)


def test_against_dino() -> None:
    check_golden_cases(GOLDEN)


def test_against_dino_all_cases(shared: Path) -> None:
    check_golden_cases(shared / "golden" / "dino_matcher.npz")


def random_frames(
    n: int, queries: int, classes: int, objects: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    valid = rand(n, objects) > 0.4
    labels = torch.randint(0, classes, (n, objects), generator=generator)
    return (
        3 * rand(n, queries, classes) - 1.5,
        rand(n, queries, 4),
        torch.where(valid, labels, 0),
        torch.where(valid[..., None], rand(n, objects, 4), 0.0),
        valid,
    )


def make() -> HungarianMatcher:
    return HungarianMatcher(2.0, 5.0, 2.0, 0.25)


def as_dictionaries(labels: Tensor, boxes: Tensor, valid: Tensor) -> list[dict[str, Tensor]]:
    return [
        {"labels": a[keep], "boxes": b[keep]}
        for a, b, keep in zip(labels, boxes, valid, strict=True)
    ]


def test_padded_form_says_the_same_as_dictionaries() -> None:
    # `valid` has holes: padding need not come last.
    logits, boxes, labels, target_boxes, valid = random_frames(6, 9, 3, 7)
    matcher = make()
    padded = matcher.match_padded(logits, boxes, labels, target_boxes, valid)
    answer = matcher(
        {"pred_logits": logits, "pred_boxes": boxes}, as_dictionaries(labels, target_boxes, valid)
    )
    assert ((padded >= 0) == valid).all()
    for i, (query, target) in enumerate(answer):
        assert torch.equal(query, query.sort().values)
        slots = valid[i].nonzero().squeeze(1)
        assert torch.equal(padded[i, slots[target]], query)


def test_the_assignment_is_the_cheapest() -> None:
    logits, boxes, labels, target_boxes, _ = random_frames(4, 6, 2, 4, seed=1)
    valid = torch.ones(4, 4, dtype=torch.bool)
    matcher = make()
    cost = matcher.cost(logits, boxes, labels, target_boxes)
    padded = matcher.match_padded(logits, boxes, labels, target_boxes, valid)
    for i in range(4):
        got = float(cost[i, padded[i], torch.arange(4)].sum())
        best = min(
            float(cost[i, list(choice), torch.arange(4)].sum())
            for choice in permutations(range(6), 4)
        )
        assert got == pytest.approx(best, abs=1e-5)


def test_more_targets_than_queries_leaves_targets_over() -> None:
    logits, boxes, labels, target_boxes, _ = random_frames(2, 3, 2, 8, seed=2)
    valid = torch.ones(2, 8, dtype=torch.bool)
    padded = make().match_padded(logits, boxes, labels, target_boxes, valid)
    for row in padded.tolist():
        assert sorted(q for q in row if q >= 0) == [0, 1, 2]
        assert row.count(-1) == 5


def test_frames_do_not_see_each_other_nor_padding() -> None:
    logits, boxes, labels, target_boxes, valid = random_frames(5, 8, 3, 6, seed=3)
    matcher = make()
    together = matcher.match_padded(logits, boxes, labels, target_boxes, valid)
    alone = [
        matcher.match_padded(
            logits[i : i + 1],
            boxes[i : i + 1],
            labels[i : i + 1],
            target_boxes[i : i + 1],
            valid[i : i + 1],
        )
        for i in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))
    rubbish = matcher.match_padded(
        logits,
        boxes,
        labels.masked_fill(~valid, -7),
        target_boxes.masked_fill(~valid[..., None], torch.nan),
        valid,
    )
    assert torch.equal(together, rubbish)


def test_stacked_layers_cross_to_the_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [random_frames(3, 8, 2, 5, seed=4)[:2], random_frames(3, 8, 2, 5, seed=5)[:2]]
    _, _, labels, target_boxes, valid = random_frames(3, 8, 2, 5, seed=6)
    matcher = make()
    one_by_one = [matcher.match_padded(*layer, labels, target_boxes, valid) for layer in layers]

    crossings: list[torch.Size] = []
    to_host = Tensor.cpu

    def counted(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        crossings.append(self.shape)
        return to_host(self)

    class NoOtherWait(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            name = func.overloadpacket.__name__
            assert name not in ("_local_scalar_dense", "nonzero", "masked_select"), name
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(Tensor, "cpu", counted)
    with NoOtherWait():
        stacked = matcher.match_padded(
            torch.cat([logits for logits, _ in layers]),
            torch.cat([boxes for _, boxes in layers]),
            labels.repeat(2, 1),
            target_boxes.repeat(2, 1, 1),
            valid.repeat(2, 1),
        )
    assert len(crossings) == 1
    assert torch.equal(stacked, torch.cat(one_by_one))


def test_autocast_and_half_precision_change_nothing() -> None:
    logits, boxes, labels, target_boxes, valid = random_frames(4, 12, 3, 8, seed=7)
    logits, boxes = logits.bfloat16(), boxes.bfloat16()
    matcher = make()
    reference = matcher.match_padded(logits.float(), boxes.float(), labels, target_boxes, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = matcher.match_padded(logits, boxes, labels, target_boxes, valid)
        cost = matcher.cost(logits, boxes, labels, target_boxes)
    assert torch.equal(inside, reference)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, matcher.cost(logits.float(), boxes.float(), labels, target_boxes))


def test_frames_without_targets() -> None:
    logits, boxes = torch.zeros(2, 5, 3), torch.rand(2, 5, 4)
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    answer = make()({"pred_logits": logits, "pred_boxes": boxes}, [nothing, nothing])
    assert [(len(a), len(b)) for a, b in answer] == [(0, 0), (0, 0)]
    padded = make().match_padded(
        logits,
        boxes,
        torch.zeros(2, 0, dtype=torch.long),
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0, dtype=torch.bool),
    )
    assert padded.shape == (2, 0)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: d["outputs"]["pred_logits"].fill_(torch.nan), "image 0: .* pred_logits are NaN"),
        (lambda d: d["outputs"]["pred_boxes"][1, 2].fill_(torch.inf), "image 1: .* pred_boxes"),
        (lambda d: d["targets"][1]["boxes"].fill_(torch.nan), "image 1: .* target boxes"),
        (lambda d: d["targets"][0]["labels"].fill_(3), "label 3; the model has 3 .* 0 to 2"),
        (lambda d: d["targets"][1]["labels"].fill_(-1), "image 1 has target label -1"),
        (lambda d: d["targets"].pop(), "1 targets for 2 images"),
        (lambda d: d["targets"][0].update(labels=torch.zeros(5, dtype=torch.long)), r"target 0"),
        (lambda d: d["targets"][0].update(labels=torch.zeros(2)), "torch.float32; expected int"),
        (lambda d: d["targets"][0].pop("boxes"), "needs 'boxes'"),
        (lambda d: d["outputs"].pop("pred_boxes"), "needs 'pred_boxes'"),
        (lambda d: d["outputs"].update(pred_boxes=torch.zeros(2, 5, 4)), r"\[N, Q, C\] and"),
    ],
)
def test_errors_say_what_is_wrong(break_it, words: str) -> None:
    data = {
        "outputs": {"pred_logits": torch.zeros(2, 6, 3), "pred_boxes": torch.rand(2, 6, 4)},
        "targets": [
            {"labels": torch.zeros(2, dtype=torch.long), "boxes": torch.rand(2, 4)}
            for _ in range(2)
        ],
    }
    break_it(data)
    with pytest.raises(ValueError, match=words):
        make()(data["outputs"], data["targets"])


def test_padded_errors_say_what_is_wrong() -> None:
    logits, boxes, labels, target_boxes, valid = random_frames(2, 5, 3, 4)
    matcher = make()
    with pytest.raises(ValueError, match="has target label (9|10|11)"):
        matcher.match_padded(logits, boxes, labels + 9, target_boxes, torch.ones_like(valid))


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, -1.0, 1.0)])
def test_weights_that_match_nothing_are_refused(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="at least one > 0"):
        HungarianMatcher(*weights, 0.25)
