"""The third-party matcher itself, for whoever wants to compare: ``matcher=dino``.

Loads DINO's own ``HungarianMatcher`` from the pinned checkout (never copied) and gives it the two
entrances of ``scene_track.objectives.matcher.HungarianMatcher``. It is the slow path by nature:
a cross-image cost matrix and one boolean selection per image.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.objectives.matcher import Matches, check_dictionaries, check_weights

_DEFAULT_CHECKOUT = Path(__file__).resolve().parents[2] / "third_party" / "DINO"


class DinoHungarianMatcher(nn.Module):
    """Adapter of DINO's ``HungarianMatcher`` with the interface of ours."""

    def __init__(
        self,
        *,
        cost_class: Annotated[float, Field(ge=0)],
        cost_bbox: Annotated[float, Field(ge=0)],
        cost_giou: Annotated[float, Field(ge=0)],
        focal_alpha: Annotated[float, Field(ge=0, le=1)],
        checkout: Path | str | None,
    ) -> None:
        """Load the third-party class; the weights are those of our ``HungarianMatcher``.

        ``checkout`` is the folder of the DINO repository; None = ``third_party/DINO`` of this
        project.

        Raises:
            FileNotFoundError: the checkout is not there.
            ValueError: all three weights are zero, or one is negative.
        """
        super().__init__()
        check_weights(cost_class, cost_bbox, cost_giou)
        folder = _DEFAULT_CHECKOUT if checkout is None else Path(checkout)
        module = load_dino_matcher_module(folder)
        self.reference = module.HungarianMatcher(
            cost_class=cost_class,
            cost_bbox=cost_bbox,
            cost_giou=cost_giou,
            focal_alpha=focal_alpha,
        )

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> Matches:
        """As ``HungarianMatcher.forward``, by the third-party class, in float32.

        Raises:
            ValueError: shapes or lengths disagree, a label is not below C, a number is not finite,
                or a predicted or target size is negative (the reference asserts on these).
        """
        logits, boxes = check_dictionaries(outputs, targets)
        _check_values(logits, boxes, targets)
        # The reference fails in half precision, autocast included.
        with torch.autocast(boxes.device.type, enabled=False):
            return self.reference(
                {"pred_logits": logits.float(), "pred_boxes": boxes.float()},
                [
                    {"labels": t["labels"].long(), "boxes": t["boxes"].float().to(boxes.device)}
                    for t in targets
                ],
            )

    @torch.no_grad()
    def match_padded(
        self,
        logits: Tensor,
        boxes: Tensor,
        target_labels: Tensor,
        target_boxes: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """As ``HungarianMatcher.match_padded``; waits for the device once per frame.

        Raises:
            ValueError: as ``forward``.
        """
        answer = torch.full(tuple(valid.shape), -1, dtype=torch.long)
        targets = [
            {"labels": labels[keep], "boxes": frame_boxes[keep]}
            for labels, frame_boxes, keep in zip(target_labels, target_boxes, valid, strict=True)
        ]
        matches = self({"pred_logits": logits, "pred_boxes": boxes}, targets)
        slots = valid.cpu()
        for row, keep, (query, target) in zip(answer, slots, matches, strict=True):
            row[keep.nonzero().squeeze(1)[target]] = query
        return answer.to(boxes.device)


def load_dino_matcher_module(checkout: Path) -> ModuleType:
    """Import ``models/dino/matcher.py`` alone, without the package around it.

    Importing DINO's ``models`` package would ask for its compiled CUDA operator. The file needs
    only the checkout's ``util`` package, which is on the path while it loads and gone afterwards,
    so that the name ``util`` stays free.

    Args:
        checkout: folder of the DINO repository.

    Raises:
        FileNotFoundError: the file is not there.
    """
    file = checkout / "models" / "dino" / "matcher.py"
    if not file.is_file():
        raise FileNotFoundError(
            f"matcher=dino needs the third-party checkout, but {file} does not exist;"
            " type `make third-party`, or choose matcher=hungarian (same indices, faster)"
        )
    spec = importlib.util.spec_from_file_location("dino_matcher_reference", file)
    if spec is None or spec.loader is None:  # a .py file always has a loader; for the type checker
        raise ImportError(f"cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    hidden = _pop_util_modules()
    sys.path.insert(0, str(checkout))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(checkout))
        _pop_util_modules()
        sys.modules.update(hidden)
    return module


def _pop_util_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == "util" or name.startswith("util.")]
    return {name: sys.modules.pop(name) for name in names}


def _check_values(logits: Tensor, boxes: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> None:
    """What the reference answers with a bare assertion or an index error, in words."""
    classes = logits.shape[-1]
    labels = torch.cat([t["labels"] for t in targets]) if targets else torch.zeros(0)
    target_boxes = torch.cat([t["boxes"] for t in targets]) if targets else torch.zeros(0, 4)
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(
            f"target labels run from {int(labels.min())} to {int(labels.max())}; the model has"
            f" {classes} classes, so labels must be 0 to {classes - 1}"
        )
    for name, tensor in (
        ("pred_logits", logits),
        ("pred_boxes", boxes),
        ("target boxes", target_boxes),
    ):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} hold NaN or infinite numbers; the matcher needs finite ones")
    for name, tensor in (("pred_boxes", boxes), ("target boxes", target_boxes)):
        if bool((tensor[..., 2:] < 0).any()):
            raise ValueError(f"{name} hold a negative width or height; expected cxcywh, 0-1")
