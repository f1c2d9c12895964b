"""Boxes around whatever stands out in an image, without a label.

Selective search merges neighbouring pieces of like colour and texture and keeps the box of each
piece that comes up on the way (Uijlings et al., IJCV 2013). Of its thousand boxes DETReg (Bar et
al., CVPR 2022) takes the first thirty, which are as good as drawn by lot. Here they are ranked by
how much a pretrained backbone sees the inside of a box differ from what is around it, and thinned
by overlap. docs/backbones.md has the measurement.
"""

from __future__ import annotations

import hashlib
import json
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
    """Selective search, ranked by a backbone; kept on disk, so regions are computed once."""

    def __init__(
        self,
        *,
        backbone: Any,
        level: Annotated[int, Field(ge=0)],
        size: list[int],
        side: Annotated[int, Field(ge=32, le=2048)],
        count: Annotated[int, Field(ge=1, le=1000)],
        smallest: Annotated[float, Field(gt=0, lt=1)],
        largest: Annotated[float, Field(gt=0, le=1)],
        overlap: Annotated[float, Field(gt=0, le=1)],
    ) -> None:
        """Set the options.

        Args:
            backbone: of the model, with its pretrained weights.
            level: of the backbone, from 0, the finest, in which boxes are compared with what is
                around them.
            size: [height, width] of the image that the backbone sees, pixels.
            side: pixels of the longer side of the image that is searched; the time grows with its
                square.
            count: most regions per image.
            smallest: regions narrower or lower than this part of the longer side are left out.
            largest: regions wider or higher than this part of the width or height are left out.
            overlap: IoU; of two regions that overlap by more, the better is taken.
        """
        self.backbone = backbone.eval()
        self.level, self.size, self.side = level, (int(size[0]), int(size[1])), side
        self.count, self.overlap = count, overlap
        self.smallest, self.largest = smallest, largest
        about = [_FORMAT, level, self.size, side, count, smallest, largest, overlap]
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
            ModuleNotFoundError: OpenCV is not installed; says what to type.
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
            ModuleNotFoundError: OpenCV is not installed; says what to type.
            ValueError: the backbone has fewer levels.
        """
        height, width = image.shape[1:]
        corners = torch.from_numpy(self.search(image)).float()
        extent = corners[:, 2:] - corners[:, :2]
        least = self.smallest * max(height, width)
        most = self.largest * extent.new_tensor((width, height))
        corners = corners[((extent >= least) & (extent <= most)).all(1)]
        levels = self.backbone(resize_frame(image, self.size).unsqueeze(0)).levels
        if self.level >= len(levels):
            raise ValueError(
                f"dataset.source.regions.level={self.level}: the backbone has levels 0 to"
                f" {len(levels) - 1}"
            )
        level = levels[self.level]
        score = contrast(level, corners / corners.new_tensor((width, height) * 2))
        best = corners[nms(corners, score, self.overlap)[: self.count]].double()
        return torch.cat((best[:, :2], best[:, 2:] - best[:, :2]), dim=1).numpy()

    def search(self, image: Tensor) -> NDArray[np.float64]:
        """``[n, 4]`` corners in pixels of everything that selective search finds."""
        try:
            import cv2

            method = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        except (ModuleNotFoundError, AttributeError):  # OpenCV without its extra modules
            raise ModuleNotFoundError(
                "regions of images need OpenCV with its extra modules: type pip install --no-deps"
                " --force-reinstall opencv-contrib-python-headless"
            ) from None
        height, width = image.shape[1:]
        scale = min(1.0, self.side / max(height, width))
        small = (max(8, round(height * scale)), max(8, round(width * scale)))
        searched = resize_frame(image, small).flip(0).permute(1, 2, 0)  # blue first
        method.setBaseImage(searched.contiguous().numpy())
        method.switchToSelectiveSearchFast()
        found = np.asarray(method.process(), dtype=np.float64).reshape(-1, 4)
        found[:, 2:] += found[:, :2]
        return found * np.array((width / small[1], height / small[0]) * 2)


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
    inside = roi_align(unit, [cells], 3, sampling_ratio=2, aligned=True).mean((2, 3))
    around = roi_align(unit, [wide], 6, sampling_ratio=1, aligned=True)
    frame = torch.ones(6, 6, dtype=torch.bool)
    frame[1:5, 1:5] = False
    return 1 - F.cosine_similarity(inside, around[:, :, frame].mean(2), dim=1)
