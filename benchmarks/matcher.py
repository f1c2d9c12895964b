"""Matching time: DINO's cross-image matcher against ours, on the same random batch.

    python benchmarks/matcher.py                                          # 16 x 300 x 20, seconds
    python benchmarks/matcher.py --images 64 --queries 100 --targets 10 --classes 1
    python benchmarks/matcher.py --device cuda

The reference is the third-party class where `make third-party` has brought it, otherwise the same
cross-image computation written plainly here. Prints both medians and their ratio; refuses to if the
indices differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scene_track.models.boxes import pairwise_giou
from scene_track.objectives.dino_matcher import DinoHungarianMatcher
from scene_track.objectives.matcher import HungarianMatcher, Matches

Matcher = Callable[[dict[str, Tensor], Sequence[dict[str, Tensor]]], Matches]
WEIGHTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0, "focal_alpha": 0.25}


def cross_image_matcher(
    outputs: dict[str, Tensor], targets: Sequence[dict[str, Tensor]]
) -> Matches:
    """Every query of the batch against every target of the batch, then one block per image."""
    images, queries = outputs["pred_logits"].shape[:2]
    probability = outputs["pred_logits"].flatten(0, 1).sigmoid()
    boxes = outputs["pred_boxes"].flatten(0, 1)
    labels = torch.cat([t["labels"] for t in targets])
    target_boxes = torch.cat([t["boxes"] for t in targets])
    alpha = WEIGHTS["focal_alpha"]
    positive = -alpha * (1 - probability) ** 2 * torch.log(probability + 1e-8)
    negative = -(1 - alpha) * probability**2 * torch.log(1 - probability + 1e-8)
    cost = (
        WEIGHTS["cost_class"] * (positive - negative)[:, labels]
        + WEIGHTS["cost_bbox"] * torch.cdist(boxes, target_boxes, p=1)
        - WEIGHTS["cost_giou"] * pairwise_giou(boxes, target_boxes, eps=1e-6)
    )
    blocks = cost.view(images, queries, -1).cpu().split([len(t["labels"]) for t in targets], -1)
    solved = [linear_sum_assignment(block[i].numpy()) for i, block in enumerate(blocks)]
    return [(torch.from_numpy(query), torch.from_numpy(target)) for query, target in solved]


def reference_matcher() -> tuple[str, Matcher]:
    """The named reference."""
    try:
        return "DINO (third_party)", DinoHungarianMatcher(checkout=None, **WEIGHTS).reference
    except FileNotFoundError:
        return "cross-image, written plainly", cross_image_matcher


def median_ms(matcher: Matcher, batch: tuple, repeats: int) -> float:
    """Median wall time of one call in milliseconds, after one call to warm up."""
    matcher(*batch)
    times = []
    for _ in range(repeats):  # both matchers end on the host, so no device is left running
        start = time.perf_counter()
        matcher(*batch)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--targets", type=int, default=20, help="per image")
    parser.add_argument("--classes", type=int, default=91)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    torch.manual_seed(0)
    outputs = {
        "pred_logits": torch.randn(args.images, args.queries, args.classes, device=args.device),
        "pred_boxes": torch.rand(args.images, args.queries, 4, device=args.device),
    }
    targets = [
        {
            "labels": torch.randint(0, args.classes, (args.targets,), device=args.device),
            "boxes": torch.rand(args.targets, 4, device=args.device),
        }
        for _ in range(args.images)
    ]
    name, reference = reference_matcher()
    ours = HungarianMatcher(**WEIGHTS)
    pairs = zip(reference(outputs, targets), ours(outputs, targets), strict=True)
    if not all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs):
        raise SystemExit("indices differ from the reference: a time would mean nothing")

    slow = median_ms(reference, (outputs, targets), args.repeats)
    fast = median_ms(ours, (outputs, targets), args.repeats)
    print(
        f"{args.images} images x {args.queries} queries x {args.targets} targets on {args.device},"
        f" {torch.get_num_threads()} thread(s), median of {args.repeats}"
    )
    print(f"reference {name}: {slow:.2f} ms")
    print(f"scene_track:      {fast:.2f} ms")
    print(f"ratio: matching, the reference's time to ours: {slow / fast:.1f}")


if __name__ == "__main__":
    main()
