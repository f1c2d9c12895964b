"""Checkpoint files: written atomically, found, and read without running code from them."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from scene_track.config.resumed import refuse_another_run
from scene_track.io.atomic import atomic_path
from scene_track.models.weights import check_finite, check_sums, compare_state_dicts

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
EXPORTED = ("model.safetensors", "model.onnx")  # see scene_track.training.exported


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file access: atomic writes, and reading that runs no code from the file."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write ``checkpoint`` to ``path`` atomically."""
        del storage_options
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # What torch's writer says of a full disk names neither the disk nor the file.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read ``path`` as ``load_checkpoint`` does; the other arguments have no effect."""
        del map_location, weights_only
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is torn, not a checkpoint, or holds more than plain containers and
            tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if not _is_zip(path):  # the directory of a zip file is its end: a torn one has none
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
        if head.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise ValueError(
                f"{path} is a web page, not a checkpoint: download the file itself, not the page"
                " that shows it"
            )
        raise ValueError(f"{path} is torn ({size} bytes) or not a checkpoint: take another one")
    try:
        check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds objects other than tensors and plain containers; such a file is not"
            " opened because loading it could run code"
        ) from error
    except Exception as error:  # damaged data lead a reader to almost any exception
        if isinstance(error, OSError) and error.filename is not None:
            raise  # such as a file that may not be read
        reason = str(error).split("\n")[0].split(". ")[0]  # the rest is advice to torch's authors
        raise ValueError(f"{path} is damaged ({reason}): take another one") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, expected a checkpoint: take another one"
        )
    if isinstance(weights := content.get("state_dict"), dict):
        check_finite({n: w for n, w in weights.items() if isinstance(w, Tensor)}, path)
    return content


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end says that it is one of several files
        return False


def resolve_checkpoint(where: str | os.PathLike[str], *, prefer: Literal["best", "last"]) -> Path:
    """The checkpoint file meant by a run folder or a file name.

    Raises:
        FileNotFoundError: nothing there; says where it looked.
    """
    path = Path(where).expanduser()
    if path.is_file():
        return path
    names = (BEST, LAST) if prefer == "best" else (LAST, BEST)
    candidates = [folder / name for name in names for folder in (path / FOLDER, path)]
    if prefer == "best":
        candidates += [path / name for name in EXPORTED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} has no {FOLDER}/{names[0]}: give a run folder or a .ckpt file"
        )
    raise FileNotFoundError(f"{path} does not exist: give a run folder or a .ckpt file")


def prepare_resume(
    where: str | os.PathLike[str], module: pl.LightningModule, typed: Collection[str] = ()
) -> Path:
    """Find the checkpoint that ``resume_from=`` names and check that it continues ``module``."""
    path = resolve_checkpoint(where, prefer="last")
    checkpoint = load_checkpoint(path)
    missing_parts = [k for k in ("state_dict", "optimizer_states", "loops") if k not in checkpoint]
    if missing_parts:
        raise ValueError(
            f"resume_from={path} has no {', '.join(missing_parts)}: it holds weights only;"
            " use init_from="
        )
    if (settings := checkpoint.get("hyper_parameters")) and module.hparams:
        refuse_another_run(settings, module.hparams, typed)
    comparison = compare_state_dicts(module.state_dict(), checkpoint["state_dict"])
    if not comparison.exact:
        raise ValueError(
            f"resume_from={path} is of another model: {comparison}. Resume with that run's"
            " configuration, or take the weights that fit with init_from="
        )
    return path


def plain(value: Any) -> Any:
    """Containers, numbers, strings and tensors only: a path or a config node would need code."""
    if value is None or isinstance(value, bool | Tensor):
        return value
    for kind in (int, float, str):  # also undoes subclasses such as numpy's float64
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, int) else str(key): plain(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if hasattr(value, "items") and hasattr(value, "keys"):
        return plain(dict(value.items()))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"a checkpoint cannot hold a {type(value).__name__}: make it a plain container or number"
    )
