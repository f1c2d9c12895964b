"""How hard a folder of footage is to track: movement, overlap and size of its boxes.

python benchmarks/footage.py data/synthetic_dance/v1-*/train
python benchmarks/footage.py data/dancetrack/val
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scene_track.data.mot_files import read_boxes
from scene_track.metrics.similarity import pairwise_iou

OVERLAP = 0.3


def measure(file: Path) -> tuple[list[float], list[bool], list[float]]:
    """IoU of each box with itself a frame later, whether it overlaps another, its height.

    Args:
        file: a ``gt.txt``.
    """
    table, _ = read_boxes(file)
    scored = table.confidence > 0
    moved: list[float] = []
    overlapped: list[bool] = []
    for frame in np.unique(table.frames):
        now, after = scored & (table.frames == frame), scored & (table.frames == frame + 1)
        iou = pairwise_iou(table.boxes[now], table.boxes[now])
        np.fill_diagonal(iou, 0)
        overlapped.extend(iou.max(axis=1, initial=0) > OVERLAP)
        iou = pairwise_iou(table.boxes[now], table.boxes[after])
        moved.extend(iou[table.ids[now][:, None] == table.ids[after]])
    return moved, overlapped, table.boxes[scored, 3].tolist()


def main() -> None:
    """Print the figures of all sequences together."""
    parser = argparse.ArgumentParser(description="Movement, overlap and size of the boxes.")
    parser.add_argument("folder", type=Path, help="of sequences, each with gt/gt.txt")
    folder = parser.parse_args().folder
    files = sorted(folder.glob("*/gt/gt.txt"))
    if not files:
        raise SystemExit(f"{folder}: holds no sequence, expected <sequence>/gt/gt.txt in it")
    moved, overlapped, heights = (
        np.concatenate(parts) for parts in zip(*map(measure, files), strict=True)
    )
    print(f"{len(files)} sequences, {len(heights)} boxes")
    print(
        "IoU of a box with itself one frame later:"
        f" mean {moved.mean():.2f}, a tenth below {np.quantile(moved, 0.1):.2f}"
    )
    print(f"boxes that overlap another by IoU > {OVERLAP}: {100 * overlapped.mean():.0f} %")
    low, high = np.quantile(heights, (0.05, 0.95))
    print(f"height, 5th to 95th percentile: {low:.0f} to {high:.0f} pixels")


if __name__ == "__main__":
    main()
