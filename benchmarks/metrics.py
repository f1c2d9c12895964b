"""Time scoring from text files: HOTA, CLEAR and Identity of 25 sequences, 1,200 frames, 10 tracks.

    python benchmarks/metrics.py                       # about half a minute on one core
    python benchmarks/metrics.py sequences=2 runs=1    # a quick look

Prints the median time of ours, of a named reference on the same files in the same process, and the
ratio. The reference is the package ``trackeval`` where it can be imported; otherwise the plain loop
over frames in this file, and the output says so. Figures of both are compared before anything is
printed: a fast wrong answer is no result.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from scipy.optimize import linear_sum_assignment

from scene_track.data.mot_files import BoxTable, read_boxes, write_results
from scene_track.metrics.tracking import (
    ALPHAS,
    TrackingCounts,
    TrackingSequence,
    count_tracking,
    tracking_metrics,
)

Scores = dict[str, float]
NAMES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
EPS = np.finfo(np.float64).eps


def write_work(root: Path, sequences: int, frames: int, tracks: int, seed: int = 0) -> None:
    """Write a seeded crowd and predictions with misses, clutter, jitter and id switches."""
    rng = np.random.default_rng(seed)
    (root / "gt").mkdir()
    (root / "pred").mkdir()
    for number in range(sequences):
        # Walkers on stage, as in dance: sway around slowly moving centres, so that boxes cross.
        time = np.arange(frames)[:, None]
        phase, pace = rng.uniform(0, 2 * np.pi, (2, tracks)), rng.uniform(0.01, 0.04, (2, tracks))
        x = 960 + rng.uniform(200, 800, tracks) * np.sin(pace[0] * time + phase[0])
        y = 500 + rng.uniform(50, 200, tracks) * np.sin(pace[1] * time + phase[1])
        size = np.stack((rng.uniform(70, 140, tracks), rng.uniform(200, 380, tracks)))
        size = np.broadcast_to(size, (frames, 2, tracks))
        truth = np.stack((x, y, size[:, 0], size[:, 1]), axis=-1)
        frame_of = np.repeat(np.arange(1, frames + 1), tracks)
        ids = np.tile(np.arange(1, tracks + 1), frames)
        boxes = truth.reshape(-1, 4).round(2)
        _write_truth(root / "gt" / f"{number:03d}.txt", frame_of, ids, boxes)

        seen = rng.random(len(boxes)) > 0.08
        drift = np.tile(np.arange(tracks), (frames, 1))
        for _ in range(frames // 200):
            start, (one, other) = rng.integers(frames), rng.choice(tracks, 2, replace=False)
            drift[start:, [one, other]] = drift[start:, [other, one]]
        noise = rng.normal(0, 0.05, boxes.shape) * boxes[:, [2, 3, 2, 3]]
        found = boxes + noise
        clutter = rng.random(len(boxes)) < 0.03
        found[clutter, :2] += rng.uniform(-200, 200, (int(clutter.sum()), 2))
        found[:, 2:] = np.maximum(found[:, 2:], 1)
        table = BoxTable.from_arrays(
            frames=frame_of[seen],
            ids=drift.reshape(-1)[seen] + 1,
            boxes=found[seen].round(2),
            confidence=rng.uniform(0.4, 1, int(seen.sum())).round(3),
        )
        write_results(root / "pred" / f"{number:03d}.txt", table)


def _write_truth(path: Path, frames: np.ndarray, ids: np.ndarray, boxes: np.ndarray) -> None:
    rows = zip(frames.tolist(), ids.tolist(), boxes.tolist(), strict=True)
    path.write_text(
        "".join(f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1,1,1\n" for f, i, (x, y, w, h) in rows)
    )


def ours(root: Path, frames: int) -> Scores:
    """Read and score everything with scene_track."""
    total = TrackingCounts.zero()
    for truth in sorted((root / "gt").iterdir()):
        gt, _ = read_boxes(truth, length=frames)
        pred, _ = read_boxes(root / "pred" / truth.name, kind="result", length=frames)
        total += count_tracking(TrackingSequence(gt, pred, frames))
    figures = tracking_metrics(total)
    return {name: figures[name] for name in NAMES}


def _read_per_frame(path: Path, frames: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rows: list[list[list[str]]] = [[] for _ in range(frames)]
    for line in path.read_text().splitlines():
        cells = line.split(",")
        rows[int(cells[0]) - 1].append(cells)
    ids = [np.array([int(row[1]) for row in frame], dtype=np.int64) for frame in rows]
    boxes = [
        np.array([row[2:6] for row in frame], dtype=np.float64).reshape(-1, 4) for frame in rows
    ]
    return ids, boxes


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    inter = np.maximum(high - low, 0).prod(axis=-1)
    return inter / (a[:, None, 2:].prod(axis=-1) + b[None, :, 2:].prod(axis=-1) - inter)


def _sequence_data(truth: Path, found: Path, frames: int) -> dict:
    """One sequence in the form that ``trackeval`` metrics take: a matrix of IoU per frame."""
    gt_ids, gt_boxes = _read_per_frame(truth, frames)
    pred_ids, pred_boxes = _read_per_frame(found, frames)
    gt_names, pred_names = np.unique(np.concatenate(gt_ids)), np.unique(np.concatenate(pred_ids))
    return {
        "seq": truth.stem,
        "num_timesteps": frames,
        "num_gt_dets": sum(map(len, gt_ids)),
        "num_tracker_dets": sum(map(len, pred_ids)),
        "num_gt_ids": len(gt_names),
        "num_tracker_ids": len(pred_names),
        "gt_ids": [np.searchsorted(gt_names, ids) for ids in gt_ids],
        "tracker_ids": [np.searchsorted(pred_names, ids) for ids in pred_ids],
        "similarity_scores": [_iou(a, b) for a, b in zip(gt_boxes, pred_boxes, strict=True)],
    }


def trackeval_package(root: Path, frames: int) -> Scores:
    """Read with a plain loop, score with the metric classes of the package ``trackeval``."""
    from trackeval.metrics import CLEAR, HOTA, Identity  # pyright: ignore[reportMissingImports]

    figures: Scores = {}
    work = {
        truth.stem: _sequence_data(truth, root / "pred" / truth.name, frames)
        for truth in sorted((root / "gt").iterdir())
    }
    for metric in (HOTA(), CLEAR({"PRINT_CONFIG": False}), Identity({"PRINT_CONFIG": False})):
        combined = metric.combine_sequences(
            {name: metric.eval_sequence(data) for name, data in work.items()}
        )
        figures |= {name: float(np.mean(combined[name])) for name in NAMES if name in combined}
    return figures


def plain_loop(root: Path, frames: int) -> Scores:
    """Read and score frame by frame, written straight from the definitions."""
    hota = np.zeros((3, len(ALPHAS)))  # matches, true boxes + predictions, association
    clear = np.zeros(4)  # matches, true boxes, predictions, switches
    agree_total = 0
    for truth in sorted((root / "gt").iterdir()):
        data = _sequence_data(truth, root / "pred" / truth.name, frames)
        shape = (data["num_gt_ids"], data["num_tracker_ids"])
        together, agree = np.zeros(shape), np.zeros(shape)
        gt_size, pred_size = np.zeros((shape[0], 1)), np.zeros((1, shape[1]))
        steps = list(
            zip(data["gt_ids"], data["tracker_ids"], data["similarity_scores"], strict=True)
        )
        for gt, pred, iou in steps:
            around = iou.sum(0)[None] + iou.sum(1)[:, None] - iou
            share = np.divide(iou, around, out=np.zeros_like(iou), where=around > EPS)
            together[gt[:, None], pred[None]] += share
            agree[gt[:, None], pred[None]] += iou >= 0.5
            gt_size[gt, 0] += 1
            pred_size[0, pred] += 1
        alignment = together / (gt_size + pred_size - together)
        hits = np.zeros((len(ALPHAS), *shape))
        last: dict[int, int] = {}
        before: dict[int, int] = {}
        for gt, pred, iou in steps:
            if len(gt) == 0 or len(pred) == 0:
                continue
            rows, cols = linear_sum_assignment(-alignment[gt[:, None], pred[None]] * iou)
            for a, alpha in enumerate(ALPHAS):
                ok = iou[rows, cols] >= alpha - EPS
                hits[a, gt[rows[ok]], pred[cols[ok]]] += 1
            keep = np.array([[before.get(int(g)) == p for p in pred] for g in gt])
            score = np.where(iou >= 0.5 - EPS, 1000.0 * keep + iou, 0)
            rows, cols = linear_sum_assignment(-score)
            ok = score[rows, cols] > 0
            before = dict(zip(gt[rows[ok]].tolist(), pred[cols[ok]].tolist(), strict=True))
            clear[3] += sum(last.get(g, p) != p for g, p in before.items())
            clear[0] += len(before)
            last |= before
        clear[1:3] += gt_size.sum(), pred_size.sum()
        hota[0] += hits.sum(axis=(1, 2))
        hota[1] += gt_size.sum() + pred_size.sum()
        hota[2] += (hits**2 / np.maximum(1, gt_size + pred_size - hits)).sum(axis=(1, 2))
        agree_total += agree[linear_sum_assignment(-agree)].sum()
    det = hota[0] / np.maximum(1, hota[1] - hota[0])
    ass = hota[2] / np.maximum(1, hota[0])
    return {
        "HOTA": float(np.sqrt(det * ass).mean()),
        "DetA": float(det.mean()),
        "AssA": float(ass.mean()),
        "MOTA": float((2 * clear[0] - clear[2] - clear[3]) / clear[1]),
        "IDF1": float(2 * agree_total / (clear[1] + clear[2])),
    }


def reference() -> tuple[str, Callable[[Path, int], Scores]]:
    """The reference that this machine has, and its name."""
    try:
        import trackeval.metrics  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "plain loop over frames (package trackeval is not installed)", plain_loop
    return "package trackeval (metric classes; files read by a plain loop)", trackeval_package


def timed(work: Callable[[], Scores], runs: int) -> tuple[float, Scores]:
    """Median seconds of several runs, and the figures."""
    seconds, figures = [], {}
    for _ in range(runs):
        start = perf_counter()
        figures = work()
        seconds.append(perf_counter() - start)
    return median(seconds), figures


def main(arguments: list[str]) -> None:
    """Run the benchmark with ``key=value`` arguments."""
    options = {"sequences": 25, "frames": 1200, "tracks": 10, "runs": 5, "reference_runs": 1}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options or not value.isdigit() or int(value) < 1:
            sys.exit(f"{argument}: expected one of {', '.join(options)}, as key=whole number >= 1")
        options[key] = int(value)
    sequences, frames, tracks = (options[key] for key in ("sequences", "frames", "tracks"))
    name, other = reference()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_work(root, sequences, frames, tracks)
        fast, figures = timed(lambda: ours(root, frames), options["runs"])
        slow, expected = timed(lambda: other(root, frames), options["reference_runs"])
    worst = max(abs(figures[key] - expected[key]) for key in NAMES)
    if worst > 1e-9:
        sys.exit(f"figures differ by {worst:.2e}: ours {figures}, {name} {expected}")
    print(f"{sequences} sequences x {frames} frames x {tracks} tracks, text files to figures")
    print("  " + "  ".join(f"{key} {figures[key]:.4f}" for key in NAMES))
    print(f"  scene_track {fast:8.2f} s  (median of {options['runs']})")
    print(f"  reference   {slow:8.2f} s  (median of {options['reference_runs']}): {name}")
    print(f"ratio: scoring, the reference's time to ours: {slow / fast:.1f}")
    print(f"  largest difference {worst:.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
