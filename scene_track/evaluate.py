"""Evaluate a checkpoint on whole videos: ``python -m scene_track.evaluate checkpoint=RUN``.

Runs the streaming tracker over a split, writes MOTChallenge result files, ``metrics.json`` and a
plot of HOTA over the localisation threshold, and prints a table per sequence and combined. Data and
tracker are those of the checkpoint's run unless ``dataset=...`` or ``tracker=...`` is typed.

    python -m scene_track.evaluate checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.evaluate checkpoint=best.ckpt dataset=mot dataset.root=FOLDER \
        dataset.train=[A] dataset.val=[B] output=scores
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from scene_track.models.scene import SceneModel

log = logging.getLogger(__name__)


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    split: Literal["train", "val", "test"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    **groups: Any,
) -> None:
    """What the command line accepts: the pre-flight check reads this signature.

    Args:
        checkpoint: run folder (its best checkpoint) or ``.ckpt``.
        split: which split of the data.
        output: folder for the results; None: ``evaluation_<split>`` in the run folder, or beside a
            checkpoint that lies in none.
        overwrite: replace an output folder's files.
        **groups: the configuration of a training run.
    """


def load_model(checkpoint: Path) -> tuple[SceneModel, DictConfig]:
    """Rebuild the model of a checkpoint, and the configuration of its run.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is torn, has no configuration, or its weights do not fit the code.
    """
    from hydra.utils import instantiate
    from omegaconf import DictConfig, OmegaConf

    from scene_track.training.checkpointing import load_checkpoint

    content = load_checkpoint(checkpoint)
    if not {"hyper_parameters", "state_dict"} <= content.keys():
        raise ValueError(
            f"{checkpoint} holds no configuration: expected a checkpoint of scene_track.train,"
            " such as outputs/runs/NAME/TIME/checkpoints/best.ckpt"
        )
    cfg = OmegaConf.create(content["hyper_parameters"])
    assert isinstance(cfg, DictConfig)
    if OmegaConf.select(cfg, "model.backbone.weights") is not None:
        cfg.model.backbone.weights = None  # the checkpoint holds them
    model = instantiate(cfg.model)
    prefix = "model."
    weights = {
        name[len(prefix) :]: value
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }
    wanted = model.state_dict()
    wrong = sorted(wanted.keys() ^ weights.keys()) or sorted(
        name for name in wanted if wanted[name].shape != weights[name].shape
    )
    if wrong:
        raise ValueError(
            f"{checkpoint} is of another model or an older layout: {len(wrong)} tensors do not fit,"
            f" the first: {wrong[0]}"
        )
    model.load_state_dict(weights)
    return model.eval(), cfg


def chosen(cfg: DictConfig, trained: DictConfig, group: str) -> Any:
    """The configuration of a group: as typed, and as in the checkpoint's run if nothing is typed.

    Args:
        cfg: composed from the command line.
        trained: of the checkpoint's run.
        group: its name, such as ``tracker``.
    """
    from hydra.core.hydra_config import HydraConfig

    typed = [word.lstrip("+~") for word in HydraConfig.get().overrides.task]
    replaced = any(word.startswith((f"{group}=", f"{group}.")) for word in typed)
    return (cfg if replaced else trained)[group]


def results_folder(cfg: DictConfig, checkpoint: Path, name: str) -> Path:
    """Where results go: ``output``, or ``name`` in the run folder or beside a lone checkpoint.

    Raises:
        ValueError: it has results already, and ``overwrite`` is not set.
    """
    inside = checkpoint.parent.name == "checkpoints"
    folder = Path(cfg.output or (checkpoint.parent.parent if inside else checkpoint.parent) / name)
    if folder.exists() and any(folder.iterdir()) and not cfg.overwrite:
        raise ValueError(f"{folder} has results already: type overwrite=true or output=FOLDER")
    return folder


def to_device(model: SceneModel) -> tuple[torch.device, bool]:
    """Move a model to the fastest device here.

    Returns:
        The device, and whether to run in bfloat16 on it.
    """
    import torch

    from scene_track.training.precision import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = resolve_precision("auto", "gpu" if device.type == "cuda" else "cpu") != "32-true"
    return device, half


def evaluate(cfg: DictConfig) -> float | None:
    """One evaluation, from a checked configuration to the combined HOTA (None: no truth)."""
    from hydra.utils import instantiate

    from scene_track.data.mot_files import BoxTable, write_atomic, write_results
    from scene_track.metrics.tracking import TrackingCounts, TrackingSequence, count_tracking
    from scene_track.score import format_table, plain_metrics
    from scene_track.tracking.inference import associate, detect_videos
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.viz.hota import plot_hota

    path = resolve_checkpoint(cfg.checkpoint, prefer="best")
    model, trained = load_model(path)
    folder = results_folder(cfg, path, f"evaluation_{cfg.split}")
    data = instantiate(chosen(cfg, trained, "dataset"))
    tracker = instantiate(chosen(cfg, trained, "tracker"))
    data.prepare_data()
    sequences = {sequence.name: sequence for sequence in data.sequences(cfg.split)}
    device, half = to_device(model)

    (folder / "tracks").mkdir(parents=True, exist_ok=True)
    counts: dict[str, TrackingCounts] = {}
    frames, started = 0, time.perf_counter()
    detections = detect_videos(model, data.stream_dataloader(cfg.split), device=device, half=half)
    for tracks in associate(detections, tracker, model.identity):
        name = tracks.video.name
        sequence = sequences[name]
        write_results(folder / "tracks" / f"{name}.txt", tracks.table)
        frames += len(sequence)
        if sequence.labelled:
            truth: BoxTable = sequence.table
            counts[name] = count_tracking(
                TrackingSequence(truth, tracks.table, sequence.info.length)
            )
    speed = frames / (time.perf_counter() - started)
    log.info("%d sequences, %d frames, %.1f frames/s", len(sequences), frames, speed)
    if not counts:
        log.info("the %s split has no ground truth: result files only, in %s", cfg.split, folder)
        return None
    combined = sum(counts.values(), start=TrackingCounts.zero())
    scores = {
        "combined": plain_metrics(combined),
        "sequences": {name: plain_metrics(count) for name, count in counts.items()},
        "frames_per_second": speed,
        "checkpoint": str(path),
        "split": cfg.split,
    }
    write_atomic(folder / "metrics.json", json.dumps(scores, indent=1, allow_nan=False) + "\n")
    plot_hota(scores["combined"], folder / "hota.png")
    print(format_table(scores))
    print(f"{speed:.1f} frames/s; tracks, metrics.json and hota.png in {folder}")
    return float(scores["combined"]["HOTA"])


def main() -> None:
    """The command line."""
    run_main("evaluate", evaluate, root="scene_track.evaluate.options")


if __name__ == "__main__":
    main()
