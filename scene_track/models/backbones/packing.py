"""A frozen backbone's output as one row of half-precision numbers per image, and its name.

Special here: what stands in a name must change whenever the features could: weights, arguments of
the constructor, the code that the network is made of, size and precision. A name that changes too
often costs one computation; one that changes too rarely, a wrong result. The code of an installed
package is its version. A checkout (this project, Meta's DINOv3, a person's own backbone) has none,
or one that nobody raises with every change: there the content of the files counts.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from scene_track.models.backbones.base import Backbone, BackboneFeatures, TrainingOptions

FORMAT = 1
"""Of the rows; another one is another name."""

_OURS = __name__.partition(".")[0]
_LIBRARY = tuple(
    Path(folder).resolve()
    for key in ("stdlib", "platstdlib")
    if (folder := sysconfig.get_paths().get(key))
)
_NO_INFLUENCE = {*TrainingOptions.__annotations__, "weights"}  # the weights themselves count


@dataclass(frozen=True)
class FeatureLayout:
    """Where levels and token lie in a row of R numbers.

    Attributes:
        levels: (C, h, w) of each level, finest first.
        cls_dim: channels of the global token, which comes last.
    """

    levels: tuple[tuple[int, int, int], ...]
    cls_dim: int

    @classmethod
    def of(cls, features: BackboneFeatures) -> FeatureLayout:
        """The layout of features like these."""
        shapes = tuple((x.shape[1], x.shape[2], x.shape[3]) for x in features.levels)
        return cls(levels=shapes, cls_dim=features.cls.shape[-1])

    @property
    def values(self) -> int:
        """R, numbers per row."""
        return sum(math.prod(shape) for shape in self.levels) + self.cls_dim

    def pack(self, features: BackboneFeatures) -> Tensor:
        """``[N, R]`` float16; a level's channels lie together, as a ViT and a GPU have them.

        Raises:
            ValueError: a feature is not finite in half precision.
        """
        levels = [level.permute(0, 2, 3, 1).flatten(1) for level in features.levels]
        parts = [part.detach() for part in (*levels, features.cls)]
        with torch.autocast(features.cls.device.type, enabled=False):
            row = torch.cat([part.half() for part in parts], dim=1)
        if not bool(row.isfinite().all()):  # once per frame and cache, so the wait is no matter
            largest = max(float(part.abs().max()) for part in parts)
            raise ValueError(
                f"the backbone's features reach {largest:.3g}, and half precision holds 65504: type"
                " model.backbone.cache=false"
            )
        return row

    def unpack(self, rows: Tensor) -> BackboneFeatures:
        """Float32 features of ``[N, R]`` rows."""
        sizes = [math.prod(shape) for shape in self.levels]
        *parts, token = rows.float().split([*sizes, self.cls_dim], dim=1)
        levels = tuple(
            part.unflatten(1, (h, w, c)).permute(0, 3, 1, 2)
            for part, (c, h, w) in zip(parts, self.levels, strict=True)
        )
        return BackboneFeatures(levels=levels, cls=token)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights and buffers, kept or not."""
    digest = hashlib.sha256()
    for name, value in sorted([*module.named_parameters(), *module.named_buffers()]):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(backbone: Backbone, *, size: tuple[int, int], precision: str) -> dict[str, Any]:
    """Everything that defines the features of an image, as plain values.

    ``size`` is (height, width) of the images in pixels, ``precision`` the type that matrices are
    multiplied in, such as ``bfloat16``.
    """
    packages = {type(part).__module__.split(".")[0] for part in backbone.modules()}
    kind = type(backbone)
    settings = {k: v for k, v in backbone.settings.items() if k not in _NO_INFLUENCE}
    return {
        "format": FORMAT,
        "backbone": f"{kind.__module__}.{kind.__qualname__}",
        "settings": {name: repr(value) for name, value in sorted(settings.items())},
        "weights": weights_digest(backbone),
        "size": list(size),
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "precision": precision,
        "sources": source_digests(backbone),
        "packages": {
            name: str(getattr(sys.modules.get(name), "__version__", None))
            for name in sorted(packages)
        },
    }


def name_of(content: dict[str, Any]) -> str:
    """Name of a folder for features with this fingerprint."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    height, width = content["size"]
    return f"{content['backbone'].rpartition('.')[2]}-{height}x{width}-{digest[:16]}"


def source_digests(network: nn.Module) -> dict[str, str]:
    """SHA-256 of the files without a version that a network's classes are made of.

    These are the files of the classes of all its modules, of what those inherit from, and of the
    classes, functions and modules that such a file names at its top level, and so on. Files of
    installed packages and of Python itself are left out; this project's own always count. The first
    16 digits of each, by the name of its module, sorted.
    """
    waiting = [kind.__module__ for part in network.modules() for kind in type(part).__mro__]
    digests: dict[str, str] = {}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module = sys.modules.get(name)
        file = None if module is None else _file_of(module)
        if module is None or file is None:
            continue
        digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        waiting += _named_by(module)
    return dict(sorted(digests.items()))


def _file_of(module: ModuleType) -> Path | None:
    """The file of a module that has no version to go by."""
    name = getattr(module, "__file__", None)
    if name is None:  # built in, or typed at a prompt
        return None
    file = Path(name)
    if module.__name__.partition(".")[0] == _OURS:
        return file
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    library = any(file.resolve().is_relative_to(folder) for folder in _LIBRARY)
    return None if installed or library else file


def _named_by(module: ModuleType) -> Iterator[str]:
    """Modules of what a module's top level names."""
    # A package also holds those of its modules that happen to be imported by now.
    package = hasattr(module, "__path__")
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            if not package and not hasattr(value, "__path__"):
                yield value.__name__
        elif callable(value):
            home: Any = getattr(value, "__module__", None)
            if isinstance(home, str):
                yield home
