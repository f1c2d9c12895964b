"""Builds the model, data and tracker of a checkpoint for the commands that take one.

The model is rebuilt from the configuration in the checkpoint, and every tensor must fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scene_track.config.check import input_fault, tracker_fault
from scene_track.config.signature import find_target
from scene_track.config.trained import checked_group, refuse_without_effect, with_typed
from scene_track.data.module import TrackingDataModule
from scene_track.data.video import Video
from scene_track.models.clip_model import ClipModel
from scene_track.models.streaming_step import OnnxModel
from scene_track.models.weights import compare_state_dicts
from scene_track.tracking.evaluation import Evaluator
from scene_track.tracking.inference import SequenceTracks, associate, detect_videos
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
from scene_track.training.checkpointing import FOLDER, load_checkpoint, resolve_checkpoint
from scene_track.training.exported import open_onnx, read_exported
from scene_track.training.feature_caching import FeatureCache, cache_for
from scene_track.training.precision import autocast_type, scoring_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A checkpoint with everything that is needed to run it.

    Attributes:
        checkpoint: the file.
        model: in evaluation mode, on the CPU.
        data: of the checkpoint's run, or as typed.
        tracker: of the checkpoint's run, or as typed.
        tracker_options: the configuration that it was built from.
        evaluator: of the checkpoint's run: reads and reports predictions.
        device: the GPU if there is one, else the CPU.
        precision: that of the run's validations, see ``scoring_precision``.
    """

    checkpoint: Path
    model: ClipModel
    data: TrackingDataModule
    tracker: Tracker
    tracker_options: dict[str, Any]
    evaluator: Evaluator
    device: torch.device
    precision: str

    @property
    def autocast(self) -> torch.dtype:
        """Type of the autocast that the model runs in; float32 = none."""
        return autocast_type(self.precision)

    def to_device(self) -> None:
        """Move the model to the device."""
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one it lies in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == FOLDER else folder


def load_model(checkpoint: Path, trusted: Sequence[str] = ()) -> tuple[ClipModel, DictConfig]:
    """Rebuild the model of a checkpoint, and the configuration of its run.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is torn, has no configuration, or its weights do not fit the code.
    """
    if checkpoint.suffix == ".onnx":
        cfg = OmegaConf.create(read_exported(checkpoint)["hyper_parameters"])
        assert isinstance(cfg, DictConfig)
        return open_onnx(checkpoint, cfg, trusted), cfg
    exported = checkpoint.suffix == ".safetensors"
    content = read_exported(checkpoint) if exported else load_checkpoint(checkpoint)
    parts = [content.get("hyper_parameters"), content.get("state_dict")]
    if not all(isinstance(part, dict) for part in parts):
        found = ", ".join(sorted(map(str, content))[:4]) or "nothing"
        raise ValueError(
            f"{checkpoint} holds no configuration (it holds {found}): expected a checkpoint of"
            " scene_track.train, type checkpoint=outputs/runs/NAME/TIME"
        )
    cfg = OmegaConf.create(content["hyper_parameters"])
    assert isinstance(cfg, DictConfig)
    if OmegaConf.select(cfg, "model.backbone.weights") is not None:
        cfg.model.backbone.weights = None  # the checkpoint holds them
    model = instantiate(checked_group(cfg, "model", source=str(checkpoint), trusted=trusted))
    weights = {
        name.removeprefix("model."): value
        for name, value in content["state_dict"].items()
        if name.startswith("model.")
    }
    wanted = model.state_dict()
    # With differing types: load_state_dict would round them without a word.
    if problems := compare_state_dicts(wanted, weights).problems:
        raise ValueError(
            f"{checkpoint} is of another model or an older layout: {len(problems)} of"
            f" {len(wanted)} tensors do not fit, the first: {problems[0]}; take another checkpoint,"
            " or train again, from its weights with init_from="
        )
    model.load_state_dict(weights)
    return model.eval(), cfg


def load_run(cfg: DictConfig) -> TrainedRun:
    """Build what ``checkpoint=`` names, with the data and the tracker that are typed beside it.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it does not fit the code, or its data and tracker do not.
    """
    typed = HydraConfig.get().overrides.task
    refuse_without_effect(typed)
    path = resolve_checkpoint(cfg.checkpoint, prefer="best")
    model, trained = load_model(path, cfg.trusted_targets)

    def chosen(group: str) -> Any:
        merged = with_typed(trained, cfg, typed, group)
        return checked_group(merged, group, source=str(path), trusted=cfg.trusted_targets)

    data, tracker = chosen("dataset"), chosen("tracker")
    node = evaluator_node(trained, path, cfg.trusted_targets)
    refuse_other_tracker(tracker, node, path)
    if fault := input_fault(model, data.get("detections")):
        raise ValueError(f"{path}: {fault}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TrainedRun(
        checkpoint=path,
        model=model,
        data=instantiate(data),
        tracker=instantiate(tracker),
        tracker_options=cast(dict[str, Any], OmegaConf.to_container(tracker, resolve=True)),
        evaluator=instantiate(node),
        device=device,
        precision=precision_of(trained, device),
    )


def evaluator_node(trained: DictConfig, checkpoint: Path, trusted: Sequence[str]) -> DictConfig:
    """The node of the evaluator of a checkpoint's run, checked."""
    evaluator = OmegaConf.create({"evaluator": OmegaConf.select(trained, "head.evaluator")})
    return checked_group(evaluator, "evaluator", source=str(checkpoint), trusted=trusted)


def refuse_other_tracker(tracker: DictConfig, evaluator: DictConfig, checkpoint: Path) -> None:
    """Refuse a tracker that reads something else than the run's head gives, as ``ValueError``."""
    if fault := tracker_fault(find_target(tracker._target_), find_target(evaluator._target_)):
        raise ValueError(f"{checkpoint}: {fault}")


def precision_of(trained: DictConfig, device: torch.device) -> str:
    """Precision of the validations of a checkpoint's run on a device."""
    precision = OmegaConf.select(trained, "trainer.precision", default="auto")
    return scoring_precision(str(precision), device)


def need_boxes(run: TrainedRun, command: str) -> None:
    """Refuse a run whose evaluator does not give boxes, as ``ValueError``."""
    if run.evaluator.GIVES != "boxes":
        raise ValueError(
            f"{run.checkpoint} gives {run.evaluator.GIVES}, and {command} reads boxes: type"
            f" python -m scene_track.evaluate checkpoint={run.checkpoint}"
        )


def need_truth(videos: Sequence[Video], split: str, what: str) -> None:
    """Refuse a split without ground truth, as ``ValueError``."""
    if bare := [video.name for video in videos if not video.labelled]:
        raise ValueError(
            f"{what} needs ground truth, and {len(bare)} of {len(videos)} sequences of the {split}"
            f" split have none, the first: {bare[0]}; type split=val"
        )


def track_split(
    run: TrainedRun,
    split: str,
    folder: Path,
    watch: Callable[[VideoInfo, Detections], None] | None = None,
) -> Iterator[tuple[Video, SequenceTracks]]:
    """Run the tracker over a split; each result file is written as its video ends.

    Args:
        run: model, data and tracker.
        split: of its data.
        folder: where the result file of each video is written.
        watch: is given every frame's detections before the tracker is.

    Yields:
        Each video with its tracks.

    Raises:
        ValueError: the tracker needs the ground truth and there is none.
    """
    sequences = {sequence.name: sequence for sequence in run.data.sequences(split)}
    if run.tracker.needs_truth:
        need_truth([*sequences.values()], split, type(run.tracker).__name__)
    run.to_device()
    folder.mkdir(parents=True, exist_ok=True)
    cache = _feature_cache(run)
    found = detect_videos(
        run.model,
        run.data.stream_dataloader(split),
        device=run.device,
        precision=run.autocast,
        features=None if cache is None else cache.of,
        read=run.evaluator.read,
    )
    seen = found if watch is None else _watched(found, watch)
    for tracks in associate(seen, run.tracker, run.model.identity):
        name = tracks.video.name
        run.evaluator.report.write_tracks(folder, tracks)
        log.info(
            "%s: %d frames at %.1f frames/s, %d objects",
            *(name, tracks.num_frames, tracks.frames_per_second, len(tracks.table)),
        )
        yield sequences[name], tracks
    if cache is not None and cache.report(split):
        log.warning("frames/s leaves the backbone out where its features were read")


def _watched(
    frames: Iterator[tuple[VideoInfo, Detections]], watch: Callable[[VideoInfo, Detections], None]
) -> Iterator[tuple[VideoInfo, Detections]]:
    for video, detections in frames:
        watch(video, detections)
        yield video, detections


def _feature_cache(run: TrainedRun) -> FeatureCache | None:
    """The feature cache of the run, if its backbone was never trained."""
    if isinstance(run.model, OnnxModel):
        return None
    backbone = run.model.backbone
    if backbone is None or not backbone.cache or backbone.ever_trains:
        return None
    backbone.set_frozen(True)
    pictures = run.model.looks_at_pictures
    return cache_for(backbone, run.data, precision=run.autocast, pictures=pictures)
