"""Compare checkpoints' trackers with known ones: ``python -m scene_track.compare checkpoint=RUN``.

Special here: every tracker is given the same detections, of one pass of the model. The baselines
are shown as they come and at their best, their thresholds chosen on training sequences, and so is
the model's own tracker, by the same search; the oracle shows what association could reach at all;
ByteTrack on the ground truth, exact and with stated errors, shows what it does with boxes that owe
nothing to the model. Several runs, which differ in their seeds, give means and spreads. Data and
tracker are those of the checkpoint's run unless ``dataset=...`` or ``tracker=...`` is typed.

    python -m scene_track.compare checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.compare checkpoint=[RUN1,RUN2,RUN3] output=comparison clips=1
    python -m scene_track.compare checkpoint=best.ckpt 'baselines=[]' tuning_combinations=200
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main
from scene_track.config.paths import output_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scene_track.data.noise import Noise
    from scene_track.data.video import Video
    from scene_track.tracking.comparison import Compared, Row
    from scene_track.tracking.inference import SequenceTracks
    from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
    from scene_track.tracking.tuning import Tunable, Tuned
    from scene_track.training.trained_run import TrainedRun

log = logging.getLogger(__name__)

BaselineName = Literal["sort", "bytetrack", "ocsort", "botsort", "cbiou"]


def options(
    *,
    checkpoint: FilePath | DirectoryPath | list[FilePath | DirectoryPath],
    split: Literal["val", "test"],
    benchmark: Literal["auto", "mot15", "mot16", "mot17", "mot20", "dancetrack", "sportsmot"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    baselines: list[BaselineName],
    tuning_sequences: Annotated[int, Field(ge=1)],
    tuning_frames: Annotated[int, Field(ge=1)],
    tuning_combinations: Annotated[int, Field(ge=1)],
    clips: Annotated[int, Field(ge=0)],
    clip_format: Literal["gif", "mp4"],
    clip_width: Annotated[int, Field(ge=64, le=4096)],
    **groups: Any,
) -> None:
    """What the command line accepts; ``conf/compare.yaml`` explains it."""


def compare(cfg: DictConfig) -> float:
    """One comparison, from a checked configuration to the HOTA of the models' own tracker."""
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.training.trained_run import run_folder

    named = [cfg.checkpoint] if isinstance(cfg.checkpoint, str) else list(cfg.checkpoint)
    paths = [resolve_checkpoint(name, prefer="best") for name in named]
    if len(set(paths)) < max(1, len(paths)):
        raise ValueError(
            f"checkpoint={named}: expected one or more different runs, type checkpoint=[RUN1,RUN2]"
        )
    folder = Path(cfg.output or run_folder(paths[0]) / f"comparison_{cfg.split}")
    with output_folder(folder, overwrite=cfg.overwrite, what="a comparison"):
        return _compare(cfg, paths, folder)


def _compare(cfg: DictConfig, paths: Sequence[Path], folder: Path) -> float:
    """Compare into a folder that is this command's own."""
    from scene_track.data.noise import Noise
    from scene_track.io.atomic import write_atomic
    from scene_track.tracking.comparison import CAUSAL, report, summarise
    from scene_track.tracking.truth import choose_benchmark
    from scene_track.tracking.tuning import beginning
    from scene_track.training.checkpointing import load_checkpoint

    # All that can be wrong with the command is said before the minutes of tracking.
    runs = _load(cfg, paths)
    scored, training = (runs[0].data.sequences(split) for split in (cfg.split, "train"))
    _refuse_what_cannot_be_compared(cfg.split, scored, training)
    benchmark = choose_benchmark(scored, cfg.benchmark)
    noise = Noise()
    searched = [beginning(one, cfg.tuning_frames) for one in training[: cfg.tuning_sequences]]
    job = _Job(cfg, scored, searched, benchmark, noise)
    result = summarise([job.track(run, number) for number, run in enumerate(runs, start=1)])
    contents = map(load_checkpoint, paths)
    result |= {
        "checkpoints": [str(path) for path in paths],
        "epochs": [one["epoch"] + 1 if "epoch" in one else None for one in contents],
        "precision": runs[0].precision,
        "split": cfg.split,
        "benchmark": benchmark,
        "sequences": len(scored),
        "seed": int(cfg.seed),
        "noise": asdict(noise),
    }
    text = report(result)
    write_atomic(folder / "comparison.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_atomic(folder / "comparison.md", text)
    job.write_clips(folder / "clips")
    print(text)
    print(f"comparison.json and comparison.md in {folder}")
    return float(result["rows"][CAUSAL]["HOTA"])


def _load(cfg: DictConfig, paths: Sequence[Path]) -> list[TrainedRun]:
    """The runs, all of people and with the same videos, as ``ValueError`` where they are not."""
    from scene_track.training.trained_run import load_run, need_boxes

    runs: list[TrainedRun] = []
    for path in paths:
        one = copy.deepcopy(cfg)
        one.checkpoint = str(path)
        run = load_run(one)
        need_boxes(run, "compare")
        run.data.prepare_data()
        if runs and _frames_of(run, cfg.split) != _frames_of(runs[0], cfg.split):
            raise ValueError(
                f"the {cfg.split} splits of {paths[0]} and {path} are not the same frames: type"
                " dataset=... to compare them on the same videos"
            )
        runs.append(run)
    return runs


def _frames_of(run: TrainedRun, split: str) -> list[tuple[str, list[int]]]:
    return [(str(video.folder), video.frames.tolist()) for video in run.data.sequences(split)]


@dataclass
class _Job:
    """What is done with each run, and what is kept of it for the clips."""

    cfg: DictConfig
    scored: list[Video]
    training: list[Video]
    benchmark: Any
    noise: Noise

    def __post_init__(self) -> None:
        """Read the ground truth once."""
        from scene_track.tracking.truth import read_truth

        self.seed = int(self.cfg.seed)
        self.truth = read_truth(self.scored, self.benchmark)
        self.training_truth = read_truth(self.training, self.benchmark)
        self.drawn: dict[str, dict[str, SequenceTracks]] = {}  # by video, by who tracked

    def track(self, run: TrainedRun, number: int) -> Compared:
        """All trackers over the detections of a run; thresholds are chosen first."""
        from scene_track.tracking import comparison as names
        from scene_track.tracking.comparison import Compared, Row
        from scene_track.tracking.oracle import oracle_behind
        from scene_track.tracking.tuning import Tunable

        rows = {name: Row(tracker, "the model's") for name, tracker in _own(run.tracker).items()}
        oracle = oracle_behind(run.tracker)
        duplicate_iou = oracle.duplicate_iou
        options = list(self.cfg.baselines)
        baselines = {o: Tunable.baseline(o, duplicate_iou=duplicate_iou) for o in options}
        own = _own_tunable(run)
        # Training sequences first: nothing of the scored split is known when they are chosen.
        tuning = self._tune(run, baselines, own, duplicate_iou)
        for option, tunable in baselines.items():
            rows[names.STOCK[option]] = Row(tunable.build(), "the model's")
            chosen = tuning[names.TUNED[option]].parameters
            rows[names.TUNED[option]] = Row(tunable.build(**chosen), "the model's")
        if own is not None:
            chosen = tuning[names.OWN_TUNED].parameters
            rows[names.OWN_TUNED] = Row(own.build(**chosen), "the model's")
        rows[names.ORACLE] = Row(oracle, "the model's")
        for _, frames in groupby(_detect(run, self.cfg.split), key=lambda pair: pair[0]):
            video = list(frames)  # one video at a time is held, however many trackers see it
            found = {name: row.take(video, self.truth, run.model.identity)
                     for name, row in rows.items()}  # fmt: skip
            self._keep(number, {name: tracks for name, (tracks,) in found.items()})
        if "bytetrack" in options:
            rows |= self._on_truth(tuning, baselines["bytetrack"])
        return Compared(dict(sorted(rows.items(), key=lambda row: _place(row[0]))), tuning)

    def _tune(
        self,
        run: TrainedRun,
        baselines: Mapping[str, Tunable],
        own: Tunable | None,
        duplicate_iou: float,
    ) -> dict[str, Tuned]:
        """What was chosen on training sequences, by the name of the row."""
        from scene_track.data.noise import EXACT
        from scene_track.tracking import comparison as names
        from scene_track.tracking.noisy_truth import truth_as_detections
        from scene_track.tracking.tuning import light, tune

        def tuned(name: str, tunable: Tunable, frames: Any) -> Tuned:
            found = tune(
                tunable,
                frames,
                self.training_truth,
                combinations=self.cfg.tuning_combinations,
                seed=self.seed,
            )
            log.info(
                "%s: HOTA %.1f on %d training sequences, stock %.1f (%d tried)",
                *(name, 100 * found.hota, len(found.sequences), 100 * found.stock_hota),
                found.tried,
            )
            return found

        detected = _first_videos(_detect(run, "train"), len(self.training))
        # Held for all searches: the model looks at every training frame once.
        last = {sequence.name: int(sequence.frames[-1]) for sequence in self.training}
        seen = [
            (video, light(detections, duplicate_iou))
            for video, detections in detected
            if detections.frame <= last[video.name]
        ]
        tuning = {names.TUNED[o]: tuned(names.TUNED[o], t, seen) for o, t in baselines.items()}
        if own is not None:
            tuning[names.OWN_TUNED] = tuned(names.OWN_TUNED, own, seen)
        if "bytetrack" in baselines:
            for name, errors in ((names.ON_EXACT, EXACT), (names.ON_NOISY, self.noise)):
                frames = truth_as_detections(self.training, errors, seed=self.seed + 1)
                light_frames = [(video, light(found, duplicate_iou)) for video, found in frames]
                tuning[name] = tuned(name, baselines["bytetrack"], light_frames)
        return tuning

    def _on_truth(self, tuning: Mapping[str, Tuned], bytetrack: Tunable) -> dict[str, Row]:
        """ByteTrack on boxes that owe nothing to the model."""
        from scene_track.data.noise import EXACT
        from scene_track.tracking import comparison as names
        from scene_track.tracking.comparison import Row
        from scene_track.tracking.noisy_truth import truth_as_detections

        rows = {}
        for name, errors in ((names.ON_EXACT, EXACT), (names.ON_NOISY, self.noise)):
            boxes = "ground truth" if errors.exact else f"ground truth, {errors}"
            rows[name] = Row(bytetrack.build(**tuning[name].parameters), boxes)
            frames = truth_as_detections(self.scored, errors, seed=self.seed)
            rows[name].take(list(frames), self.truth, None)
        return rows

    def _keep(self, number: int, tracks: Mapping[str, SequenceTracks]) -> None:
        """Keep what the clips show: the own tracker of each run, of a single one also ByteTrack."""
        from scene_track.tracking import comparison as names

        own = names.CONFIGURED if names.CONFIGURED in tracks else names.CAUSAL
        video = tracks[own].video.name
        if video not in [sequence.name for sequence in self.scored[: self.cfg.clips]]:
            return
        shown = self.drawn.setdefault(video, {})
        if isinstance(self.cfg.checkpoint, str):
            shown["own tracker"] = tracks[own]
            if (other := names.STOCK["bytetrack"]) in tracks:
                shown["ByteTrack"] = tracks[other]
        else:
            shown[f"run {number}"] = tracks[own]

    def write_clips(self, folder: Path) -> None:
        """Draw the first sequences, trackers side by side."""
        from scene_track.tracking.scene_report import SceneReport

        for footage in self.scored[: self.cfg.clips]:
            path = folder / f"{footage.name}.{self.cfg.clip_format}"
            SceneReport.write_panels(
                path, footage, self.drawn[footage.name], width=self.cfg.clip_width
            )


def _detect(run: TrainedRun, split: str) -> Iterator[tuple[VideoInfo, Detections]]:
    """Every frame of a split, through the model."""
    from scene_track.tracking.inference import detect_videos

    run.to_device()
    windows = run.data.stream_dataloader(split)
    return detect_videos(
        run.model,
        windows,
        device=run.device,
        precision=run.autocast,
        read=run.evaluator.read,
    )


def _place(name: str) -> int:
    """Order of the table: the own tracker, the oracle that bounds it, baselines, other boxes."""
    from scene_track.tracking import comparison as names

    order = [names.CAUSAL, names.CONFIGURED, names.OWN_TUNED]
    for option in names.STOCK:
        order += [names.STOCK[option], names.TUNED[option]]
    return [*order, names.ORACLE, names.ON_EXACT, names.ON_NOISY].index(name)


def _refuse_what_cannot_be_compared(
    split: str, scored: Sequence[Video], training: Sequence[Video]
) -> None:
    """Raise a ``ValueError`` where there is no ground truth, or where tuning would see it."""
    from scene_track.training.trained_run import need_truth

    need_truth(scored, split, "compare")
    seen = {(s.folder.resolve(), frame) for s in training for frame in s.frames.tolist()}
    for sequence in scored:
        if seen & {(sequence.folder.resolve(), frame) for frame in sequence.frames.tolist()}:
            raise ValueError(
                f"{sequence.name} of the {split} split is also in the training split, on"
                " which the model was trained and thresholds are chosen: name other"
                f" sequences by dataset.train=... or dataset.{split}=..."
            )


def _own(tracker: Tracker) -> dict[str, Tracker]:
    """The configured tracker without lookahead and, if it has one, as it is."""
    from scene_track.tracking.baselines import Baseline
    from scene_track.tracking.comparison import CAUSAL, CONFIGURED
    from scene_track.tracking.oracle import OracleTracker

    if isinstance(tracker, Baseline | OracleTracker):
        raise ValueError(
            f"the run's own tracker would be {type(tracker).__name__}, which is in the table"
            " anyway: type tracker=identity, or another tracker of your own"
        )
    if not tracker.lookahead:
        return {CAUSAL: tracker}
    causal = copy.copy(tracker)  # what it remembers of a video is made anew by `start`
    causal.lookahead = 0
    return {CAUSAL: causal, CONFIGURED: tracker}


def _own_tunable(run: TrainedRun) -> Tunable | None:
    """The run's tracker for the search; None for a class of one's own, which has no grid."""
    from hydra.utils import instantiate

    from scene_track.config.shipped import option_values
    from scene_track.tracking.tuning import GRIDS, Tunable

    values = run.tracker_options
    if values["_target_"] != option_values("tracker", "identity")["_target_"]:
        return None

    def build(**changes: float) -> Tracker:
        return instantiate(values | changes)

    stock = {name: values[name] for name in GRIDS["identity"]}
    return Tunable("identity", build, stock, run.model.identity)


def _first_videos(
    frames: Iterable[tuple[VideoInfo, Detections]], count: int
) -> Iterator[tuple[VideoInfo, Detections]]:
    """The frames of the first ``count`` videos; the model runs on no others."""
    for _, video in islice(groupby(frames, key=lambda pair: pair[0]), count):
        yield from video


def main() -> None:
    """The command line."""
    run_main("compare", compare, root="scene_track.compare.options")


if __name__ == "__main__":
    main()
