"""Evaluate a checkpoint on whole videos: ``python -m scene_track.evaluate checkpoint=RUN``.

Runs the streaming tracker over a split, writes result files, ``metrics.json``, pictures and, if
asked for, clips with what was tracked, and prints a table per sequence and combined: of people HOTA
and its kin and MOTChallenge files, of a ball PCK and its kin and CSV files. Data and tracker are
those of the checkpoint's run unless ``dataset=...`` or ``tracker=...`` is typed.

    python -m scene_track.evaluate checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.evaluate checkpoint=best.ckpt dataset=mot dataset.root=FOLDER \
        dataset.train=[A] dataset.val=[B] output=scores clips=1

``metrics.json`` is written last: a folder without it holds an evaluation that was stopped, or one
of a split without ground truth.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main
from scene_track.config.paths import output_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scene_track.data.video import Video
    from scene_track.tracking.fault_report import FaultReport
    from scene_track.tracking.split_report import SplitReport
    from scene_track.training.trained_run import TrainedRun

log = logging.getLogger(__name__)


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    split: Literal["train", "val", "test"],
    benchmark: Literal["auto", "mot15", "mot16", "mot17", "mot20", "dancetrack", "sportsmot"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    clips: Annotated[int, Field(ge=0)],
    clip_format: Literal["gif", "mp4"],
    clip_width: Annotated[int, Field(ge=64, le=4096)],
    faults: Annotated[int, Field(ge=0)],
    faults_against: Literal["sort", "bytetrack", "ocsort", "botsort", "cbiou"] | None,
    **groups: Any,
) -> None:
    """What the command line accepts; ``conf/evaluate.yaml`` explains it."""


def evaluate(cfg: DictConfig) -> float | None:
    """One evaluation, from a checked configuration to the one metric that sums it up.

    Returns:
        HOTA of people, PCK@5 px of a ball; None where the split has no ground truth.
    """
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.training.trained_run import run_folder

    path = resolve_checkpoint(cfg.checkpoint, prefer="best")
    folder = Path(cfg.output or run_folder(path) / f"evaluation_{cfg.split}")
    with output_folder(folder, overwrite=cfg.overwrite, what="an evaluation"):
        return _evaluate(cfg, path, folder)


def _evaluate(cfg: DictConfig, path: Path, folder: Path) -> float | None:
    """Evaluate a checkpoint into a folder that is this command's own."""
    from scene_track.io.atomic import write_atomic
    from scene_track.training.trained_run import load_run, track_split

    # All that can be wrong with the command is said before the minutes of tracking.
    run = load_run(cfg)
    run.data.prepare_data()
    sequences = run.data.sequences(cfg.split)
    report = run.evaluator.report(sequences, cfg.benchmark)
    faults = _fault_report(cfg, run, sequences, report)
    _remove_older(folder, report)

    speeds: dict[str, float] = {}
    frames, seconds = 0, 0.0
    watch = None if faults is None else faults.watch
    tracked = track_split(run, cfg.split, folder / "tracks", watch)
    for number, (sequence, tracks) in enumerate(tracked):
        frames, seconds = frames + tracks.num_frames, seconds + tracks.compute_s
        speeds[sequence.name] = tracks.frames_per_second
        if sequence.labelled:
            report.count(sequence, tracks)
        if faults is not None:
            faults.count(sequence, tracks)
        if number < cfg.clips:
            clip = folder / "clips" / f"{sequence.name}.{cfg.clip_format}"
            report.write_clip(clip, sequence, tracks, width=cfg.clip_width)
    speed = frames / max(seconds, 1e-9)
    log.info("%d sequences, %d frames, %.1f frames/s", len(sequences), frames, speed)
    counted = report.scores()
    if counted is None:
        log.info("the %s split has no ground truth: result files only, in %s", cfg.split, folder)
        return None
    combined, single = counted
    scores = {
        "combined": combined | {"frames_per_second": speed},
        "sequences": {
            name: metrics | {"frames_per_second": speeds[name]} for name, metrics in single.items()
        },
        "checkpoint": str(path),
        "split": cfg.split,
        "benchmark": report.benchmark,
        "precision": run.precision,
    }
    report.pictures(folder, combined)
    if faults is not None:
        faults.write(folder, cfg.faults, f"Faults on the {cfg.split} split, {path}")
        print(f"the worst faults: {folder / 'faults' / 'page.html'}")
    write_atomic(folder / "metrics.json", json.dumps(scores, indent=1, allow_nan=False) + "\n")
    print(report.table(scores))
    if report.benchmark is not None:
        how = "by the ground truth" if cfg.benchmark == "auto" else "as typed"
        print(f"benchmark: {report.benchmark} ({how})")
    clips = f", {min(cfg.clips, len(sequences))} clips" if cfg.clips else ""
    print(f"tracks, metrics.json, pictures{clips} in {folder}; frames/s of model and tracker alone")
    return float(combined[report.OBJECTIVE])


def _fault_report(
    cfg: DictConfig, run: TrainedRun, sequences: Sequence[Video], report: SplitReport
) -> FaultReport | None:
    """What will find and show the faults, None if none are asked for."""
    if not cfg.faults:
        return None
    from scene_track.config.shipped import build_option
    from scene_track.metrics.benchmark import known
    from scene_track.tracking.comparison import TITLES
    from scene_track.tracking.fault_report import ORACLE, FaultReport
    from scene_track.tracking.oracle import oracle_behind
    from scene_track.training.trained_run import need_boxes, need_truth

    need_boxes(run, "faults=")
    need_truth(sequences, cfg.split, f"faults={cfg.faults}")
    assert report.benchmark is not None
    others = {ORACLE: oracle_behind(run.tracker)}
    if cfg.faults_against is not None:
        others[TITLES[cfg.faults_against]] = build_option("tracker", cfg.faults_against)
    return FaultReport(known(report.benchmark), others)


def _remove_older(folder: Path, report: SplitReport) -> None:
    """Remove the files of an evaluation before, the mark of a complete one first."""
    from scene_track.tracking.fault_report import WRITES

    for pattern in ("metrics.json", *report.WRITES, *WRITES):
        for file in sorted(folder.glob(pattern)):
            file.unlink()


def main() -> None:
    """The command line."""
    run_main("evaluate", evaluate, root="scene_track.evaluate.options")


if __name__ == "__main__":
    main()
