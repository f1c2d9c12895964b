"""Track a video with a checkpoint: ``python -m scene_track.predict checkpoint=RUN source=VIDEO``.

Writes one folder: the tracks as MOTChallenge rows (of a ball a CSV file) and as JSON with times,
and the video with the tracks drawn on it. Reading, model and drawing work side by side, and memory
does not grow with the length of the video. Ctrl-C ends the video early and keeps what was done.

    python -m scene_track.predict checkpoint=outputs/runs/NAME/TIME source=video.mp4
    python -m scene_track.predict checkpoint=best.ckpt source='frames/*.jpg' fps=25 output=tracks
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main
from scene_track.config.paths import output_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scene_track.api import FrameTracks, Run, Speeds
    from scene_track.data.footage import Footage

log = logging.getLogger(__name__)

_CTRL_C = 130
_WAITING = 16  # frames that may wait to be drawn
_LOG_EVERY_S = 30.0  # where there is no terminal


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    source: str | int,
    fps: Annotated[float, Field(gt=0)] | None,
    detections: FilePath | None,
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    video: Literal["mp4", "gif"] | None,
    video_width: Annotated[int, Field(ge=64, le=8192)],
    **groups: Any,
) -> None:
    """What the command line accepts; ``conf/predict.yaml`` explains it."""


def predict(cfg: DictConfig) -> None:
    """One prediction, from a checked configuration to a folder.

    Raises:
        FileNotFoundError: there is no such source.
        SystemExit: with code 130 after Ctrl-C, when what was done is written.
        ValueError: the source is no video, or checkpoint and tracker do not fit.
    """
    from hydra.core.hydra_config import HydraConfig

    from scene_track.api import load
    from scene_track.config.trained import refuse_without_effect, with_typed
    from scene_track.data.footage import open_footage
    from scene_track.io.atomic import atomic_folder

    typed = HydraConfig.get().overrides.task
    refuse_without_effect(typed)
    footage = open_footage(cfg.source, cfg.fps)
    folder = Path(cfg.output or Path(HydraConfig.get().runtime.output_dir) / footage.name)
    with output_folder(folder, overwrite=cfg.overwrite, what="a prediction", appears=True):
        _refuse_strange(folder)
        run = load(cfg.checkpoint, trusted=cfg.trusted_targets)
        if any(word.lstrip("+~").startswith("tracker") for word in typed):
            run = run.with_tracker(with_typed(run.config, cfg, typed, "tracker").tracker)
        with _stop_on_ctrl_c() as stop, atomic_folder(folder) as temporary:
            done = write_tracks(
                run,
                footage,
                temporary,
                detections=cfg.detections,
                video=cfg.video,
                width=cfg.video_width,
                stop=stop,
            )
    print(done.summary)
    print(f"{', '.join(done.files)} in {folder}")
    if stop.is_set():
        print(f"stopped by Ctrl-C after frame {done.last}: what was done until then is kept")
        raise SystemExit(_CTRL_C)


@dataclass(frozen=True)
class Done:
    """What was written of a video.

    Attributes:
        summary: one line: what was found, and how fast each part was by itself.
        files: names of the files.
        last: number of the last frame.
        frames_per_second: of all together.
    """

    summary: str
    files: tuple[str, ...]
    last: int
    frames_per_second: float


def write_tracks(
    run: Run,
    footage: Footage,
    folder: Path,
    *,
    detections: str | Path | None,
    video: Literal["mp4", "gif"] | None,
    width: int,
    stop: threading.Event,
) -> Done:
    """Track footage into a folder that exists; reading, model and drawing work side by side.

    Args:
        run: the checkpoint.
        footage: is taken to its end and closed.
        folder: where the files are written.
        detections: see ``Run.track``.
        video: kind of the drawn video; None draws none.
        width: pixels; wider frames are scaled down to it in the drawn video.
        stop: once set, no further frame is read.
    """
    from scene_track.api import Speeds

    speeds, started = Speeds(), time.perf_counter()
    frames = run.follow(footage, detections=detections, speeds=speeds, stop=stop)
    results = _Results(folder, footage, run, video, width)
    try:
        for frame in _with_progress(frames, footage.length):
            results.behind.put(frame)
    finally:
        results.close(complete=not stop.is_set())
    elapsed_s = max(time.perf_counter() - started, 1e-9)
    return Done(
        summary=_summary(results, speeds, elapsed_s),
        files=tuple(results.files),
        last=results.last,
        frames_per_second=speeds.frames / elapsed_s,
    )


def _refuse_strange(folder: Path) -> None:
    """Refuse to replace a folder that holds more than a prediction, as ``ValueError``."""
    strange = [file.name for file in folder.glob("*") if file.name not in _FILES]
    if strange:
        raise ValueError(
            f"{folder} holds more than a prediction, such as {min(strange)}: type another"
            " output=FOLDER"
        )


_FILES = ("tracks.txt", "ball.csv", "tracks.json", "video.mp4", "video.gif")


class _Results:
    """Writes and draws the frames in a thread of its own, as they come."""

    def __init__(
        self,
        folder: Path,
        footage: Footage,
        run: Run,
        video: Literal["mp4", "gif"] | None,
        width: int,
    ) -> None:
        from scene_track.ball.images import FlightPainter
        from scene_track.io.background import Behind
        from scene_track.viz.clips import VideoWriter
        from scene_track.viz.tracks import TrackPainter

        self.ball, self.live = run.of_a_ball, footage.live
        self.identities: set[int] = set()
        self.last, self.count, self.found = 0, 0, 0
        table = "ball.csv" if self.ball else "tracks.txt"
        self.files = [table, "tracks.json", *([f"video.{video}"] if video else [])]
        # By line: of a process that is killed, the rows are there up to its last frames.
        self._rows = (folder / table).open("w", 1, encoding="utf-8", newline="\n")
        self._json = (folder / "tracks.json").open("w", encoding="utf-8", newline="\n")
        self._begin(footage, run)
        self._video = self._painter = None
        if video is not None:
            self._video = VideoWriter(folder / f"video.{video}", video, footage.frame_rate)
            self._painter = FlightPainter(width) if self.ball else TrackPainter(width)
        self.behind: Behind[FrameTracks] = Behind(self._write, _WAITING)

    def _begin(self, footage: Footage, run: Run) -> None:
        from scene_track.ball.point_files import RESULT_HEADER

        if self.ball:
            self._rows.write(",".join(RESULT_HEADER) + "\n")
        head = {
            "video": footage.name,
            "width": footage.width,
            "height": footage.height,
            "frame_rate": footage.frame_rate,
            "checkpoint": str(run.checkpoint),
            "classes": list(run.class_names),
        }
        self._json.write(json.dumps(head, indent=1)[:-2] + ',\n "frames": [')

    def close(self, *, complete: bool) -> None:
        """Wait for the last frame, and finish the files."""
        try:
            self.behind.close()
        finally:
            self._json.write(f'\n ],\n "complete": {json.dumps(complete)}\n}}\n')
            self._json.close()
            self._rows.close()
            if self._video is not None:
                self._video.close()

    def _write(self, frame: FrameTracks) -> None:
        self._rows.write(_ball_row(frame) if self.ball else _people_rows(frame))
        self._json.write(",\n  " if self.count else "\n  ")
        json.dump(_record(frame, self.ball), self._json)
        self.identities.update(frame.ids.tolist())
        self.last, self.count, self.found = frame.number, self.count + 1, self.found + len(frame)
        if self._video is not None:
            self._video.write(self._paint(frame), frame.seconds)

    def _paint(self, frame: FrameTracks) -> Any:
        from scene_track.viz.tracks import TrackPainter

        if isinstance(self._painter, TrackPainter):
            return self._painter.paint(frame.image, frame.canvas_boxes, frame.ids)
        assert self._painter is not None
        height, width = frame.image.shape[:2]
        return self._painter.paint(frame.image, _ball(frame), (height, width))


def _people_rows(frame: FrameTracks) -> str:
    """MOTChallenge rows of a frame."""
    import numpy as np

    from scene_track.data.mot_files import BoxTable, format_results

    table = BoxTable.from_arrays(
        frames=np.full(len(frame), frame.number),
        ids=frame.ids,
        boxes=frame.rectangles,
        confidence=frame.scores,
    )
    return format_results(table, "tracks.txt")


def _ball(frame: FrameTracks) -> Any:
    """``[3]`` x, y, visibility of the ball, NaN where there is none."""
    import numpy as np

    if not len(frame):
        return np.array((np.nan, np.nan, 0.0))
    return np.array((*frame.points[0], 1.0))


def _ball_row(frame: FrameTracks) -> str:
    """Row of a frame in a CSV file of a ball."""
    import numpy as np

    from scene_track.ball.point_files import PointTable, format_points

    ball = _ball(frame)
    table = PointTable(
        frames=np.array([frame.number]),
        xy=ball[None, :2],
        visibility=ball[2:].astype(np.int64),
        confidence=frame.scores[:1] if len(frame) else np.zeros(1),
    )
    return format_points(table, "ball.csv")


def _record(frame: FrameTracks, ball: bool) -> dict[str, Any]:
    """One frame in ``tracks.json``."""
    place = {"points": frame.points} if ball else {"boxes": frame.boxes}
    return {
        "frame": frame.number,
        "seconds": round(frame.seconds, 6),
        "ids": frame.ids.tolist(),
        **{name: value.round(3).tolist() for name, value in place.items()},
        "scores": frame.scores.round(4).tolist(),
        "labels": frame.labels.tolist(),
    }


def _summary(results: _Results, speeds: Speeds, elapsed_s: float) -> str:
    """One line: what was found, and how fast each part was by itself."""
    count = max(1, speeds.frames)
    parts = {
        "reading": speeds.reading.busy_s,
        "model": speeds.model.busy_s,
        "tracker": speeds.tracking.busy_s,
        "drawing": results.behind.clock.busy_s,
    }
    rates = ", ".join(f"{name} {count / max(spent, 1e-9):.1f}" for name, spent in parts.items())
    who = f"{len(results.identities)} identities, {results.found} boxes"
    if results.ball:
        who = f"a ball in {results.found} of them"
    came = f" of {results.last} that came" if results.live else ""
    return (
        f"{results.count} frames{came}, {who}; {count / max(elapsed_s, 1e-9):.1f} frames/s"
        f" (each part by itself: {rates})"
    )


@contextmanager
def _stop_on_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def asked(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_progress(frames: Iterator[FrameTracks], length: int | None) -> Iterator[FrameTracks]:
    """The frames, with a bar in a terminal, an occasional log line elsewhere."""
    from tqdm import tqdm

    started = logged = time.perf_counter()
    terminal = sys.stderr.isatty()
    bar = tqdm(frames, total=length, unit=" frames", disable=not terminal)
    for done, frame in enumerate(bar, start=1):
        yield frame
        if not terminal and (now := time.perf_counter()) - logged > _LOG_EVERY_S:
            logged, of = now, "" if length is None else f" of {length}"
            log.info("%d%s frames, %.1f frames/s", done, of, done / (now - started))


def main() -> None:
    """The command line."""
    run_main("predict", predict, root="scene_track.predict.options")


if __name__ == "__main__":
    main()
