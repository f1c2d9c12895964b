"""The adapter of the third-party matcher: a stand-in checkout always, the real one if there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from scene_track.objectives.dino_matcher import DinoHungarianMatcher
from scene_track.objectives.matcher import HungarianMatcher

WEIGHTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0, "focal_alpha": 0.25}
STAND_IN = '''
import torch
from scipy.optimize import linear_sum_assignment
from util.box_ops import WEIGHT


class HungarianMatcher(torch.nn.Module):
    """L1 distance only."""

    def __init__(self, cost_class, cost_bbox, cost_giou, focal_alpha):
        super().__init__()
        self.cost_bbox = cost_bbox

    def forward(self, outputs, targets):
        assert outputs["pred_boxes"].dtype == torch.float32
        answer = []
        for boxes, target in zip(outputs["pred_boxes"], targets):
            cost = WEIGHT * self.cost_bbox * torch.cdist(boxes, target["boxes"], p=1)
            answer.append(tuple(torch.as_tensor(x) for x in linear_sum_assignment(cost)))
        return answer
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder like the third-party repository; its ``models`` package cannot be imported."""
    (tmp_path / "models" / "dino").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").write_text("raise ImportError('needs a CUDA operator')\n")
    (tmp_path / "models" / "dino" / "matcher.py").write_text(STAND_IN)
    (tmp_path / "util").mkdir()
    (tmp_path / "util" / "__init__.py").write_text("")
    (tmp_path / "util" / "box_ops.py").write_text("WEIGHT = 1.0\n")
    return tmp_path


def test_a_missing_checkout_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make third-party"):
        DinoHungarianMatcher(**WEIGHTS, checkout=tmp_path)


def test_loading_leaves_no_trace(checkout: Path) -> None:
    path = list(sys.path)
    DinoHungarianMatcher(**WEIGHTS, checkout=checkout)
    assert sys.path == path
    assert not [name for name in sys.modules if name == "util" or name.startswith("util.")]


def test_both_entrances_agree_with_ours(checkout: Path) -> None:
    torch.manual_seed(0)
    logits, boxes = torch.randn(3, 7, 2).bfloat16(), torch.rand(3, 7, 4)
    labels, target_boxes = torch.randint(0, 2, (3, 5)), torch.rand(3, 5, 4)
    valid = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    l1_alone = WEIGHTS | {"cost_class": 0.0, "cost_giou": 0.0}
    theirs = DinoHungarianMatcher(**l1_alone, checkout=checkout)
    ours = HungarianMatcher(**l1_alone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        padded = theirs.match_padded(logits, boxes, labels, target_boxes, valid)
    assert torch.equal(padded, ours.match_padded(logits, boxes, labels, target_boxes, valid))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: d["logits"].fill_(torch.nan), "pred_logits hold NaN"),
        (lambda d: d["target_boxes"].fill_(torch.nan), "target boxes hold NaN"),
        (lambda d: d["target_labels"].fill_(2), "run from 2 to 2; the model has 2 classes"),
        (lambda d: d["boxes"].fill_(-0.1), "negative width"),
    ],
)
def test_errors_say_what_is_wrong(checkout: Path, break_it, words: str) -> None:
    data = {
        "logits": torch.zeros(2, 4, 2),
        "boxes": torch.rand(2, 4, 4),
        "target_labels": torch.zeros(2, 3, dtype=torch.long),
        "target_boxes": torch.rand(2, 3, 4),
        "valid": torch.ones(2, 3, dtype=torch.bool),
    }
    break_it(data)
    with pytest.raises(ValueError, match=words):
        DinoHungarianMatcher(**WEIGHTS, checkout=checkout).match_padded(**data)


def test_the_real_reference_gives_our_indices(repo_root: Path) -> None:
    folder = repo_root / "third_party" / "DINO"
    if not (folder / "models" / "dino" / "matcher.py").is_file():
        pytest.skip("the DINO submodule is not there (`make third-party` brings it)")
    torch.manual_seed(1)
    theirs, ours = DinoHungarianMatcher(**WEIGHTS, checkout=folder), HungarianMatcher(**WEIGHTS)
    for _ in range(5):
        logits, boxes = torch.randn(4, 20, 5), torch.rand(4, 20, 4)
        labels, target_boxes = torch.randint(0, 5, (4, 8)), torch.rand(4, 8, 4)
        arguments = (logits, boxes, labels, target_boxes, torch.rand(4, 8) > 0.4)
        assert torch.equal(theirs.match_padded(*arguments), ours.match_padded(*arguments))
