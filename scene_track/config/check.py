"""The pre-flight check: a composed configuration against the classes it names, none imported.

Every node with a ``_target_`` is compared with that class's own signature, which is read from its
source (see ``signature``), so torch is not needed. There is no central schema to edit: a new
backbone states what it accepts in its constructor, ``Annotated[int, Field(ge=1)]`` and the like.
All faults are collected, one line each, in the form in which the key is typed on the command line.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import annotated_types
import pydantic
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import AllowInfNan, BaseModel, Strict, TypeAdapter
from pydantic.fields import FieldInfo

from scene_track.config import schema
from scene_track.config.keys import lies_in
from scene_track.config.signature import (
    NOT_LITERAL,
    UNKNOWN,
    Parameter,
    TargetNotFoundError,
    class_constant,
    read_signature,
)
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


class _Marker:
    """Stands in the plain configuration where there is no value."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


_MISSING = _Marker("???")  # to be typed by a person
_ELSEWHERE = _Marker(
    "elsewhere"
)  # not known yet, or a reference to a node that is checked in place
Plain = Any  # dict, list, str, int, float, bool, None or a marker


class _Report:
    """Collects faults, one per key; a key that only refers to another is spoken of by the other."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self._references = references
        self._lines: dict[str, tuple[bool, str]] = {}

    def add(self, path: str, text: str) -> None:
        """Notes that the value at ``path`` is wrong; ``text`` follows the key."""
        key = path
        while key in self._references:
            key = self._references[key]
        direct = key == path
        if key not in self._lines or (direct and not self._lines[key][0]):
            self._lines[key] = (direct, f"{key}{text}" + ("" if direct else f" (for {path})"))

    def lines(self) -> list[str]:
        """All faults."""
        return [line for _, line in self._lines.values()]


def check(cfg: DictConfig, root: str | None = None) -> None:
    """Compares a composed configuration with what its classes accept.

    Args:
        cfg: the job's configuration, without Hydra's own node.
        root: dotted name of the class or function whose signature describes the root keys; by
            default the root of a training run (``schema.RunConfig``), with its cross checks.

    Raises:
        ConfigError: one line per fault: the key, the value and what is allowed.
    """
    references: dict[str, str] = {}
    report = _Report(references)
    raw = OmegaConf.to_container(cfg, resolve=False)
    plain = _to_plain(raw, cfg, "", references, report)
    trusted = plain.get("trusted_targets")
    if not (isinstance(trusted, list) and all(isinstance(item, str) for item in trusted)):
        trusted = []  # if it is wrong, the root's schema says so
    if root is None:
        _check_model(schema.RunConfig, plain, "", report)
        _check_groups(plain, report)
    else:
        signature = read_signature(root)
        _check_values(signature.parameters, signature.open, plain, "", report)
    _check_targets(plain, trusted, report)
    for path, node in _nodes(plain, ""):
        if node is _MISSING:
            report.add(path, f" is required: type {path}={_placeholder(path, UNKNOWN)}")
    if root is None:
        _check_size(plain, report)
        _check_monitor(plain, report)
        _check_head(plain, report)
        _check_tracker(plain, report)
        _check_neighbours(plain, report)
        _check_trial(plain, report)
    if lines := report.lines():
        raise ConfigError("\n".join(lines))


def check_objects(cfg: DictConfig, trusted: Sequence[str] = ()) -> None:
    """Compares the ``_target_`` nodes of any configuration, such as a checkpoint's, with the code.

    Args:
        cfg: holds the nodes; its other keys are free.
        trusted: further module prefixes that a ``_target_`` may name.

    Raises:
        ConfigError: one line per fault, as from :func:`check`.
    """
    references: dict[str, str] = {}
    report = _Report(references)
    raw = OmegaConf.to_container(cfg, resolve=False)
    _check_targets(_to_plain(raw, cfg, "", references, report), trusted, report)
    if lines := report.lines():
        raise ConfigError("\n".join(lines))


def derived(cfg: DictConfig, keys: Collection[str]) -> set[str]:
    """The keys that take their values from others, directly or by way of further ones.

    Args:
        cfg: with its interpolations.
        keys: the others; a node or group stands for all in it.
    """
    origins: dict[str, str] = {}
    _to_plain(OmegaConf.to_container(cfg, resolve=False), cfg, "", origins, _Report(origins))
    found: set[str] = set()
    for key, origin in origins.items():
        while not lies_in(origin, keys) and origin in origins:
            origin = origins[origin]
        if lies_in(origin, keys):
            found.add(key)
    return found


# --- the configuration as plain data -------------------------------------------------------------


def _to_plain(raw: Any, node: Any, path: str, references: dict[str, str], report: _Report) -> Plain:
    """Dicts and lists with interpolations resolved; notes which key refers to which.

    Args:
        raw: the node as plain data, interpolations as they are written.
        node: the same as OmegaConf has it.
        path: of the node.
        references: filled with ``{key: the key it is an interpolation of}``.
        report: takes interpolations that cannot be resolved.
    """

    def child(key: Any, value: Any) -> Plain:
        here = _join(path, key)
        if isinstance(value, dict | list):
            return _to_plain(value, node[key], here, references, report)
        if value == "???":
            return _MISSING
        if isinstance(value, str) and "${" in value:
            return _resolved(value, node, key, here, references, report)
        return value

    if isinstance(raw, dict):
        return {key: child(key, value) for key, value in raw.items()}
    return [child(index, value) for index, value in enumerate(raw)]


def _resolved(
    raw: str, node: Any, key: Any, path: str, references: dict[str, str], report: _Report
) -> Plain:
    """The value of an interpolation; ``_ELSEWHERE`` if it is a node or cannot be known."""
    if match := re.fullmatch(r"\$\{(?:oc\.select:)?(\.*)([\w.\[\]-]+)(?:,[^{}]*)?\}", raw):
        references[path] = _absolute(path, len(match[1]), match[2])
    try:
        value = node[key]
    except InterpolationToMissingValueError:
        return _ELSEWHERE
    except OmegaConfBaseException as error:
        # Hydra's own values exist only inside a run, not where one composes by hand.
        if HydraConfig.initialized() or "HydraConfig was not set" not in str(error):
            references.pop(path, None)
            report.add(path, f"={raw}: cannot be resolved: {str(error).strip().splitlines()[0]}")
        return _ELSEWHERE
    return _ELSEWHERE if isinstance(value, DictConfig | ListConfig) else value


def _absolute(path: str, dots: int, name: str) -> str:
    """The key that an interpolation names; with dots it is relative to the node around ``path``."""
    if not dots:
        return name
    around = re.split(r"\.|(?=\[)", path)[:-dots]
    return ".".join([*around, name]).replace(".[", "[")


def _nodes(node: Plain, path: str) -> Iterator[tuple[str, Plain]]:
    """Every node with its path, outer ones first."""
    yield path, node
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _nodes(value, _join(path, key))


def _join(path: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def _checkable(value: Plain) -> bool:
    """Whether the value is data through and through: no object to be built, no marker."""
    if isinstance(value, dict):
        return "_target_" not in value and all(_checkable(item) for item in value.values())
    if isinstance(value, list):
        return all(_checkable(item) for item in value)
    return not isinstance(value, _Marker)


# --- one node ------------------------------------------------------------------------------------


def _check_targets(plain: Plain, trusted: Sequence[str], report: _Report) -> None:
    """Compares every ``_target_`` node with its class."""
    prefixes = (*ALLOWED_PREFIXES, *(f"{item.rstrip('.')}." for item in trusted))
    for path, node in _nodes(plain, ""):
        if isinstance(node, dict) and "_target_" in node:
            _check_target(node, path, prefixes, report)


def _check_target(
    node: dict[str, Plain], path: str, prefixes: tuple[str, ...], report: _Report
) -> None:
    """Compares one ``_target_`` node with its class."""
    target = node["_target_"]
    key = _join(path, "_target_")
    if not isinstance(target, str) or not target.startswith(prefixes):
        allowed = f"{', '.join(prefixes[:-1])} or {prefixes[-1]}"
        hint = "trusted_targets=[my_project.] allows a further one"
        report.add(key, f"={_shown(target)}: must start with {allowed}; {hint}")
        return
    try:
        signature = read_signature(target)
    except TargetNotFoundError as error:
        report.add(key, f"={target}: {error}")
        return
    if not signature.defined_at.startswith((*prefixes, "lightning_fabric.")):
        report.add(key, f"={target}: leads to {signature.defined_at}, which is not allowed")
        return
    parameters = signature.parameters
    values = {name: value for name, value in node.items() if name not in _INSTANTIATE_KEYS}
    arguments = node.get("_args_")
    positional = list(parameters)[: len(arguments)] if isinstance(arguments, list) else []
    partial = node.get("_partial_") is True
    _check_values(parameters, signature.open, values, path, report, {*positional}, partial)


def _check_values(
    parameters: Mapping[str, Parameter],
    accepts_unknown: bool,
    values: Mapping[str, Plain],
    path: str,
    report: _Report,
    positional: Collection[str] = (),
    partial: bool = False,
) -> None:
    """Compares the values of one node with the parameters of its class."""
    for name, value in values.items():
        here = _join(path, name)
        if name not in parameters:
            if not accepts_unknown:
                report.add(here, _unknown_key(path, name, list(parameters)))
            continue
        annotation = parameters[name].annotation
        if value is _MISSING:
            example = f"{here}={_placeholder(name, annotation)}"
            report.add(here, f" is required ({_described(annotation)}): type {example}")
        elif _checkable(value) and (fault := _fault(annotation, value)) is not None:
            report.add(here, fault)
    for name, parameter in parameters.items():
        if parameter.required and not partial and name not in values and name not in positional:
            here = _join(path, name)
            example = f"+{here}={_placeholder(name, parameter.annotation)}"
            report.add(here, f" is required ({_described(parameter.annotation)}): type {example}")


def _check_model(
    model: type[BaseModel], values: Mapping[str, Plain], path: str, report: _Report
) -> None:
    """Compares a mapping with a pydantic model, nested ones included."""
    parameters: dict[str, Parameter] = {}
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            inner = values.get(name)
            if isinstance(inner, dict):
                _check_model(annotation, inner, _join(path, name), report)
                annotation = UNKNOWN
            else:
                annotation = dict
        elif info.metadata:
            annotation = Annotated[(annotation, *info.metadata)]
        parameters[name] = Parameter(name, annotation, info.is_required())
    accepts_unknown = model.model_config.get("extra") == "allow"
    _check_values(parameters, accepts_unknown, values, path, report)


def _check_groups(plain: Mapping[str, Plain], report: _Report) -> None:
    """At the root, what the schema does not name must be a group."""
    known = list(schema.RunConfig.model_fields)
    for key, value in plain.items():
        if key not in known and not isinstance(value, dict | NoneType | _Marker):
            report.add(key, _unknown_key("", key, [*known, *plain]))


# --- cross checks --------------------------------------------------------------------------------


def _check_size(plain: Mapping[str, Plain], report: _Report) -> None:
    """``dataset.size``, and ``dataset.augment.crop`` of training clips, must fit the backbone.

    They must be divisible by what it asks for, unless it pads.
    """
    if _select(plain, "model", "backbone", "size_policy") == "pad":
        return
    multiple = _select(plain, "model", "backbone", "size_multiple")
    if multiple is None:
        multiple = _default_of(_select(plain, "model", "backbone", "_target_"), "size_multiple")
    if type(multiple) is not int or multiple < 1:
        return
    knows = _select(plain, "model", "backbone", "size_policy") is not None
    pads = "; or type model.backbone.size_policy=pad" if knows else ""
    for keys in (("dataset", "size"), ("dataset", "augment", "crop")):
        size = _select(plain, *keys)
        if not (isinstance(size, list) and len(size) == 2 and all(type(x) is int for x in size)):
            continue
        if all(x % multiple == 0 for x in size):
            continue
        lower = [max(x // multiple, 1) * multiple for x in size]
        upper = [-(-x // multiple) * multiple for x in size]
        nearest = " or ".join(dict.fromkeys((_shown(lower), _shown(upper))))
        report.add(
            ".".join(keys),
            f"={_shown(size)}: height and width must be multiples of {multiple} for"
            f" model.backbone; the nearest are {nearest}{pads}",
        )


def _check_monitor(plain: Mapping[str, Plain], report: _Report) -> None:
    """``monitor.metric`` must be one that the head's evaluator logs."""
    metric = _select(plain, "monitor", "metric")
    target = _select(plain, "head", "evaluator", "_target_")
    if not isinstance(metric, str) or not isinstance(target, str):
        return
    try:
        logs = class_constant(target, "LOGS")
    except TargetNotFoundError:
        return  # said by the check of the node itself
    if logs is NOT_LITERAL:
        report.add("head.evaluator._target_", f"={target}: states no LOGS, so it logs no metric")
    elif metric not in logs:
        evaluator = target.rpartition(".")[2]
        report.add(
            "monitor.metric",
            f"={metric}: {evaluator} does not log it;{_close(metric, logs)}"
            f" allowed: {', '.join(logs)}",
        )


def _check_head(plain: Mapping[str, Plain], report: _Report) -> None:
    """What the head reads (``READS``) must be what the model gives (``GIVES``), if both say so."""
    model = _select(plain, "model", "_target_")
    head = _select(plain, "head", "module", "_target_")
    if not isinstance(model, str) or not isinstance(head, str):
        return
    try:
        gives, reads = class_constant(model, "GIVES"), class_constant(head, "READS")
    except TargetNotFoundError:
        return  # said by the check of the node itself
    if gives != reads and NOT_LITERAL not in (gives, reads):
        names = (head.rpartition(".")[2], model.rpartition(".")[2])
        report.add(
            "head.module._target_",
            f"={head}: {names[0]} reads {reads}, and {names[1]} gives {gives}; choose model= and"
            " head= that go together, such as model=scene head=bbox or model=heatmap head=heatmap",
        )


# The trackers that we ship, by what they read.
_TRACKERS = {
    "boxes": "tracker=identity, tracker=bytetrack or tracker=oracle",
    "points": "tracker=peak or tracker=ball",
}


def tracker_fault(tracker: Plain, evaluator: Plain) -> str | None:
    """What is wrong with a tracker for the detections of a head's evaluator; None if nothing is.

    What the tracker reads (``READS``) must be what the evaluator gives (``GIVES``), if both say so.

    Args:
        tracker: dotted name of the tracker's class; what is no text is the check of the node's.
        evaluator: dotted name of the evaluator's class.
    """
    if not isinstance(tracker, str) or not isinstance(evaluator, str):
        return None
    try:
        reads, gives = class_constant(tracker, "READS"), class_constant(evaluator, "GIVES")
    except TargetNotFoundError:
        return None  # said by the check of the node itself
    if reads == gives or NOT_LITERAL in (reads, gives):
        return None
    names = (tracker.rpartition(".")[2], evaluator.rpartition(".")[2])
    typed = _TRACKERS.get(gives, "a tracker= that reads them")
    return f"{names[0]} reads {reads}, and {names[1]} gives {gives}; type {typed}"


def _check_tracker(plain: Mapping[str, Plain], report: _Report) -> None:
    """The tracker must read what the head's evaluator gives."""
    tracker = _select(plain, "tracker", "_target_")
    evaluator = _select(plain, "head", "evaluator", "_target_")
    if (fault := tracker_fault(tracker, evaluator)) is not None:
        report.add("tracker._target_", f"={tracker}: {fault}")


def _check_neighbours(plain: Mapping[str, Plain], report: _Report) -> None:
    """Some frame of a training clip must have all the neighbours that the model looks at."""
    length = _select(plain, "dataset", "window", "length")
    offsets = _select(plain, "model", "detail", "offsets")
    if type(length) is not int or not isinstance(offsets, list):
        return
    if not all(type(offset) is int for offset in offsets):
        return  # said by the check of the node itself
    least = max([0, *offsets]) - min([0, *offsets]) + 1
    if length < least:
        report.add(
            "dataset.window.length",
            f"={length}: model.detail.offsets={_shown(offsets)} reach over {least} frames, so no"
            " frame of a training clip has all of its neighbours; type"
            f" dataset.window.length={least}, or nearer model.detail.offsets",
        )


def _check_trial(plain: Mapping[str, Plain], report: _Report) -> None:
    """A trial of a sweep trains on one machine: nobody starts its processes on the others."""
    nodes = _select(plain, "trainer", "num_nodes")
    if is_trial() and type(nodes) is int and nodes > 1:
        report.add(
            "trainer.num_nodes",
            f"={nodes}: a trial of a sweep trains on one machine, with all its devices; type"
            " trainer.num_nodes=1 and share the trials among the machines (docs/scaling.md)",
        )


def _select(node: Plain, *keys: str) -> Plain:
    for key in keys:
        if not isinstance(node, dict):
            return None
        node = node.get(key)
    return node


def _default_of(target: Plain, name: str) -> Any:
    """A parameter's literal default, else None."""
    if not isinstance(target, str):
        return None
    try:
        parameter = read_signature(target).parameters.get(name)
    except TargetNotFoundError:
        return None
    return None if parameter is None else parameter.default


# --- values --------------------------------------------------------------------------------------


def _strict(annotation: Any) -> Any:
    """The annotation with plain types at their word: no text for numbers, no numbers for bool."""
    if annotation in (int, str, bool):
        return Annotated[annotation, Strict()]
    if annotation is float:
        return Annotated[float, Strict(), AllowInfNan(True)]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_strict(arguments[0]), *arguments[1:])]
    if origin in (Union, UnionType):
        return Union[tuple(_strict(argument) for argument in arguments)]  # noqa: UP007
    if origin in (list, set, frozenset, dict, tuple) and arguments:
        inner = tuple(a if a is ... else _strict(a) for a in arguments)
        return origin[inner]  # type: ignore[reportInvalidTypeArguments]
    return annotation


def _fault(annotation: Any, value: Plain) -> str | None:
    """What is wrong with a value, to follow its key; None if nothing is."""
    if annotation is UNKNOWN:
        return None
    try:
        adapter = TypeAdapter(_strict(annotation))
    except pydantic.PydanticUserError:
        return None  # no type for plain data
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        words = _described(annotation)
        return f"={_shown(value)}: must be {words}{_path_hint(value, words)}{_advice(annotation)}"
    return None


def _advice(annotation: Any) -> str:
    """What the class says beside the constraint: ``Field(description=...)``."""
    if typing.get_origin(annotation) is not Annotated:
        return ""
    texts = [getattr(item, "description", None) for item in typing.get_args(annotation)[1:]]
    return "".join(f"; {text}" for text in texts if text)


def _path_hint(value: Plain, words: str) -> str:
    """Where a path was looked for."""
    if not isinstance(value, str) or "that exists" not in words:
        return ""
    if value.startswith("~"):
        return "; the shell does not expand ~ after =, type $HOME"
    return "" if Path(value).is_absolute() else f" (looked in {Path.cwd()})"


_COMPARISONS: tuple[tuple[str, str], ...] = (
    ("gt", ">"),
    ("ge", ">="),
    ("lt", "<"),
    ("le", "<="),
)
_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    Path: "a path",
    list: "a list",
    dict: "a mapping",
    tuple: "a list",
}


def _described(annotation: Any) -> str:
    """An annotation in words."""
    if annotation is UNKNOWN or annotation is Any:
        return "a value"
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        path_types = [getattr(item, "path_type", None) for item in arguments[1:]]
        if "dir" in path_types or "file" in path_types:
            return f"a {'folder' if 'dir' in path_types else 'file'} that exists"
        return _described(arguments[0]) + _constraints(arguments[1:], arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_described(argument) for argument in arguments))
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if origin in (list, set, frozenset):
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return f"a list of {_plural(arguments[0])}"
        if len(set(map(str, arguments))) == 1:
            return f"a list of {len(arguments)} {_plural(arguments[0])}"
        return f"a list [{', '.join(_described(argument) for argument in arguments)}]"
    if origin is dict:
        return f"a mapping of {_plural(arguments[0])} to {_plural(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))


def _plural(annotation: Any) -> str:
    words = _described(annotation)
    for article in ("an ", "a "):
        if words.startswith(article):
            noun, space, rest = words.removeprefix(article).partition(" ")
            return f"{noun}s{space}{rest}"
    return words


def _constraints(metadata: Sequence[Any], base: Any) -> str:
    """Constraints in words, with a space in front."""
    flat: list[Any] = []
    for item in metadata:
        flat.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    words: list[str] = []
    for item in flat:
        bounds = [(sign, getattr(item, name, None)) for name, sign in _COMPARISONS]
        words += [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
        if (divisor := getattr(item, "multiple_of", None)) is not None:
            words.append(f"a multiple of {divisor}")
        if isinstance(item, annotated_types.MinLen | annotated_types.Len) and item.min_length:
            unit = "characters" if base is str else "entries"
            words.append(f"with at least {item.min_length} {unit}")
        if isinstance(item, annotated_types.MaxLen | annotated_types.Len) and item.max_length:
            words.append(f"with at most {item.max_length} entries")
        if (pattern := getattr(item, "pattern", None)) is not None:
            words.append(f"matching {pattern}")
    return f" {' and '.join(words)}" if words else ""


def _placeholder(name: str, annotation: Any) -> str:
    """What stands for the value in "type key=…"."""
    words = _described(annotation)
    is_path = any(word in words for word in ("path", "that exists")) or name.rpartition(".")[2] in (
        "root",
        "path",
        "folder",
        "file",
    )
    return "PATH" if is_path else "VALUE"


def _shown(value: Plain) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_shown(v)}" for k, v in value.items()) + "}"
    return str(value).replace("\n", "\\n")


def _close(word: str, choices: Sequence[str], path: str = "") -> str:
    """The question whether a near match was meant, with a space in front, or nothing."""
    matches = difflib.get_close_matches(word, choices, n=2, cutoff=0.6)
    return f" did you mean {' or '.join(_join(path, m) for m in matches)}?" if matches else ""


def _unknown_key(path: str, name: str, allowed: list[str]) -> str:
    """That a key is unknown, with the near ones, to follow the key."""
    allowed = sorted({key for key in allowed if key != name})
    listing = f" allowed: {', '.join(allowed)}" if allowed else " it takes no options"
    return f": unknown key;{_close(name, allowed, path)}{listing}"
