"""Evaluate a checkpoint on whole videos: ``python -m scene_track.evaluate checkpoint=RUN``.

Runs the streaming tracker over a split, writes MOTChallenge result files, ``metrics.json``, a plot
of HOTA over the localisation threshold and, if asked for, clips with boxes and trails, and prints a
table per sequence and combined. Data and tracker are those of the checkpoint's run unless
``dataset=...`` or ``tracker=...`` is typed.

    python -m scene_track.evaluate checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.evaluate checkpoint=best.ckpt dataset=mot dataset.root=FOLDER \
        dataset.train=[A] dataset.val=[B] output=scores clips=1

``metrics.json`` is written last: a folder without it holds an evaluation that was stopped, or one
of a split without ground truth.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from scene_track.data.sequences import Sequence as Footage
    from scene_track.tracking.inference import SequenceTracks

log = logging.getLogger(__name__)

COLUMNS = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA", "IDSW", "FP", "FN", "frames_per_second")
"""What the table shows; ``metrics.json`` has everything."""

# What an evaluation writes into its folder; the first one tells that it is complete.
_WRITES = ("metrics.json", "hota.png", "tracks/*.txt", "clips/*.gif", "clips/*.mp4")


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    split: Literal["train", "val", "test"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    clips: Annotated[int, Field(ge=0)],
    clip_format: Literal["gif", "mp4"],
    clip_width: Annotated[int, Field(ge=64, le=4096)],
    **groups: Any,
) -> None:
    """What the command line accepts: the pre-flight check reads this signature.

    Args:
        checkpoint: run folder (its best checkpoint) or ``.ckpt``.
        split: which split of the data.
        output: folder for the results; None: ``evaluation_<split>`` in the run folder, or beside a
            checkpoint that lies in none.
        overwrite: replace an output folder's files.
        clips: sequences to draw, the first ones.
        clip_format: of the clips.
        clip_width: pixels; wider footage is scaled down to it.
        **groups: the configuration of a training run.
    """


def evaluate(cfg: DictConfig) -> float | None:
    """One evaluation, from a checked configuration to the combined HOTA (None: no truth)."""
    from scene_track.data.mot_files import write_atomic
    from scene_track.metrics.tracking import TrackingCounts, TrackingSequence, count_tracking
    from scene_track.score import format_table, plain_metrics
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.training.trained_run import load_run, run_folder, track_split
    from scene_track.viz.hota import plot_hota

    # All that can be wrong with the command is said before the minutes of tracking.
    path = resolve_checkpoint(cfg.checkpoint, prefer="best")
    folder = Path(cfg.output or run_folder(path) / f"evaluation_{cfg.split}")
    _check_output(folder, cfg.overwrite)
    if cfg.clips and cfg.clip_format == "mp4" and importlib.util.find_spec("av") is None:
        raise ValueError(
            "clip_format=mp4 needs PyAV: type pip install 'scene_track[video]', or clip_format=gif"
        )
    run = load_run(cfg)
    run.data.prepare_data()
    sequences = run.data.sequences(cfg.split)
    # The mark of a complete evaluation goes first: what is mixed with older files is not complete.
    for pattern in _WRITES:
        for file in sorted(folder.glob(pattern)):
            file.unlink()

    counts: dict[str, TrackingCounts] = {}
    speeds: dict[str, float] = {}
    frames, seconds = 0, 0.0
    for number, (sequence, tracks) in enumerate(track_split(run, cfg.split, folder / "tracks")):
        frames, seconds = frames + tracks.num_frames, seconds + tracks.compute_s
        speeds[sequence.name] = tracks.frames_per_second
        if sequence.labelled:
            counts[sequence.name] = count_tracking(
                TrackingSequence(sequence.table, tracks.table, sequence.info.length)
            )
        if number < cfg.clips:
            clip = folder / "clips" / f"{sequence.name}.{cfg.clip_format}"
            write_track_clip(clip, sequence, tracks, width=cfg.clip_width)
    speed = frames / max(seconds, 1e-9)
    log.info("%d sequences, %d frames, %.1f frames/s", len(sequences), frames, speed)
    if not counts:
        log.info("the %s split has no ground truth: result files only, in %s", cfg.split, folder)
        return None
    combined = plain_metrics(sum(counts.values(), start=TrackingCounts.zero()))
    scores = {
        "combined": combined | {"frames_per_second": speed},
        "sequences": {
            name: plain_metrics(count) | {"frames_per_second": speeds[name]}
            for name, count in counts.items()
        },
        "checkpoint": str(path),
        "split": cfg.split,
    }
    plot_hota(combined, folder / "hota.png")
    write_atomic(folder / "metrics.json", json.dumps(scores, indent=1, allow_nan=False) + "\n")
    print(format_table(scores, COLUMNS))
    clips = f", {min(cfg.clips, len(sequences))} clips" if cfg.clips else ""
    print(f"tracks, metrics.json, hota.png{clips} in {folder}; frames/s of model and tracker alone")
    return float(combined["HOTA"])


def write_track_clip(path: Path, footage: Footage, tracks: SequenceTracks, *, width: int) -> None:
    """Draw the tracks of a sequence on its frames, which are read once more, one by one.

    Args:
        path: ``.gif`` or ``.mp4`` to write.
        footage: the sequence.
        tracks: its tracks.
        width: pixels; wider footage is scaled down to it.
    """
    from scene_track.data.frame_store import read_frame
    from scene_track.viz.clips import GIF_MAX_FPS, write_clip
    from scene_track.viz.tracks import draw_tracks

    info = footage.info
    width = min(width, info.width)
    size = (max(1, round(info.height * width / info.width)), width)

    def frames() -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
        for position, frame in enumerate(footage.frames.tolist()):
            rows = tracks.table.at(frame)
            picture = read_frame(footage, position, size).permute(1, 2, 0).numpy()
            yield frame, picture, rows.boxes, rows.ids

    # A GIF of fast footage shows every second frame, or every third, at the speed of life.
    every = math.ceil(info.frame_rate / GIF_MAX_FPS) if path.suffix == ".gif" else 1
    drawn = draw_tracks(
        frames(),
        (info.height, info.width),
        name=footage.name,
        max_width=width,
        every=every,
    )
    write_clip(path, drawn, info.frame_rate / every)


def _check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is in use, saying what is in it.

    Raises:
        ValueError: it holds something and nobody typed ``overwrite=true``, or it is a file.
    """
    if folder.is_file():
        raise ValueError(f"output={folder} is a file, expected a folder: type output=FOLDER")
    if overwrite or not folder.exists() or not any(folder.iterdir()):
        return
    results = len(list(folder.glob("tracks/*.txt")))
    if (folder / "metrics.json").exists():
        what = f"a complete evaluation ({results} result files and metrics.json)"
    elif results:
        what = (
            f"{results} result files and no metrics.json (an evaluation that was stopped, or of a"
            " split without ground truth)"
        )
    else:
        what = f"other files, such as {min(entry.name for entry in folder.iterdir())}"
    raise ValueError(f"{folder} holds {what}: type overwrite=true to replace it, or output=FOLDER")


def main() -> None:
    """The command line."""
    run_main("evaluate", evaluate, root="scene_track.evaluate.options")


if __name__ == "__main__":
    main()
