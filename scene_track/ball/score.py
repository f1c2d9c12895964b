"""Scores of a ball's result files against labelled clips, for ``scene_track.score``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scene_track.ball.metrics import BallCounts, count_ball, plain_ball_metrics
from scene_track.ball.point_files import PointRules, read_points
from scene_track.ball.tracknet import TrackNetFolder, clip_name, find_clips, find_labels
from scene_track.data.mot_files import find_results


def labelled_clips(folder: Path) -> list[Path]:
    """Clip folders somewhere in a folder, absolute; none if no clip has labels."""
    clips = find_clips(folder)
    if not any(find_labels(clip).is_file() for clip in clips):
        return []
    # A clip is called after the folder above it, which "." does not name.
    return [Path(os.path.abspath(clip)) for clip in clips]


def score_clips(clips: Sequence[Path], predictions: Path) -> dict[str, Any]:
    """Score every clip.

    Args:
        clips: folders of :func:`labelled_clips`.
        predictions: folder with one ``<game>_<clip>.csv`` per clip.

    Returns:
        As :func:`scene_track.score.score_folders`.

    Raises:
        FileNotFoundError: a clip has no labels, or a result file is missing.
        ValueError: two clips have one name, or a file holds rows that cannot be meant.
    """
    folders = {clip_name(clip): clip for clip in clips}
    if len(folders) < len(clips):
        raise ValueError(
            f"{len(clips)} clips have only {len(folders)} names, such as {next(iter(folders))}: "
            "results are stored by <game>_<clip>, so score the folders above them one by one"
        )
    files = find_results(predictions, list(folders), missing_from="ground truth", suffix=".csv")
    counts = {}
    for name, folder in folders.items():
        if not find_labels(folder).is_file():
            raise FileNotFoundError(
                f"{find_labels(folder)}: no such file; restore it, or score against a folder "
                "without this clip"
            )
        reader = TrackNetFolder(root=folder.parent, class_name="ball", frame_rate=30.0)
        clip = reader.read_clip(folder)
        rules = PointRules(frames=clip.frames.tolist(), every_frame=True)
        found, _ = read_points(files[name], rules)
        assert clip.points is not None
        counts[name] = count_ball(clip.points, found.points, clip.info.size)
    return {
        "combined": plain_ball_metrics(sum(counts.values(), start=BallCounts.zero())),
        "sequences": {name: plain_ball_metrics(count) for name, count in counts.items()},
    }
