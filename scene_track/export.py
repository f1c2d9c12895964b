"""Export a checkpoint to ONNX or safetensors: ``python -m scene_track.export checkpoint=RUN``.

Writes a folder: the model, the configuration that rebuilds it, and a model card with data, scores
and licence. ``format=onnx`` is one step of the streaming model (frame and state in, boxes and state
out), ``format=safetensors`` the plain weights. ``predict``, ``evaluate`` and ``scene_track.load``
take both in place of a run.

    python -m scene_track.export checkpoint=outputs/runs/synthetic_dance_scene/2026-01-01_12-00-00
    python -m scene_track.export checkpoint=best.ckpt format=safetensors license=apache-2.0

The card is written last: a folder without it holds an export that was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main
from scene_track.config.paths import output_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def options(
    *,
    checkpoint: FilePath | DirectoryPath,
    format: Literal["onnx", "safetensors"],
    weights: Literal["fp32", "fp16"],
    license: Annotated[str, Field(min_length=1)] | None,
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    trusted_targets: list[str],
) -> None:
    """What the command line accepts; ``conf/export.yaml`` explains it."""


def export(cfg: DictConfig) -> Path:
    """One export, from a checked configuration to a folder."""
    from scene_track.training import exported
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.training.trained_run import run_folder

    source = resolve_checkpoint(cfg.checkpoint, prefer="best")
    if source.name in (exported.ONNX, exported.WEIGHTS):
        raise ValueError(f"{source} is an export already: type checkpoint=RUN or a .ckpt file")
    folder = Path(cfg.output or run_folder(source) / f"export_{cfg.format}")
    with output_folder(folder, overwrite=cfg.overwrite, what="an export"):
        return _export(cfg, source, folder)


def _export(cfg: DictConfig, source: Path, folder: Path) -> Path:
    """Export into a folder that is this command's own."""
    from scene_track.io.atomic import atomic_path, write_atomic
    from scene_track.models.scene import SceneModel
    from scene_track.models.streaming_step import to_onnx
    from scene_track.training import exported
    from scene_track.training.checkpointing import load_checkpoint
    from scene_track.training.trained_run import load_model

    model, trained = load_model(source, cfg.trusted_targets)
    half = cfg.weights == "fp16"
    step: bytes | None = None
    if cfg.format == "onnx":
        if not isinstance(model, SceneModel):
            raise ValueError(
                f"{source} holds {type(model).__name__}: format=onnx is for people with boxes"
                " (model=scene); type format=safetensors"
            )
        height, width = trained.dataset.size
        step = to_onnx(model, (height, width), half=half)
    # The card is the mark of a complete export, so it goes first and comes last.
    (folder / exported.CARD).unlink(missing_ok=True)
    path = folder / (exported.WEIGHTS if step is None else exported.ONNX)
    if step is not None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(step)
        if model.identity is not None:
            state = model.identity.state_dict()
            exported.write_weights(folder / exported.IDENTITY, state, half=False)
    else:
        exported.write_weights(path, model.state_dict(), half=half)
    exported.write_config(folder, trained)
    scores = exported.validation_metrics(load_checkpoint(source), trained)
    write_atomic(folder / exported.CARD, _card(cfg, trained, scores, path.name))
    size = path.stat().st_size / 1e6
    print(f"{path}: {size:.1f} MB, weights {cfg.weights}; configuration and card beside it")
    return path


def _card(cfg: DictConfig, trained: DictConfig, scores: dict[str, float], file: str) -> str:
    """The model card: metadata for a hub, then the same for people."""
    from huggingface_hub import EvalResult, ModelCardData
    from omegaconf import OmegaConf

    from scene_track import __version__

    name = str(trained.experiment_name)
    data = str(OmegaConf.select(trained, "dataset.source._target_")).rpartition(".")[2]
    backbone = str(OmegaConf.select(trained, "model.backbone._target_", default="no backbone"))
    results = [
        EvalResult(
            task_type="object-tracking",
            dataset_type=data.lower(),
            dataset_name=data,
            dataset_split="validation",
            metric_type=metric.removeprefix("val/"),
            metric_value=round(value, 4),
        )
        for metric, value in scores.items()
    ]
    head = ModelCardData(
        license=cfg.license,
        library_name="scene_track",
        tags=["video", "object-tracking", "multi-object-tracking"],
        model_name=name,
        eval_results=results or None,
    )
    rows = [f"| {metric.removeprefix('val/')} | {value:.4f} |" for metric, value in scores.items()]
    table = ["| metric | value |", "|---|---|", *rows] if rows else ["None were recorded."]
    terms = [f"Weights: {cfg.license or 'not stated by who exported them'}."]
    if ".dinov3." in backbone:
        terms.append("The backbone is DINOv3: Meta's DINOv3 License covers its weights too.")
    terms.append("Terms of the training data apply beside this; see its own page.")
    return "\n".join(
        [
            *("---", head.to_yaml(), "---", "", f"# {name}", ""),
            f"Exported by scene_track {__version__} to `{file}`, weights {cfg.weights}.",
            f"`{trained.model._target_}` with `{backbone}`; `config.yaml` has all of it.",
            *("", "```python", "import scene_track", ""),
            'for frame in scene_track.load("FOLDER").track("video.mp4"):',
            *("    print(frame.seconds, frame.ids, frame.boxes)", "```"),
            *("", "## Data", ""),
            f"Trained on `{data}`, frames resized to {list(trained.dataset.size)} (height, width).",
            *("", "## Scores", "", "On the run's own validation videos, fractions of 1:", ""),
            *(*table, "", "## Licence", "", *terms, ""),
        ]
    )


def main() -> None:
    """The command line."""
    run_main("export", export, root="scene_track.export.options")


if __name__ == "__main__":
    main()
