"""Score result files against ground truth, without torch: boxes or a ball.

Boxes get HOTA, CLEAR and Identity as TrackEval defines them, a ball PCK, L2 and the F1 of WASB and
of TrackNetV3. Prints one line per sequence and COMBINED (raw counts of all sequences added up),
fractions in percent. Files are checked before anything is counted.

    python -m scene_track.score ground_truth=data/dancetrack/val predictions=outputs/run/tracks \
        output=scores.json
    python -m scene_track.score ground_truth=data/tracknet/game8 predictions=outputs/run/tracks
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from scene_track.config.cli import run_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def options(
    *,
    ground_truth: Annotated[str, Field(min_length=1)],
    predictions: Annotated[str, Field(min_length=1)],
    benchmark: Literal["auto", "mot15", "mot16", "mot17", "mot20", "dancetrack", "sportsmot"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
) -> None:
    """What the command line accepts; ``conf/score.yaml`` explains it."""


def score(cfg: DictConfig) -> None:
    """One scoring, from a checked configuration to a table."""
    from scene_track.ball.metrics import BALL_COLUMNS, BALL_FRACTIONS
    from scene_track.io.atomic import write_atomic
    from scene_track.metrics.table import format_table

    output = None if cfg.output is None else Path(cfg.output)
    if output is not None and output.is_dir():
        raise ValueError(f"output={output} is a folder, expected a file: type output=FILE.json")
    if output is not None and output.exists() and not cfg.overwrite:
        raise ValueError(f"output={output} exists, type overwrite=true to replace it")
    scores = score_folders(Path(cfg.ground_truth), Path(cfg.predictions), cfg.benchmark)
    ball = (BALL_COLUMNS, BALL_FRACTIONS) if "pck_5" in scores["combined"] else ()
    print(format_table(scores, *ball))
    if "benchmark" in scores:
        how = "by the ground truth" if cfg.benchmark == "auto" else "as typed"
        print(f"benchmark: {scores['benchmark']} ({how})")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, json.dumps(scores, indent=1, allow_nan=False) + "\n")
        print(f"written: {output}")


def score_folders(ground_truth: Path, predictions: Path, benchmark: str = "auto") -> dict[str, Any]:
    """Score every sequence of a folder.

    Returns:
        ``{"combined": metrics, "sequences": {name: metrics}}``, of boxes also ``benchmark``. The
        metrics are those of :func:`scene_track.metrics.tracking.tracking_metrics`, with lists in
        place of arrays, or of :func:`scene_track.ball.metrics.ball_metrics`, with None for what is
        infinite.

    Raises:
        FileNotFoundError: if a folder or file is missing, on either side.
        ValueError: if a file holds rows that cannot be meant.
    """
    from scene_track.ball.score import labelled_clips, score_clips
    from scene_track.data.seqinfo import sequence_folders

    if not ground_truth.is_dir():
        raise FileNotFoundError(
            f"ground_truth={ground_truth}: no such folder, type ground_truth=DIR"
        )
    of_boxes = (ground_truth / "gt").is_dir() or bool(sequence_folders(ground_truth))
    if of_boxes or not (clips := labelled_clips(ground_truth)):
        return _score_boxes(ground_truth, predictions, benchmark)
    if benchmark != "auto":
        raise ValueError(f"benchmark={benchmark} is of boxes, and this is a ball: leave it out")
    return score_clips(clips, predictions)


def _score_boxes(ground_truth: Path, predictions: Path, benchmark: str) -> dict[str, Any]:
    from scene_track.data.mot_files import find_results, read_boxes
    from scene_track.data.seqinfo import read_length
    from scene_track.metrics.benchmark import detect_benchmark, known, preprocess
    from scene_track.metrics.table import plain_metrics
    from scene_track.metrics.tracking import TrackingCounts, TrackingSequence, count_tracking

    rules = None if benchmark == "auto" else known(benchmark)
    names = _sequence_names(ground_truth)
    files = find_results(predictions, names, missing_from="ground truth")
    sequences = {}
    for name in names:
        length = read_length(ground_truth / name)
        truth, _ = read_boxes(ground_truth / name / "gt" / "gt.txt", length=length)
        found, _ = read_boxes(files[name], kind="result", length=length)
        sequences[name] = TrackingSequence(truth, found, length)
    if rules is None:
        rules = detect_benchmark(names, (one.ground_truth for one in sequences.values()))
    counts = {name: count_tracking(preprocess(one, rules)) for name, one in sequences.items()}
    return {
        "combined": plain_metrics(sum(counts.values(), start=TrackingCounts.zero())),
        "sequences": {name: plain_metrics(count) for name, count in counts.items()},
        "benchmark": rules,
    }


def _sequence_names(ground_truth: Path) -> list[str]:
    from scene_track.data.seqinfo import sequence_folders
    from scene_track.io.tables import first_few

    if (ground_truth / "gt" / "gt.txt").is_file():
        raise ValueError(
            f"ground_truth={ground_truth} is one sequence, expected the folder above it: "
            f"type ground_truth={ground_truth.resolve().parent}"
        )
    sequences = sequence_folders(ground_truth)
    if not sequences:
        raise FileNotFoundError(
            f"ground_truth={ground_truth}: holds no sequence, expected <seq>/gt/gt.txt and "
            "<seq>/seqinfo.ini in it, or <game>/<clip>/Label.csv of a ball"
        )
    bare = [folder.name for folder in sequences if not (folder / "gt" / "gt.txt").is_file()]
    if bare:
        raise FileNotFoundError(
            f"ground_truth={ground_truth}: no gt/gt.txt in {first_few(bare)}: restore the file,"
            " or score against a folder without these sequences"
        )
    return [folder.name for folder in sequences]


def main() -> None:
    """The command line."""
    run_main("score", score, root="scene_track.score.options")


if __name__ == "__main__":
    main()
