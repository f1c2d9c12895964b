r"""Which boxes stand out without a label: how many labelled people are among them, and their time.

    python benchmarks/regions.py FOLDER --sequences ADL-Rundle-6:1-400 PETS09-S2L1 --every 40

Recall at IoU 0.5 of the boxes in ``gt.txt`` by the first 30 and 100 boxes of an image. Selective
search in its own order, as DETReg takes it (128 x 128 pixels there), and ranked by the backbone, as
``dataset=unlabelled`` does; and, without OpenCV, windows of fixed sizes, ranked in the same way.
Times are those of the processor. About half a minute on an idle core.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou, nms

from scene_track.config.paths import config_dir
from scene_track.data.frame_store import resize_frame
from scene_track.data.images import read_image
from scene_track.data.regions import RegionProposals, contrast
from scene_track.data.video import MotFolder

COUNTS = (30, 100)
SIDES = (128, 256, 400)
WINDOWS = (24, 36, 48, 64, 96, 128)  # square roots of the areas, pixels of the backbone's image
ASPECTS = (0.4, 0.65, 1.0, 2.5)  # width over height


def windows(size: tuple[int, int]) -> Tensor:
    """``[n, 4]`` corners, 0-1, of windows that lie a third of their shorter side apart."""
    height, width = size
    found = []
    for side in WINDOWS:
        for aspect in ASPECTS:
            w, h = side * aspect**0.5, side / aspect**0.5
            step = min(w, h) / 3
            y, x = np.meshgrid(np.arange(0, height - h, step), np.arange(0, width - w, step))
            corners = (x / width, y / height, (x + w) / width, (y + h) / height)
            found.append(np.stack([c.ravel() for c in corners], axis=1))
    return torch.from_numpy(np.concatenate(found)).float()


def by_windows(proposals: RegionProposals, image: Tensor) -> NDArray[np.float64]:
    """The windows that stand out, left, top, width, height in pixels."""
    corners = windows(proposals.size)
    with torch.no_grad():
        seen = proposals.backbone(resize_frame(image, proposals.size).unsqueeze(0))
        score = contrast(seen.levels[proposals.level], corners)
    best = corners[nms(corners, score, 0.5)[: proposals.count]].double()
    best *= best.new_tensor((image.shape[2], image.shape[1]) * 2)
    return torch.cat((best[:, :2], best[:, 2:] - best[:, :2]), dim=1).numpy()


def in_own_order(proposals: RegionProposals, image: Tensor) -> NDArray[np.float64]:
    """The first boxes of selective search."""
    first = proposals.search(image)[: proposals.count]
    return np.concatenate((first[:, :2], first[:, 2:] - first[:, :2]), axis=1)


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
    methods: dict[str, tuple[RegionProposals, Callable[..., NDArray[np.float64]]]] = {}
    for side in SIDES:
        made = instantiate(cfg.dataset.source.regions, count=max(COUNTS), side=side)
        methods[f"selective search, longer side {side}, own order"] = (made, in_own_order)
        methods[f"selective search, longer side {side}, ranked"] = (made, RegionProposals.propose)
    methods["windows, ranked"] = (shipped, by_windows)
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
            for name, (proposals, method) in methods.items():
                started = time.process_time()
                boxes = torch.from_numpy(method(proposals, image))
                seconds[name] += time.process_time() - started
                corners = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
                overlap = box_iou(true, corners)
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
