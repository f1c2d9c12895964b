"""The check before a run: a composed configuration against the classes it names.

Every node with a ``_target_`` is compared with the signature of its class, which is imported if the
name starts with a trusted prefix. There is no central schema to edit: a new backbone states what it
accepts in its constructor, ``Annotated[int, Field(ge=1)]`` and the like. All faults are collected,
one line each, with the key as it is typed on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import BaseModel, DirectoryPath, Field, FilePath

from scene_track.config.paths import config_dir
from scene_track.config.shipped import option_values
from scene_track.config.signature import (
    Signature,
    TargetNotFoundError,
    find_target,
    read_signature,
    signature_of,
)
from scene_track.config.tree import Marker, Tree, join, near, read_tree, shown, unknown_key, walk
from scene_track.sweeps.trial import is_trial

ALLOWED_PREFIXES = (
    "scene_track.",
    "torch.optim.",
    "torch.nn.",
    "torchvision.",
    "pytorch_lightning.",
    "timm.",
    "transformers.",
)
_INSTANTIATE_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


class ConfigError(ValueError):
    """The configuration is wrong; the message has one line per fault."""


class _Monitor(BaseModel, extra="forbid"):
    """What decides the best checkpoint."""

    metric: Annotated[str, Field(min_length=1)]
    mode: Literal["min", "max"]


class _Viz(BaseModel, extra="forbid"):
    """Images drawn while training."""

    max_frames: Annotated[int, Field(ge=0)]


class _RunConfig(BaseModel, extra="allow"):
    """Root keys of ``config.yaml``, which belong to no class; further ones must be groups."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    experiment_name: Annotated[str, Field(min_length=1)]
    monitor: _Monitor
    viz: _Viz
    resume_from: FilePath | DirectoryPath | None
    init_from: FilePath | DirectoryPath | None
    dry_run: bool
    init_parts: Annotated[list[str], Field(min_length=1)] | None
    init_partial: bool
    run_dir: Annotated[str, Field(min_length=1)]
    trusted_targets: list[str]


def check(cfg: DictConfig, root: str | None = None) -> None:
    """Compares a composed configuration with what its classes accept.

    Raises:
        ConfigError: one line per fault: the key, the value and what is allowed.
    """
    tree = read_tree(cfg)
    trusted = tree.values.get("trusted_targets")
    if not (isinstance(trusted, list) and all(isinstance(item, str) for item in trusted)):
        trusted = []  # if it is wrong, the root's signature says so
    checks = _Checks(tree)
    if root is None:
        known = signature_of(_RunConfig)
        checks.roots(known)
    else:
        known = read_signature(root)
    checks.values(known, tree.values, "")
    checks.targets(trusted)
    if root is None:
        checks.size()
        checks.together()
    checks.finish()


def check_objects(cfg: DictConfig, trusted: Sequence[str] = ()) -> None:
    """Compares the ``_target_`` nodes of any configuration with the code."""
    checks = _Checks(read_tree(cfg))
    checks.targets(trusted)
    checks.finish()


def tracker_fault(tracker: Any, evaluator: Any) -> str | None:
    """What is wrong with a tracker class for what a head's evaluator gives; None if nothing is.

    What the tracker reads (``READS``) must be what the evaluator gives (``GIVES``), if both say so.
    """
    if (mismatch := _mismatch(tracker, evaluator)) is None:
        return None
    files = sorted((Path(config_dir()) / "tracker").glob("[!_]*.yaml"))
    shipped = {f.stem: find_target(option_values("tracker", f.stem)["_target_"]) for f in files}
    fitting = [f"tracker={name}" for name, c in shipped.items() if c.READS == evaluator.GIVES]
    return f"{mismatch}; type {' or '.join(fitting) or 'a tracker= that reads them'}"


def input_fault(model: Any, detections: Any) -> str | None:
    """What is wrong with a model for what the data gives; None if nothing is."""
    reads = getattr(model, "READS", None)
    if reads is None or (reads == "detections") == (detections is not None):
        return None
    name = (model if isinstance(model, type) else type(model)).__name__
    if reads == "detections":
        return f"{name} reads detections; type dataset.detections=FOLDER, or =noise"
    return f"{name} reads images; type dataset.detections=null, or train with model=association"


def _mismatch(reader: Any, giver: Any) -> str | None:
    """In words that one class reads something else than the other gives."""
    reads, gives = getattr(reader, "READS", None), getattr(giver, "GIVES", None)
    if None in (reads, gives) or reads == gives:
        return None
    return f"{reader.__name__} reads {reads}, and {giver.__name__} gives {gives}"


class _Checks:
    """The checks of one configuration and the faults found, one per key."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lines: dict[str, tuple[bool, str]] = {}
        self._found: dict[str, Any] = {}  # classes that can be looked into, by their node
        for path, text in tree.unresolved.items():
            self.add(path, text)

    def add(self, path: str, text: str) -> None:
        """Notes a fault of the value at ``path`` for the key that it takes its value from."""
        key = self._tree.origin(path)
        direct = key == path
        if key not in self._lines or (direct and not self._lines[key][0]):
            self._lines[key] = (direct, f"{key}{text}" + ("" if direct else f" (for {path})"))

    def finish(self) -> None:
        """Raises ``ConfigError`` if there is a fault."""
        if self._lines:
            raise ConfigError("\n".join(line for _, line in self._lines.values()))

    # --- one node ---

    def targets(self, trusted: Sequence[str]) -> None:
        """Compares every ``_target_`` node with its class."""
        prefixes = (*ALLOWED_PREFIXES, *(f"{item.rstrip('.')}." for item in trusted))
        for path, node in walk(self._tree.values):
            if node is Marker.MISSING:
                self.add(path, f" is required: type {path}=VALUE")
            elif isinstance(node, dict) and "_target_" in node:
                self._target(node, path, prefixes)

    def _target(self, node: dict[str, Any], path: str, prefixes: tuple[str, ...]) -> None:
        target, key = node["_target_"], join(path, "_target_")
        if not isinstance(target, str) or not target.startswith(prefixes):
            allowed = f"{', '.join(prefixes[:-1])} or {prefixes[-1]}"
            hint = "trusted_targets=[my_project.] allows a further one"
            self.add(key, f"={shown(target)}: must start with {allowed}; {hint}")
            return
        try:
            signature = read_signature(target)
        except TargetNotFoundError as error:
            self.add(key, f"={target}: {error}")
            return
        if not signature.defined_at.startswith((*prefixes, "lightning_fabric.")):
            self.add(key, f"={target}: leads to {signature.defined_at}, which is not allowed")
            return
        self._found[path] = find_target(target)
        values = {name: value for name, value in node.items() if name not in _INSTANTIATE_KEYS}
        arguments = node.get("_args_")
        count = len(arguments) if isinstance(arguments, list) else 0
        given = list(signature.parameters)[: None if node.get("_partial_") is True else count]
        self.values(signature, values, path, given)

    def values(
        self,
        signature: Signature,
        values: Mapping[str, Any],
        path: str,
        given: Collection[str] = (),
    ) -> None:
        """Compares the values of one node with a signature, of which some parameters are given."""
        for name, value in values.items():
            here = join(path, name)
            parameter = signature.parameters.get(name)
            if parameter is None:
                if not signature.open:
                    self.add(here, unknown_key(path, name, [*signature.parameters]))
            elif _is_plain(value) and (text := parameter.fault(here, value)) is not None:
                inner = re.split(r"[=:]", text, maxsplit=1)[0]  # the line begins with the key
                self.add(inner, text.removeprefix(inner))
        for name, parameter in signature.parameters.items():
            if parameter.required and name not in values and name not in given:
                here = join(path, name)
                self.add(here, f" is required: type +{here}=VALUE")

    # --- several nodes ---

    def roots(self, known: Signature) -> None:
        """A key at the root must be known, a node of a group, or one that something refers to."""
        allowed, by_hand = {*known.parameters}, not HydraConfig.initialized()
        if not by_hand:
            choices = HydraConfig.get().runtime.choices
            named = (choice.partition("@")[2] or choice for choice in choices)
            allowed |= {re.split(r"[/.]", name)[0] for name in named} - {"hydra"}
        used = {origin.partition(".")[0] for origin in self._tree.references.values()}
        for key, value in self._tree.values.items():
            node = isinstance(value, dict | NoneType) and (by_hand or key in used)
            if not (node or key in allowed or isinstance(value, Marker)):
                self.add(key, unknown_key("", key, allowed))

    def _at(self, key: str) -> Any:
        """The value at a dotted key; None if there is none."""
        node = self._tree.values
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def size(self) -> None:
        """Sizes of images must be multiples of what the backbone asks for, unless it pads."""
        policy, multiple = (self._at(f"model.backbone.size_{x}") for x in ("policy", "multiple"))
        if multiple is None and (backbone := self._found.get("model.backbone")):
            stated = signature_of(backbone).parameters.get("size_multiple")
            multiple = None if stated is None else stated.default
        if policy == "pad" or type(multiple) is not int or multiple < 1:
            return
        pads = "" if policy is None else "; or type model.backbone.size_policy=pad"
        for key in ("dataset.size", "dataset.augment.crop"):
            size = self._at(key)
            pair = isinstance(size, list) and [type(x) for x in size] == [int, int]
            if not pair or all(x % multiple == 0 for x in size):
                continue
            lower = shown([max(x // multiple, 1) * multiple for x in size])
            upper = shown([-(-x // multiple) * multiple for x in size])
            nearest = " or ".join(dict.fromkeys((lower, upper)))
            self.add(
                key,
                f"={shown(size)}: height and width must be multiples of {multiple} for"
                f" model.backbone; the nearest are {nearest}{pads}",
            )

    def together(self) -> None:
        """What the classes of different nodes read and give must fit."""
        at, found, detections = self._at, self._found, "dataset.detections"
        model, evaluator, given = found.get("model"), found.get("head.evaluator"), at(detections)
        if model and not isinstance(given, Marker) and (text := input_fault(model, given)):
            self.add(detections, f"={shown(given)}: {text}")
        if text := _mismatch(found.get("head.module"), model):
            text += "; choose model= and head= that go together"
            self.add("head.module._target_", f"={at('head.module._target_')}: {text}")
        if text := tracker_fault(found.get("tracker"), evaluator):
            self.add("tracker._target_", f"={at('tracker._target_')}: {text}")
        metric, logs = at("monitor.metric"), getattr(evaluator, "LOGS", ())
        if isinstance(metric, str) and evaluator and metric not in logs:
            hint = f"{near(metric, logs)} allowed: {', '.join(logs)}"
            self.add("monitor.metric", f"={metric}: {evaluator.__name__} does not log it;{hint}")
        length, offsets = at("dataset.window.length"), at("model.detail.offsets")
        if type(length) is int and isinstance(offsets, list) and set(map(type, offsets)) == {int}:
            least = max([0, *offsets]) - min([0, *offsets]) + 1
            if length < least:
                words = (
                    f"model.detail.offsets={shown(offsets)} reach over {least} frames, so no frame"
                )
                words += f" of a training clip has all of its neighbours; type {least} or more"
                self.add("dataset.window.length", f"={length}: {words}, or nearer offsets")
        nodes = at("trainer.num_nodes")
        if is_trial() and type(nodes) is int and nodes > 1:  # nothing starts it on the others
            words = "a trial of a sweep trains on one machine; type trainer.num_nodes=1"
            self.add("trainer.num_nodes", f"={nodes}: {words} (docs/scaling.md)")


def _is_plain(value: Any) -> bool:
    """Whether the value is data through and through: no object to be built, no marker."""
    if isinstance(value, dict):
        return "_target_" not in value and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not isinstance(value, Marker)
