r"""Which boxes stand out without a label: how many labelled people are among them, and their time.

    python benchmarks/regions.py FOLDER --sequences ADL-Rundle-6:1-400 PETS09-S2L1 --every 80

Recall at IoU 0.5 of the boxes in ``gt.txt`` by the first 30 and 100 boxes of an image: windows
ranked by the backbone, as ``dataset=unlabelled`` has them, and selective search in its own order
(DETReg, at 128 x 128 pixels) or ranked in the same way. For the latter: pip install --no-deps
--force-reinstall opencv-contrib-python-headless. Times are those of the processor; half a minute.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torchvision.ops import box_iou, nms

from scene_track.config.paths import config_dir
from scene_track.data.frame_store import resize_frame
from scene_track.data.images import read_image
from scene_track.data.regions import RegionProposals, contrast
from scene_track.data.video import MotFolder

COUNTS = (30, 100)
SIDES = (128, 256, 400)  # pixels of the longer side that is searched


def search(image: Tensor, side: int) -> Tensor:
    """``[n, 4]`` corners in pixels of everything that selective search finds, in its order."""
    import cv2

    height, width = image.shape[1:]
    scale = side / max(height, width)
    small = (round(height * scale), round(width * scale))
    extra = getattr(cv2, "ximgproc", None)
    if extra is None:
        raise SystemExit("selective search: type pip install opencv-contrib-python-headless")
    method = extra.segmentation.createSelectiveSearchSegmentation()
    method.setBaseImage(resize_frame(image, small).flip(0).permute(1, 2, 0).contiguous().numpy())
    method.switchToSelectiveSearchFast()
    found = torch.from_numpy(np.asarray(method.process(), dtype=np.float64).reshape(-1, 4))
    found[:, 2:] += found[:, :2]
    return found * found.new_tensor((width / small[1], height / small[0]) * 2)


@torch.no_grad()
def ranked(proposals: RegionProposals, image: Tensor, corners: Tensor) -> Tensor:
    """Boxes of more than 10 pixels by how much they stand out, without those that overlap."""
    scale = corners.new_tensor((image.shape[2], image.shape[1]) * 2)
    extent = corners[:, 2:] - corners[:, :2]
    corners = corners[((extent >= 10) & (extent <= 0.9 * scale[:2])).all(1)]
    seen = proposals.backbone(resize_frame(image, proposals.size).unsqueeze(0))
    score = contrast(seen.levels[proposals.level], (corners / scale).float())
    return corners[nms(corners, score.double(), 0.7)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of sequences in the MOTChallenge layout")
    parser.add_argument("--sequences", nargs="+", required=True, metavar="NAME[:FIRST-LAST]")
    parser.add_argument("--every", type=int, default=40, help="frames between two that are used")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", ["experiment=detreg", f"dataset.root={arguments.root}"])
    shipped = instantiate(cfg.dataset.source.regions, count=max(COUNTS))
    methods: dict[str, Callable[[Tensor], Tensor]] = {}
    for side in SIDES if find_spec("cv2.ximgproc") else ():
        name = f"selective search, longer side {side}"
        methods[f"{name}, own order"] = partial(search, side=side)
        methods[f"{name}, ranked"] = lambda image, side=side: ranked(
            shipped, image, search(image, side)
        )

    def by_windows(image: Tensor) -> Tensor:
        boxes = torch.from_numpy(shipped.propose(image))
        return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)

    methods["windows, ranked"] = by_windows
    videos = MotFolder(root=arguments.root, classes={1: "person"}).sequences(arguments.sequences)
    found: defaultdict[tuple[str, str, int], int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    people: defaultdict[str, int] = defaultdict(int)
    images = 0
    for video in videos:
        for position in range(0, len(video), arguments.every):
            image = read_image(video.files[position])
            true = torch.from_numpy(video.table.boxes[video.rows(position)])
            true = torch.cat((true[:, :2], true[:, :2] + true[:, 2:]), dim=1)
            people[video.name] += len(true)
            images += 1
            for name, method in methods.items():
                started = time.process_time()
                corners = method(image)
                seconds[name] += time.process_time() - started
                overlap = box_iou(true, corners.double())
                for count in COUNTS:
                    hits = (overlap[:, :count] >= 0.5).any(1) if len(true) else torch.zeros(0)
                    found[name, video.name, count] += int(hits.sum())
    print(f"{images} images, people: {dict(people)}")
    heads = [f"{video.name}, {count}" for video in videos for count in COUNTS]
    print("| boxes | ms an image | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * (1 + len(heads)))
    for name in methods:
        cells = [
            f"{100 * found[name, video.name, count] / max(1, people[video.name]):.1f}"
            for video in videos
            for count in COUNTS
        ]
        print(f"| {name} | {1000 * seconds[name] / max(1, images):.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
