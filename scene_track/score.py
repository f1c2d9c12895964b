"""Score result files against ground truth, without torch: boxes (HOTA, CLEAR, Identity) or a ball.

    python -m scene_track.score ground_truth=data/dancetrack/val predictions=outputs/run/tracks \
        output=scores.json
    python -m scene_track.score ground_truth=data/tracknet/game8 predictions=outputs/run/tracks

Special here: files are checked before anything is counted, and whatever is wrong with the arguments
or the files is one line on stderr and exit code 2. The heavy imports wait until there is work.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "score_folders"]

HELP = """\
Score tracking results. Which kind they are is seen by the layout of the ground truth: boxes get
HOTA, CLEAR and Identity as TrackEval defines them, a ball gets PCK, L2 and the F1 of WASB and of
TrackNetV3.

  python -m scene_track.score ground_truth=DIR predictions=DIR [benchmark=auto] \\
      [output=FILE.json] [overwrite=true]

  ground_truth=DIR   one folder per sequence: DIR/<seq>/gt/gt.txt and DIR/<seq>/seqinfo.ini.
                     Rows: frame,id,left,top,width,height,flag[,class[,visibility]]; frames from 1,
                     pixels. Rows with flag 0 are not scored.
  predictions=DIR    one file per sequence: DIR/<seq>.txt. An empty file: nothing was found.
                     Rows: frame,id,left,top,width,height,confidence,-1,-1,-1

                     Of a ball:
  ground_truth=DIR   clips somewhere in DIR: <game>/<clip>/{0000.jpg, Label.csv} (TrackNet) or
                     <match>/{frame/<rally>/0.png, csv/<rally>_ball.csv} (TrackNetV2 and V3).
  predictions=DIR    one file per clip: DIR/<game>_<clip>.csv, one row per frame, in order.
                     Header and rows: frame,visibility,x,y[,confidence]; pixels of the pictures, an
                     integer is the centre of a pixel; visibility 0: nothing found, x and y blank.

  benchmark=NAME     whose rules hold, of boxes: mot15, mot17 (also MOT16), mot20, dancetrack,
                     sportsmot. mot17 and mot20 first remove predictions that are matched to
                     distractors (people in vehicles, statues, reflections) and then score
                     pedestrians alone. Default: auto, by the sequences' names and classes; what was
                     chosen is printed.
  output=FILE.json   where to write {"combined": {...}, "sequences": {"<seq>": {...}}}, fractions as
                     0-1 in full precision. Without it the table is all there is.
  overwrite=true     replace an output file that exists. Default: false.

Prints one line per sequence and COMBINED (raw counts of all sequences added up), fractions in
percent. Exit code 2 and one line on stderr if the arguments or a file are wrong.
"""

KEYS = ("ground_truth", "predictions", "output", "overwrite", "benchmark")


def score_folders(ground_truth: Path, predictions: Path, benchmark: str = "auto") -> dict[str, Any]:
    """Score every sequence of a folder.

    Args:
        ground_truth: folder of sequence folders, each with ``gt/gt.txt`` and ``seqinfo.ini``, or of
            clips of a ball in the TrackNet layout.
        predictions: folder with one ``<seq>.txt`` per sequence, or one ``<game>_<clip>.csv`` per
            clip.
        benchmark: whose preprocessing is applied to boxes, see
            :mod:`scene_track.metrics.benchmark`; ``auto`` tells it by the ground truth.

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: ``key=value`` words; None takes them from the command line.

    Returns:
        Exit code: 0, or 2 after one line on stderr.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in words or "-h" in words:
        print(HELP, end="")
        return 0
    try:
        options = _parse(words)
        output = _output_file(options)
        chosen = options.get("benchmark", "auto")
        truth, found = Path(options["ground_truth"]), Path(options["predictions"])
        scores = score_folders(truth, found, chosen)
        print(_table(scores))
        if "benchmark" in scores:
            how = "by the ground truth" if chosen == "auto" else "as typed"
            print(f"benchmark: {scores['benchmark']} ({how})")
        if output is not None:
            from scene_track.io.atomic import write_atomic

            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(output, json.dumps(scores, indent=1, allow_nan=False) + "\n")
            print(f"written: {output}")
    except (ValueError, OSError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 2
    return 0


def _table(scores: dict[str, Any]) -> str:
    from scene_track.ball.metrics import BALL_COLUMNS, BALL_FRACTIONS
    from scene_track.metrics.table import format_table

    if "pck_5" in scores["combined"]:
        return format_table(scores, BALL_COLUMNS, BALL_FRACTIONS)
    return format_table(scores)


def _parse(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(f"{word!r}: expected key=value with one of {', '.join(KEYS)}")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown key {key!r}{hint} (keys: {', '.join(KEYS)})")
        if key in options:
            raise ValueError(f"{key} is given twice: {options[key]} and {value}")
        options[key] = value
    for key in ("ground_truth", "predictions"):
        if key not in options:
            raise ValueError(f"{key} is missing, type {key}=DIR (--help explains)")
    if options.setdefault("overwrite", "false") not in ("true", "false"):
        raise ValueError(f"overwrite={options['overwrite']}: expected true or false")
    return options


def _output_file(options: dict[str, str]) -> Path | None:
    if "output" not in options:
        return None
    output = Path(options["output"])
    if output.is_dir():
        raise ValueError(
            f"output={output} is a folder, expected a file such as {output}/scores.json"
        )
    if output.exists() and options["overwrite"] != "true":
        raise ValueError(f"output={output} exists, type overwrite=true to replace it")
    return output


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


if __name__ == "__main__":
    sys.exit(main())
