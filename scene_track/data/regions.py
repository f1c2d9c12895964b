"""Boxes around whatever stands out in an image, without a label.

DETReg (Bar et al., CVPR 2022) takes the first thirty boxes of selective search, whose order is
drawn by lot. Here windows of several sizes and shapes all over the image are ranked by how much
a pretrained backbone sees their inside differ from what is around them, and thinned by overlap.
docs/backbones.md has the measurement of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms, roi_align

from scene_track.data.frame_store import resize_frame
from scene_track.data.images import read_image
from scene_track.io.atomic import write_atomic

_FORMAT = 1
_AROUND = 0.5
"""A box's surroundings reach out by this part of its width and height, half to either side."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an image.

    Attributes:
        size: (height, width) of the image in pixels.
        boxes: ``[n, 4]`` float64 left, top, width, height in pixels, the best first.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]


class RegionProposals:
    """Windows ranked by a backbone; kept on disk, so regions are computed once."""

    def __init__(
        self,
        *,
        backbone: Any,
        level: Annotated[int, Field(ge=0)],
        size: list[int],
        count: Annotated[int, Field(ge=1, le=1000)],
        areas: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)],
        shapes: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)],
        step: Annotated[float, Field(gt=0, le=1)],
        overlap: Annotated[float, Field(gt=0, le=1)],
    ) -> None:
        """Set the options, see ``conf/dataset/unlabelled.yaml``; ``size`` is (height, width)."""
        self.backbone = backbone.eval()
        self.level, self.size = level, (int(size[0]), int(size[1]))
        self.count, self.overlap = count, overlap
        self.windows = windows(self.size, areas, shapes, step)
        about = [_FORMAT, level, self.size, count, list(areas), list(shapes), step, overlap]
        digest = hashlib.sha256(json.dumps(about).encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        self._about = digest.digest()

    def of(self, file: Path, folder: Path) -> Regions:
        """The regions of an image file.

        Args:
            file: the image.
            folder: where regions are kept, in files named after the content of the image, the
                options and the weights.

        Raises:
            FrameError: the image cannot be read.
        """
        content = file.read_bytes() if file.is_file() else b""  # the reader says what is wrong
        name = hashlib.sha256(self._about + content).hexdigest()[:32]
        kept = folder / name[:2] / f"{name[2:]}.json"
        if kept.is_file():
            found = json.loads(kept.read_text(encoding="utf-8"))
            return Regions(tuple(found["size"]), np.array(found["boxes"]).reshape(-1, 4))
        image = read_image(file)
        boxes = self.propose(image)
        size = (int(image.shape[1]), int(image.shape[2]))
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps({"size": size, "boxes": boxes.round(2).tolist()}))
        return Regions(size, boxes.round(2))

    @torch.no_grad()
    def propose(self, image: Tensor) -> NDArray[np.float64]:
        """Regions of a ``[3, H, W]`` uint8 image: ``[n, 4]`` left, top, width, height in pixels.

        Raises:
            ValueError: the backbone has fewer levels.
        """
        levels = self.backbone(resize_frame(image, self.size).unsqueeze(0)).levels
        if self.level >= len(levels):
            raise ValueError(
                f"dataset.source.regions.level={self.level}: the backbone has levels 0 to"
                f" {len(levels) - 1}"
            )
        score = contrast(levels[self.level], self.windows)
        best = self.windows[nms(self.windows, score, self.overlap)[: self.count]].double()
        best = best * best.new_tensor((image.shape[2], image.shape[1]) * 2)
        return torch.cat((best[:, :2], best[:, 2:] - best[:, :2]), dim=1).numpy()


def windows(
    size: tuple[int, int], areas: Sequence[float], shapes: Sequence[float], step: float
) -> Tensor:
    """All windows of an image.

    Args:
        size: (height, width) of the image in pixels.
        areas: as parts of the image's.
        shapes: widths over heights.
        step: distance between two, as a part of their shorter side.

    Returns:
        ``[n, 4]`` corners x1, y1, x2, y2, 0-1 of the image; none reaches over its border.

    Raises:
        ValueError: none fits.
    """
    height, width = size
    found: list[Tensor] = []
    for area in areas:
        for shape in shapes:
            w, h = (area * height * width * shape) ** 0.5, (area * height * width / shape) ** 0.5
            if w > width or h > height:
                continue
            apart = step * min(w, h)
            x, y = torch.arange(0, width - w, apart), torch.arange(0, height - h, apart)
            y, x = torch.meshgrid(y, x, indexing="ij")
            corners = torch.stack((x, y, x + w, y + h), dim=-1).view(-1, 4)
            found.append(corners / corners.new_tensor((width, height) * 2))
    if not found:
        raise ValueError(
            f"dataset.source.regions: no window of areas={list(areas)}, shapes={list(shapes)} fits"
            f" into {width}x{height} pixels; type smaller areas"
        )
    return torch.cat(found)


def contrast(level: Tensor, corners: Tensor) -> Tensor:
    """How much the mean feature of boxes differs from that of what is around them.

    Args:
        level: ``[1, D, h, w]``.
        corners: ``[n, 4]`` x1, y1, x2, y2, 0-1 of the image.

    Returns:
        ``[n]`` 1 - cosine, 0-2.
    """
    unit = F.normalize(level.float(), dim=1)
    cells = corners * corners.new_tensor((unit.shape[3], unit.shape[2]) * 2)
    reach = (cells[:, 2:] - cells[:, :2]) * _AROUND / 2
    wide = torch.cat((cells[:, :2] - reach, cells[:, 2:] + reach), dim=1)
    inside = roi_align(unit, [cells], 1, sampling_ratio=3, aligned=True).flatten(1)
    around = roi_align(unit, [wide], 6, sampling_ratio=1, aligned=True)
    frame = torch.ones(6, 6, dtype=torch.bool)
    frame[1:5, 1:5] = False
    return 1 - F.cosine_similarity(inside, around[:, :, frame].mean(2), dim=1)
