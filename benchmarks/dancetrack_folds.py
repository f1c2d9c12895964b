"""Association on real DanceTrack by cross-validation: train on eight sequences, judge on two.

Each fold is a training of ``model=association`` per seed and a comparison with the trackers of
``scene_track.compare``, tuned on the fold's own training sequences. The baselines see the same
detections whatever the seed, so they are tuned and run with the first seed alone. A comparison that
exists is not made again; further words of the command line go to all trainings (``tuning_*`` to the
comparisons). At the end: the margins over the best baseline, and every row's mean and spread.

    python benchmarks/dancetrack_folds.py DATA --output FOLDER --folds 0,1,2,3,4 --seeds 1,2,3
    python benchmarks/dancetrack_folds.py DATA --output FOLDER trainer.max_epochs=6

DATA holds ``dancetrack/{gt,det}`` and, where they are there, ``sportsmot/gt`` and
``mot17_train_half/gt``, which train along with noise fitted to the detector of the fold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

# Sequences with few and with many dancers, and with steady and moving cameras, in every pair.
FOLDS = (
    ("dancetrack0004", "dancetrack0073"),
    ("dancetrack0005", "dancetrack0019"),
    ("dancetrack0007", "dancetrack0041"),
    ("dancetrack0025", "dancetrack0090"),
    ("dancetrack0030", "dancetrack0058"),
)
FIGURES = ("HOTA", "DetA", "AssA", "IDF1")
OWN = "own tracker, causal"


def run_fold(
    data: Path, output: Path, fold: int, seed: int, words: list[str], *, baselines: bool
) -> dict:
    """The comparison of one fold and seed, as ``compare`` writes it."""
    folder = output / f"fold{fold}_seed{seed}"
    result = folder / "comparison_val" / "comparison.json"
    if not result.is_file():
        train = [name for pair in FOLDS if pair != FOLDS[fold] for name in pair]
        further = ",".join(
            f"{{root: {data / name / 'gt'}, detections: noise, weight: 0.5}}"
            for name in ("sportsmot", "mot17_train_half")
            if (data / name / "gt").is_dir()
        )
        compare = [word for word in words if word.startswith("tuning_")]
        run("train", "model=association", "dataset=dancetrack",
            f"dataset.root={data / 'dancetrack' / 'gt'}",
            f"dataset.detections={data / 'dancetrack' / 'det'}",
            f"dataset.train=[{','.join(train)}]", f"dataset.val=[{','.join(FOLDS[fold])}]",
            f"dataset.further=[{further}]", f"dataset.cache_dir={output / 'cache'}",
            f"seed={seed}", f"hydra.run.dir={folder}",
            *(word for word in words if word not in compare))  # fmt: skip
        run("compare", f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}",
            f"output={result.parent}", "overwrite=true",
            *([] if baselines else ["baselines=[]"]), *compare)  # fmt: skip
    return json.loads(result.read_text())


def run(module: str, *words: str) -> None:
    """One command of the package; its log goes to the terminal, and its error ends the program."""
    code = subprocess.run([sys.executable, "-m", f"scene_track.{module}", *words]).returncode
    if code:
        raise SystemExit(code)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="DanceTrack by cross-validation")
    parser.add_argument(
        "data", type=Path, help="folder that holds dancetrack/gt and dancetrack/det"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--folds", default="0,1,2,3,4", help="numbers of the folds, 0-4")
    parser.add_argument("--seeds", default="1", help="seeds of the trainings")
    typed, words = parser.parse_known_args()
    rows: dict[str, list[list[float]]] = {}
    own: dict[int, list[list[float]]] = {}
    others: dict[int, list[list[float]]] = {}
    seeds = [int(seed) for seed in typed.seeds.split(",")]
    for fold in map(int, typed.folds.split(",")):
        for seed in seeds:
            result = run_fold(
                typed.data.resolve(), typed.output.resolve(), fold, seed, words,
                baselines=seed == seeds[0],
            )  # fmt: skip
            for name, row in result["rows"].items():
                figures = [100 * row[figure] for figure in FIGURES]
                rows.setdefault(name, []).append(figures)
                if name == OWN:
                    own.setdefault(fold, []).append(figures)
                elif name.endswith((", stock", ", tuned")) and not name.startswith("own"):
                    others.setdefault(fold, []).append(figures)
    print("own tracker (mean of the seeds) / best baseline of each figure, by fold")
    margins = []
    for fold, seen in own.items():
        mean, best = np.mean(seen, axis=0), np.max(others[fold], axis=0)
        margins.append(mean - best)
        cells = "  ".join(f"{a:5.1f} / {b:5.1f}" for a, b in zip(mean, best, strict=True))
        print(f"fold {fold} ({' '.join(FOLDS[fold])})  {cells}")
    gains = zip(FIGURES, np.mean(margins, axis=0), np.min(margins, axis=0), strict=True)
    print(
        "gain: "
        + "  ".join(f"{name} {gain:+.1f} (least {least:+.1f})" for name, gain, least in gains)
    )
    print("mean of folds and seeds (standard deviation)")
    for name, values in rows.items():
        cells = zip(np.mean(values, axis=0), np.std(values, axis=0), strict=True)
        print(f"{name:40}" + "  ".join(f"{mean:5.1f} ({spread:4.1f})" for mean, spread in cells))


if __name__ == "__main__":
    main()
