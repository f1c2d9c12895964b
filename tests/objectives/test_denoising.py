"""Denoising: the public reference's numbers from its own draws, and what padding must not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from scene_track.models.boxes import cxcywh_to_xyxy
from scene_track.objectives.denoising import ContrastiveDenoiser, NoiseDraws, no_denoiser
from tests.compose import arguments

GOLDEN = Path(__file__).parents[1] / "golden" / "dino_cdn.pt"


def padded_targets(targets: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(t["labels"]) for t in targets)
    boxes = torch.zeros(len(targets), width, 4)
    labels = torch.zeros(len(targets), width, dtype=torch.long)
    valid = torch.zeros(len(targets), width, dtype=torch.bool)
    for i, target in enumerate(targets):
        count = len(target["labels"])
        boxes[i, :count], labels[i, :count] = target["boxes"], target["labels"]
        valid[i, :count] = True
    return boxes, labels, valid


def recorded_draws(case: dict[str, Any], valid: Tensor, groups: int) -> NoiseDraws:
    """The reference draws for real slots only, block by block; put each number into its slot."""
    frames, width = valid.shape
    slots = 2 * groups * width
    real = valid.repeat(1, 2 * groups).view(frames, 2 * groups, width)
    # [block, frame, object] is the order in which the reference concatenates.
    block, frame, item = real.transpose(0, 1).nonzero(as_tuple=True)
    where = (frame, block * width + item)
    draws = NoiseDraws(
        flip=torch.ones(frames, slots),
        label=torch.zeros(frames, slots, dtype=torch.long),
        sign=torch.ones(frames, slots, 4),
        amount=torch.zeros(frames, slots, 4),
    )
    recorded = [tensor for _, tensor in case["draws"]]
    if case["label_noise_ratio"] > 0:
        flip, new_labels = recorded.pop(0), recorded.pop(0)
        draws.flip[where] = flip
        chosen = flip < case["label_noise_ratio"] / 2
        draws.label[where[0][chosen], where[1][chosen]] = new_labels.long()
    if case["box_noise_scale"] > 0:
        draws.sign[where] = recorded.pop(0) * 2 - 1
        draws.amount[where] = recorded.pop(0)
    assert not recorded
    return draws


def attention_mask(case: dict[str, Any]) -> Tensor:
    if "attn_mask_shape" not in case:
        return case["attn_mask"]
    rows, columns = case["attn_mask_shape"]
    bits = np.unpackbits(case["attn_mask"].numpy(), count=rows * columns)
    return torch.from_numpy(bits).bool().view(rows, columns)


def make(**changes: Any) -> ContrastiveDenoiser:
    """The shipped denoiser with four channels."""
    return ContrastiveDenoiser(**arguments("denoiser", dim=4) | changes)


def check_golden_case(case: dict[str, Any]) -> None:
    boxes, labels, valid = padded_targets(case["targets"])
    denoiser = make(
        dim=8,
        num_classes=case["num_classes"],
        dn_number=case["dn_number"],
        label_noise_ratio=case["label_noise_ratio"],
        box_noise_scale=case["box_noise_scale"],
    )
    groups = denoiser.num_groups(valid.shape[1])
    assert groups == case["dn_meta"]["num_dn_group"]
    if not valid.shape[1]:  # the reference makes no slot at all here, and hangs DDP
        queries = denoiser(boxes, labels, valid, case["num_queries"])
        assert not queries.valid.any()
        return
    draws = recorded_draws(case, valid, groups)
    queries = denoiser(boxes, labels, valid, case["num_queries"], draws=draws)

    expected_ids = case["input_query_label_ids"].long()
    assert queries.valid.shape[1] == case["dn_meta"]["pad_size"]
    assert torch.equal(queries.valid, expected_ids >= 0)
    table = denoiser.label_embedding.weight
    padding = expected_ids.unsqueeze(-1) < 0
    expected_content = torch.where(padding, 0.0, table[expected_ids.clamp(min=0)])
    assert torch.equal(queries.content, expected_content)
    torch.testing.assert_close(queries.boxes, case["input_query_bbox"], atol=1e-5, rtol=0)
    assert torch.equal(queries.attention_mask, attention_mask(case))


def test_against_dino() -> None:
    for case in torch.load(GOLDEN, weights_only=True):
        check_golden_case(case)


def test_against_dino_all_cases(shared: Path) -> None:
    for case in torch.load(shared / "golden" / "dino_cdn.pt", weights_only=True):
        check_golden_case(case)


@pytest.mark.parametrize(
    ("dn_number", "objects", "groups"),
    [(1, 6, 2), (1, 0, 1), (49, 15, 98), (50, 15, 3), (100, 3, 33), (100, 500, 1)],
)
def test_number_of_groups(dn_number: int, objects: int, groups: int) -> None:
    denoiser = make(num_classes=1, dn_number=dn_number)
    assert denoiser.num_groups(objects) == groups


def scene(n: int = 3, m: int = 5, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(n, m, 4, generator=generator) * 0.2 + 0.4
    boxes[..., 2:] *= 0.4
    labels = torch.randint(0, classes, (n, m), generator=generator)
    valid = torch.ones(n, m, dtype=torch.bool)
    valid[1, 2:] = False
    valid[2] = False
    return boxes, labels, valid


@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_positives_stay_within_half_a_box_and_negatives_leave_it(scale: float) -> None:
    boxes, labels, valid = scene()
    denoiser = make(num_classes=4, dn_number=20, box_noise_scale=scale)
    queries = denoiser(boxes, labels, valid, 7)
    original = boxes.gather(1, queries.target_index.unsqueeze(-1).expand(-1, -1, 4))
    moved = cxcywh_to_xyxy(queries.boxes.sigmoid()) - cxcywh_to_xyxy(original)
    # Unit: half a box times the scale. A box that negatives turn inside out has size eps instead.
    shift = (moved / (original[..., 2:].repeat(1, 1, 2) / 2 * scale)).abs()
    positive = queries.positive
    negative = queries.valid & ~positive
    assert positive.sum() == negative.sum() == valid.sum() * 40
    assert shift[positive].max() <= 1 + 1e-3
    assert shift[positive].mean().item() == pytest.approx(0.5, abs=0.03)
    if scale < 0.5:  # corners cannot cross, so what was drawn is what one sees
        assert shift[negative].min() >= 1 - 1e-3
        assert shift[negative].max() <= 2 + 1e-3


def test_labels_flip_at_half_the_ratio() -> None:
    boxes, labels, valid = scene(n=20, m=10)
    denoiser = make(num_classes=4, dn_number=40, label_noise_ratio=0.5)
    torch.nn.init.normal_(denoiser.label_embedding.weight)
    queries = denoiser(boxes, labels, valid, 1, generator=torch.Generator().manual_seed(1))
    true_label = labels.gather(1, queries.target_index)
    kept = (queries.content == denoiser.label_embedding(true_label)).all(-1)[queries.valid]
    # A flipped label is uniform, so it stays by chance once in four.
    assert 1 - kept.float().mean().item() == pytest.approx(0.25 * 3 / 4, abs=0.015)


def test_without_noise_the_queries_are_the_truth_even_over_the_border() -> None:
    boxes = torch.tensor([[[0.02, 0.5, 0.2, 0.3]]])
    labels, valid = torch.tensor([[2]]), torch.tensor([[True]])
    denoiser = make(num_classes=3, label_noise_ratio=0.0, box_noise_scale=0.0)
    queries = denoiser(boxes, labels, valid, 3)
    torch.testing.assert_close(queries.boxes.sigmoid(), boxes.expand(1, 4, 4))
    assert torch.equal(queries.content, denoiser.label_embedding.weight[2].expand(1, 4, 4))


def test_the_mask_keeps_groups_and_matching_queries_blind() -> None:
    boxes, labels, valid = scene(m=3)
    queries = make(num_classes=4, dn_number=1)(boxes, labels, valid, 2)
    # Two groups of three positives and three negatives, then two matching queries.
    expected = torch.zeros(14, 14, dtype=torch.bool)
    expected[:6, 6:12] = expected[6:12, :6] = True
    expected[12:, :12] = True
    assert torch.equal(queries.attention_mask, expected)
    assert queries.target_index[0].tolist() == [0, 1, 2] * 4
    assert queries.positive[0].tolist() == ([True] * 3 + [False] * 3) * 2


def test_padding_slots_are_marked_and_leak_nothing() -> None:
    boxes, labels, valid = scene()
    denoiser = make(num_classes=4)
    draws = denoiser.draw(3, 20, boxes.device)
    clean = denoiser(boxes, labels, valid, 2, draws=draws)
    rubbish = denoiser(
        boxes.masked_fill(~valid[..., None], torch.nan),
        labels.masked_fill(~valid, -1),
        valid,
        2,
        draws=draws,
    )
    assert torch.equal(clean.valid, valid.repeat(1, 4))
    assert not clean.positive[~clean.valid].any()
    assert torch.equal(clean.content, rubbish.content)
    assert torch.equal(clean.boxes, rubbish.boxes)
    assert (clean.boxes[~clean.valid] == 0).all()


@pytest.mark.parametrize("width", [0, 3])
def test_a_batch_without_objects_still_touches_the_embedding(width: int) -> None:
    denoiser = make(num_classes=2)
    queries = denoiser(
        torch.zeros(2, width, 4),
        torch.zeros(2, width, dtype=torch.long),
        torch.zeros(2, width, dtype=torch.bool),
        5,
    )
    slots = queries.content.shape[1]
    assert slots > 0 and not queries.valid.any()
    assert queries.attention_mask.shape == (slots + 5, slots + 5)
    queries.content.sum().backward()
    gradient = denoiser.label_embedding.weight.grad
    assert gradient is not None and (gradient == 0).all()


def test_noise_follows_the_generator() -> None:
    boxes, labels, valid = scene()
    denoiser = make(num_classes=4)

    def logits(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return denoiser(boxes, labels, valid, 2, generator=generator).boxes

    assert torch.equal(logits(3), logits(3))
    assert not torch.equal(logits(3), logits(4))


def test_making_queries_never_waits_for_the_device() -> None:
    # A meta tensor has no data: whatever would wait for a device raises here.
    denoiser = make(num_classes=4).to("meta")
    boxes, labels, valid = (x.to("meta") for x in scene())
    queries = denoiser(boxes, labels, valid, 6)
    assert queries.content.shape == (3, 20, 4)
    assert queries.attention_mask.shape == (26, 26)


def test_a_denoiser_leaves_the_other_weights_alone() -> None:
    torch.manual_seed(0)
    plain = torch.rand(3)
    torch.manual_seed(0)
    denoiser = make(num_classes=4, lambda_dn=0.0)
    assert torch.equal(torch.rand(3), plain)
    assert denoiser.lambda_dn == 0
    assert not any(parameter.requires_grad for parameter in denoiser.parameters())


def test_the_plain_model_has_no_denoiser(repo_root: Path) -> None:
    none = OmegaConf.load(repo_root / "conf" / "denoiser" / "none.yaml")
    assert none.lambda_dn == 0
    assert instantiate(none) is None
    with pytest.raises(ValueError, match="denoiser=dino"):
        no_denoiser(lambda_dn=1.0)
