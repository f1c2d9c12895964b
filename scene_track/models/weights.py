"""Reading pretrained weights with suspicion.

A download that stopped half-way, a login page saved as ``.pth``, a file of another architecture or
one with NaN in a buffer must end in one line that says so, never in a model that trains from noise.
Nothing in a file is executed (``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.[a-z]+$")


@dataclass(frozen=True)
class KeyComparison:
    """How the keys of a file fit a module.

    Attributes:
        matched: in both, with the same shape.
        missing: in the module only.
        unexpected: in the file only.
        reshaped: in both with different shapes, as ``key (file (3, 4), model (3, 5))``.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    @property
    def exact(self) -> bool:
        """Whether file and module agree in every key and shape."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        """One line with the counts and the first keys of each kind."""
        parts = [f"{len(self.matched)} keys match"]
        for name in ("missing", "unexpected", "reshaped"):
            keys = getattr(self, name)
            if keys:
                more = ", ..." if len(keys) > 3 else ""
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:3])}{more})")
        return "; ".join(parts)


def compare_keys(module: nn.Module, state: Mapping[str, Tensor]) -> KeyComparison:
    """Compare ``state`` with what ``module.load_state_dict`` wants.

    Args:
        module: the module to be filled.
        state: tensors by key.

    Returns:
        The comparison; its ``str`` is one line for a log or an error.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    return compare_shapes(wanted, state)


def compare_shapes(
    wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]
) -> KeyComparison:
    """Compare ``state`` with the shapes that are wanted by key, see ``compare_keys``."""
    both = [key for key in wanted if key in state]
    return KeyComparison(
        matched=[key for key in both if wanted[key] == tuple(state[key].shape)],
        missing=[key for key in wanted if key not in state],
        unexpected=[key for key in state if key not in wanted],
        reshaped=[
            f"{key} (file {tuple(state[key].shape)}, model {wanted[key]})"
            for key in both
            if wanted[key] != tuple(state[key].shape)
        ],
    )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Fill ``module`` with ``state`` if every key and shape agrees; otherwise leave it as it is.

    Args:
        module: the module to fill.
        state: tensors by key.
        source: where the tensors come from, for the error.

    Raises:
        ValueError: keys or shapes differ.
    """
    comparison = compare_keys(module, state)
    if not comparison.exact:
        raise ValueError(f"{source} does not fit {type(module).__name__}: {comparison}")
    module.load_state_dict(dict(state), strict=True)


def check_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse weights that hold NaN or infinity, buffers included.

    Args:
        state: tensors by key.
        source: where the tensors come from, for the error.

    Raises:
        ValueError: naming the first such key.
    """
    bad = [
        key
        for key, value in state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if bad:
        raise ValueError(
            f"{source} holds NaN or infinity in {len(bad)} of {len(state)} tensors, the first is"
            f" {bad[0]}: it was saved before it was initialised, or is damaged; obtain it again"
        )


def check_name_hash(path: Path) -> None:
    """Compare the eight hex digits in a name like ``model-08c60483.pth`` with the file's SHA-256.

    The publishers of PyTorch weights put the head of the digest into the file name; nobody else
    checks it. A name without such digits passes.

    Args:
        path: an existing file.

    Raises:
        ValueError: the digits differ.
    """
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[1]):
        raise ValueError(
            f"{path} is damaged or incomplete: its SHA-256 starts with {digest[:8]}, its name says"
            f" {match[1]} ({path.stat().st_size:,} bytes); download it again"
        )


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Read a bare state dict, the form in which DINOv3 and torchvision publish weights.

    Args:
        path: a ``.pth`` or ``.safetensors`` file.

    Returns:
        Tensors on the CPU by key, all finite.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, a web page, a Git LFS pointer, truncated, of another hash than
            its name says, no PyTorch file, no state dict, or holds NaN.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file at {path}")
    if not path.is_file():
        raise ValueError(f"{path} is a folder, expected a file of weights")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(
            f"{path} is a web page, not weights ({size:,} bytes): the download link has expired or"
            " wants a login; open it in a browser and download again"
        )
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not weights: fetch the file itself")
    check_name_hash(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    # a file cut at the wrong byte is an OSError (seek before the start), cut elsewhere another type
    except (
        RuntimeError,
        OSError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        KeyError,
        SafetensorError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as PyTorch weights ({size:,} bytes): truncated, or another"
            f" format ({_first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds a {type(state).__name__}, expected tensors by key")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"{path} is no bare state dict: {others[0]!r} is no tensor; if it is a training"
            " checkpoint, save its model part with torch.save first"
        )
    check_finite(state, path)
    return state


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
