"""Folders that ``scene_track.export`` writes, and their reading: weights, configuration, card.

``model.safetensors`` or ``model.onnx`` (then with ``identity.safetensors``, the head that stays in
PyTorch), ``config.yaml`` and ``README.md``, the card that a model hub shows. Paths of the machine
that trained are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save
from torch import Tensor

from scene_track.config.trained import checked_group
from scene_track.io.atomic import atomic_path, write_atomic
from scene_track.models.identity import PointerIdentity
from scene_track.models.streaming_step import OnnxModel
from scene_track.models.weights import load_state_dict_file
from scene_track.training.checkpointing import EXPORTED

WEIGHTS, ONNX = EXPORTED
CONFIG = "config.yaml"
CARD = "README.md"
IDENTITY = "identity.safetensors"
# What is needed to rebuild the model, and to evaluate it as its run did.
_KEPT = ("model", "head", "dataset", "tracker", "monitor", "experiment_name", "seed")


def write_weights(path: Path, state: Mapping[str, Tensor], *, half: bool) -> None:
    """Write tensors as safetensors, floating-point ones as float16 if ``half``."""
    kept = {
        name: (value.half() if half and value.dtype == torch.float32 else value)
        .contiguous()
        .clone()
        for name, value in state.items()
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept, metadata={"format": "pt"}))


def write_config(folder: Path, trained: DictConfig) -> None:
    """Write what is needed of a run's configuration, without paths of this machine."""
    kept = {key: trained[key] for key in _KEPT if key in trained}
    kept["trainer"] = {"precision": OmegaConf.select(trained, "trainer.precision", default="auto")}
    plain = OmegaConf.to_container(OmegaConf.create(kept), resolve=True)
    text = OmegaConf.to_yaml(OmegaConf.create(_without_paths(plain)))
    write_atomic(folder / CONFIG, text)


def _without_paths(node: Any) -> Any:
    """A configuration in which absolute paths are missing values: Hydra then says which."""
    if isinstance(node, dict):
        return {key: _without_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_paths(value) for value in node]
    return "???" if isinstance(node, str) and Path(node).is_absolute() else node


def read_exported(path: Path) -> dict[str, Any]:
    """Configuration and weights of an exported folder, in the shape of a training checkpoint.

    Raises:
        FileNotFoundError: ``config.yaml`` is not beside it.
        ValueError: the file is damaged.
    """
    config = path.parent / CONFIG
    if not config.is_file():
        raise FileNotFoundError(
            f"{config} is missing: {path.name} needs the other files of its folder, as"
            " python -m scene_track.export writes it"
        )
    content: dict[str, Any] = {"hyper_parameters": OmegaConf.to_container(OmegaConf.load(config))}
    if path.suffix != ".onnx":
        weights = _read_weights(path)
        content["state_dict"] = {f"model.{name}": value for name, value in weights.items()}
    return content


def _read_weights(path: Path) -> dict[str, Tensor]:
    half, weights = torch.float16, load_state_dict_file(path)
    return {name: w.float() if w.dtype == half else w for name, w in weights.items()}


def open_onnx(path: Path, cfg: DictConfig, trusted: Sequence[str]) -> OnnxModel:
    """The exported step with its identity head.

    Raises:
        FileNotFoundError: the identity head's weights are not beside it.
        ValueError: a file is damaged, or they do not belong together.
    """
    node = checked_group(cfg, "model", source=str(path), trusted=trusted).identity
    if node is None:
        return OnnxModel(path, None)
    file = path.parent / IDENTITY
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: copy the whole folder of {path.name}")
    head: PointerIdentity = instantiate(node)
    try:
        head.load_state_dict(_read_weights(file))
    except RuntimeError as error:
        raise ValueError(
            f"{file} is not of the model in {path.parent / CONFIG}: copy the whole folder"
        ) from error
    return OnnxModel(path, head.eval())


def validation_metrics(checkpoint: Mapping[str, Any], trained: DictConfig) -> dict[str, float]:
    """The scores of the validation at which a checkpoint was written, by name; losses left out."""
    target = OmegaConf.select(trained, "head.evaluator._target_")
    logged = set(get_class(target).LOGS)  # type: ignore[attr-defined]
    summary = dict(checkpoint.get("callbacks", {})).get("RunSummary", {})
    return {
        name: float(entry["last"])
        for name, entry in summary.get("metrics", {}).items()
        if name in logged and name != "val/loss" and entry["last"] is not None  # NaN is null
    }
