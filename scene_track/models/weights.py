"""Reading pretrained weights with suspicion.

A download that stopped half-way, a login page saved as ``.pth``, a file of another architecture or
one with NaN in a buffer must end in one line that says so, never in a model that trains from noise.
Nothing in a file is executed (``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.[a-z]+$")


@dataclass(frozen=True)
class StateDictComparison:
    """How the tensors of a file fit those that are wanted.

    Attributes:
        matched: keys in both with the same shape.
        missing: keys that are wanted and not in the file.
        unexpected: keys of the file that are not wanted.
        reshaped: keys in both with different shapes, with ``(3, 4) instead of (3, 5)``.
        retyped: keys in both with different types, at least one of them floating point, with
            ``float16 instead of float32``.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, str]
    retyped: dict[str, str]

    @property
    def exact(self) -> bool:
        """Whether all keys and shapes agree; types may differ."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def problems(self) -> list[str]:
        """One text for each difference, missing keys first and types last."""
        return [
            *(f"{key} is missing" for key in self.missing),
            *(f"{key} is unexpected" for key in self.unexpected),
            *(f"{key} is {text}" for key, text in {**self.reshaped, **self.retyped}.items()),
        ]

    def __str__(self) -> str:
        """One line with the counts and the first keys of each kind."""
        parts = [f"{len(self.matched)} keys match"]
        reshaped = [f"{key} {text}" for key, text in self.reshaped.items()]
        for name, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("reshaped", reshaped),
        ):
            if keys:
                more = ", ..." if len(keys) > 3 else ""
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:3])}{more})")
        return "; ".join(parts)


def compare_state_dicts(
    wanted: Mapping[str, Tensor] | Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]
) -> StateDictComparison:
    """Compare the tensors of a file with those that are wanted.

    Args:
        wanted: a model's tensors by key, or their shapes alone (types are not compared then).
        found: the file's tensors by key.
    """
    matched: list[str] = []
    reshaped: dict[str, str] = {}
    retyped: dict[str, str] = {}
    for key, value in wanted.items():
        if key not in found:
            continue
        there = found[key]
        shape = tuple(value.shape) if isinstance(value, Tensor) else value
        if shape == tuple(there.shape):
            matched.append(key)
        else:
            reshaped[key] = f"{tuple(there.shape)} instead of {shape}"
        if (
            isinstance(value, Tensor)
            and value.dtype != there.dtype
            and (value.is_floating_point() or there.is_floating_point())
        ):
            types = (str(tensor.dtype).removeprefix("torch.") for tensor in (there, value))
            retyped[key] = " instead of ".join(types)
    return StateDictComparison(
        matched=matched,
        missing=[key for key in wanted if key not in found],
        unexpected=[key for key in found if key not in wanted],
        reshaped=reshaped,
        retyped=retyped,
    )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Fill ``module`` with ``state`` if every key and shape agrees; otherwise leave it as it is.

    Args:
        module: the module to fill; one on the meta device takes the tensors themselves.
        state: tensors by key.
        source: where the tensors come from, for the error.

    Raises:
        ValueError: keys or shapes differ.
    """
    comparison = compare_state_dicts(module.state_dict(), state)
    if not comparison.exact:
        raise ValueError(f"{source} does not fit {type(module).__name__}: {comparison}")
    empty = any(value.is_meta for value in module.state_dict().values())
    module.load_state_dict(dict(state), strict=True, assign=empty)


def rename_by_position(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """Give the tensors of another implementation of the same network the names that are wanted.

    Two implementations that define the same layers in the same order differ in names alone. Every
    pair must agree in its shape and in the last part of its name (``weight``, ``running_var``),
    so that a layer of another kind cannot take the place.

    Args:
        state: of the file, in its order; what comes after the last wanted tensor (a classifier) is
            left out.
        wanted: tensors by key, in the order of the network.
        source: where the tensors come from, for the error.

    Raises:
        ValueError: naming the first pair that differs.
    """
    if len(state) < len(wanted):
        raise ValueError(f"{source} holds {len(state)} tensors, expected at least {len(wanted)}")
    renamed: dict[str, Tensor] = {}
    for (old, value), (new, like) in zip(state.items(), wanted.items(), strict=False):
        if value.shape != like.shape or old.rpartition(".")[2] != new.rpartition(".")[2]:
            raise ValueError(
                f"{source}: tensor {len(renamed) + 1} is {old} {tuple(value.shape)}, expected"
                f" {new} {tuple(like.shape)}"
            )
        renamed[new] = value
    return renamed


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
            f" {bad[0]}: it is damaged, or was saved before it was initialised: take another one"
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


def check_sums(path: Path) -> None:
    """Compares the checksums in a file that ``torch.save`` wrote: torch itself does not.

    Raises:
        ValueError: one is wrong: a broken transfer would change weights unseen.
        zipfile.BadZipFile: the file is damaged in another way.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is wrong")


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
        check_sums(path)
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged data lead a reader to almost any exception
        if isinstance(error, OSError) and error.filename is not None:
            raise  # such as a file that may not be read
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
