"""Compare a checkpoint's tracker with ByteTrack: ``python -m scene_track.compare checkpoint=RUN``.

Special here: every tracker is given the same detections, of one pass of the model. ByteTrack is
shown as it comes and at its best, its parameters chosen on training sequences; the oracle shows
what association could reach at all; ByteTrack on the ground truth, exact and with stated errors,
shows what it does with boxes that owe nothing to the model. Data and tracker are those of the
checkpoint's run unless ``dataset=...`` or ``tracker=...`` is typed.

    python -m scene_track.compare checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.compare checkpoint=best.ckpt output=comparison tuning_combinations=200
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main
from scene_track.config.shipped import build_option

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scene_track.data.noise import Noise
    from scene_track.data.video import Video
    from scene_track.tracking.comparison import Row
    from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
    from scene_track.tracking.tuning import Tuned
    from scene_track.training.trained_run import TrainedRun

log = logging.getLogger(__name__)


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    split: Literal["val", "test"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    tuning_sequences: Annotated[int, Field(ge=1)],
    tuning_combinations: Annotated[int, Field(ge=1)],
    **groups: Any,
) -> None:
    """What the command line accepts: the pre-flight check reads this signature.

    Args:
        checkpoint: run folder (its best checkpoint) or ``.ckpt``.
        split: what is scored; never the training split, on which parameters are chosen.
        output: folder for the results; None: ``comparison_<split>`` in the run folder, or beside a
            checkpoint that lies in none.
        overwrite: replace an output folder's files.
        tuning_sequences: training sequences that ByteTrack's parameters are chosen on.
        tuning_combinations: parameters that are tried.
        **groups: the configuration of a training run; its ``seed`` also draws the combinations and
            the errors of the noisy ground truth (``seed + 1`` those of the training sequences).
    """


def compare(cfg: DictConfig) -> float:
    """One comparison, from a checked configuration to the HOTA of the model's own tracker."""
    from scene_track.data.noise import Noise
    from scene_track.io.atomic import write_atomic
    from scene_track.tracking.comparison import CAUSAL, report, summarise
    from scene_track.training.checkpointing import load_checkpoint, resolve_checkpoint
    from scene_track.training.trained_run import load_run, need_boxes, run_folder

    # All that can be wrong with the command is said before the minutes of tracking.
    path = resolve_checkpoint(cfg.checkpoint, prefer="best")
    folder = Path(cfg.output or run_folder(path) / f"comparison_{cfg.split}")
    _check_output(folder, cfg.overwrite)
    run = load_run(cfg)
    need_boxes(run, "compare")
    run.data.prepare_data()
    scored = run.data.sequences(cfg.split)
    training = run.data.sequences("train")
    _refuse_what_cannot_be_compared(cfg.split, scored, training)
    noise = Noise()
    result = summarise(*_track_all(cfg, run, scored, training[: cfg.tuning_sequences], noise))
    result |= {
        "checkpoint": str(path),
        "epochs": _epochs(load_checkpoint(path)),
        "precision": run.precision,
        "split": cfg.split,
        "sequences": len(scored),
        "seed": int(cfg.seed),
        "noise": asdict(noise),
    }
    text = report(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "comparison.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_atomic(folder / "comparison.md", text)
    print(text)
    print(f"comparison.json and comparison.md in {folder}")
    return float(result["rows"][CAUSAL]["HOTA"])


def _track_all(
    cfg: DictConfig, run: TrainedRun, scored: list[Video], training: list[Video], noise: Noise
) -> tuple[dict[str, Row], dict[str, Tuned]]:
    """The rows of the table by name, and what ByteTrack's tuning found by the name of its row."""
    from scene_track.data.noise import EXACT
    from scene_track.tracking import comparison as names
    from scene_track.tracking.comparison import Row
    from scene_track.tracking.inference import detect_videos
    from scene_track.tracking.noisy_truth import truth_as_detections
    from scene_track.tracking.tuning import light, tune_bytetrack

    trackers = _own_trackers(run.tracker)
    oracle, duplicate_iou = _same_gates(run.tracker)
    run.to_device()
    seed = int(cfg.seed)

    def detect(split: str) -> Iterator[tuple[VideoInfo, Detections]]:
        windows = run.data.stream_dataloader(split)
        return detect_videos(run.model, windows, device=run.device, precision=run.autocast)

    def tuned_on(frames: Iterable[tuple[VideoInfo, Detections]], what: str) -> Tuned:
        found = tune_bytetrack(
            [(video, light(detections, duplicate_iou)) for video, detections in frames],
            {sequence.name: sequence for sequence in training},
            combinations=cfg.tuning_combinations,
            seed=seed,
            duplicate_iou=duplicate_iou,
        )
        log.info(
            "ByteTrack tuned on %s of %d training sequences: HOTA %.1f, stock %.1f (%d tried)",
            *(what, len(found.sequences), 100 * found.hota, 100 * found.stock_hota, found.tried),
        )
        return found

    # Training sequences first: nothing of the scored split is known when parameters are chosen.
    tuning = {
        names.TUNED: tuned_on(_first_videos(detect("train"), len(training)), "detections"),
        names.ON_EXACT: tuned_on(
            truth_as_detections(training, EXACT, seed=seed + 1), "exact truth"
        ),
        names.ON_NOISY: tuned_on(
            truth_as_detections(training, noise, seed=seed + 1), "noisy truth"
        ),
    }
    trackers |= {
        names.STOCK: build_option("tracker", "bytetrack", duplicate_iou=duplicate_iou),
        names.TUNED: build_option("tracker", "bytetrack", **tuning[names.TUNED].parameters),
        names.ORACLE: oracle,
    }
    rows = {name: Row(tracker, "the model's") for name, tracker in trackers.items()}
    truth = {sequence.name: sequence for sequence in scored}
    for _, frames in groupby(detect(cfg.split), key=lambda pair: pair[0]):
        video = list(frames)  # one video at a time is held, however many trackers see it
        for row in rows.values():
            row.take(video, truth, run.model.identity)
    for name, errors in ((names.ON_EXACT, EXACT), (names.ON_NOISY, noise)):
        boxes = "ground truth" if errors.exact else f"ground truth, {errors}"
        rows[name] = Row(build_option("tracker", "bytetrack", **tuning[name].parameters), boxes)
        rows[name].take(list(truth_as_detections(scored, errors, seed=seed)), truth, None)
    return rows, tuning


def _refuse_what_cannot_be_compared(
    split: str, scored: Sequence[Video], training: Sequence[Video]
) -> None:
    """Raise a ``ValueError`` where there is no ground truth, or where tuning would see it."""
    bare = [sequence.name for sequence in scored if not sequence.labelled]
    if bare:
        raise ValueError(
            f"the {split} split has no ground truth to compare with ({len(bare)} of {len(scored)}"
            f" sequences have no gt/gt.txt, first {bare[0]}): type split=val"
        )
    seen = {(s.folder.resolve(), frame) for s in training for frame in s.frames.tolist()}
    for sequence in scored:
        if seen & {(sequence.folder.resolve(), frame) for frame in sequence.frames.tolist()}:
            raise ValueError(
                f"{sequence.name} of the {split} split is also in the training split, on"
                " which the model was trained and ByteTrack's parameters are chosen: name other"
                f" sequences by dataset.train=... or dataset.{split}=..."
            )


def _check_output(folder: Path, overwrite: bool) -> None:
    """Raise a ``ValueError`` where something would be overwritten that nobody gave up."""
    if folder.is_file():
        raise ValueError(f"output={folder} is a file, expected a folder: type output=FOLDER")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(
            f"{folder} is not empty, it holds {min(entry.name for entry in folder.iterdir())}:"
            " type overwrite=true to replace a comparison in it, or output=FOLDER"
        )


def _own_trackers(tracker: Tracker) -> dict[str, Tracker]:
    """The configured tracker without lookahead and, if it has one, as it is."""
    from scene_track.tracking.baselines import ByteTrack
    from scene_track.tracking.comparison import CAUSAL, CONFIGURED
    from scene_track.tracking.oracle import OracleTracker

    if isinstance(tracker, ByteTrack | OracleTracker):
        raise ValueError(
            f"the run's own tracker would be {type(tracker).__name__}, which is in the table"
            " anyway: type tracker=identity, or another tracker of your own"
        )
    if not tracker.lookahead:
        return {CAUSAL: tracker}
    causal = copy.copy(tracker)  # what it remembers of a video is made anew by `start`
    causal.lookahead = 0
    return {CAUSAL: causal, CONFIGURED: tracker}


def _same_gates(tracker: Tracker) -> tuple[Tracker, float]:
    """The oracle and the duplicate threshold that let the same detections in as ``tracker``."""
    from scene_track.tracking.streaming import IdentityTracker

    if isinstance(tracker, IdentityTracker):
        gates = {
            "exist_conf": tracker.low_conf,
            "birth": tracker.birth,
            "duplicate_iou": tracker.duplicate_iou,
        }
        return build_option("tracker", "oracle", **gates), tracker.duplicate_iou
    oracle = build_option("tracker", "oracle")
    return oracle, oracle.duplicate_iou


def _first_videos(
    frames: Iterable[tuple[VideoInfo, Detections]], count: int
) -> Iterator[tuple[VideoInfo, Detections]]:
    """The frames of the first ``count`` videos; the model runs on no others."""
    for _, video in islice(groupby(frames, key=lambda pair: pair[0]), count):
        yield from video


def _epochs(content: dict[str, Any]) -> int | None:
    """Epochs that a checkpoint was trained for, None if it does not say."""
    epoch = content.get("epoch")
    return None if epoch is None else int(epoch) + 1


def main() -> None:
    """The command line."""
    run_main("compare", compare, root="scene_track.compare.options")


if __name__ == "__main__":
    main()
