"""A configuration as plain data, with what each key refers to and the words that name a key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException


class Marker(Enum):
    """Stands where there is no value."""

    MISSING = "???"  # the user has to type one
    ELSEWHERE = "elsewhere"  # unknown yet, or a reference to a node that is checked in its place


@dataclass
class Tree:
    """A configuration as dicts, lists, values and markers.

    Attributes:
        values: interpolations are resolved; those of whole nodes are ``Marker.ELSEWHERE``.
        references: ``{key: the key that it is an interpolation of}``.
        unresolved: ``{key: why its interpolation cannot be resolved}``.
    """

    values: Any = None
    references: dict[str, str] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """The key from which another takes its value in the end; itself if it has its own."""
        while key in self.references:
            key = self.references[key]
        return key


def read_tree(cfg: DictConfig) -> Tree:
    """Reads a composed configuration."""
    tree = Tree()
    tree.values = _read(OmegaConf.to_container(cfg, resolve=False), cfg, "", tree)
    return tree


def _read(raw: Any, node: Any, path: str, tree: Tree) -> Any:
    """One node: ``raw`` as it is written, ``node`` as OmegaConf has it."""

    def child(key: Any, value: Any) -> Any:
        here = join(path, key)
        if isinstance(value, dict | list):
            return _read(value, node[key], here, tree)
        if value == "???":
            return Marker.MISSING
        if isinstance(value, str) and "${" in value:
            return _resolved(value, node, key, here, tree)
        return value

    if isinstance(raw, dict):
        return {key: child(key, value) for key, value in raw.items()}
    return [child(index, value) for index, value in enumerate(raw)]


def _resolved(raw: str, node: Any, key: Any, path: str, tree: Tree) -> Any:
    """The value of an interpolation; notes which key it names."""
    if match := re.fullmatch(r"\$\{(?:oc\.select:)?(\.*)([\w.\[\]-]+)(?:,[^{}]*)?\}", raw):
        # With dots the key is relative to the node around ``path``.
        around = re.split(r"\.|(?=\[)", path)[: -len(match[1])] if match[1] else []
        tree.references[path] = ".".join([*around, match[2]]).replace(".[", "[")
    try:
        value = node[key]
    except InterpolationToMissingValueError:
        return Marker.ELSEWHERE
    except OmegaConfBaseException as error:
        # Hydra's own values exist only inside a run, not where one composes by hand.
        if HydraConfig.initialized() or "HydraConfig was not set" not in str(error):
            tree.references.pop(path, None)
            reason = str(error).strip().splitlines()[0]
            tree.unresolved[path] = f"={raw}: cannot be resolved: {reason}"
        return Marker.ELSEWHERE
    return Marker.ELSEWHERE if isinstance(value, DictConfig | ListConfig) else value


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every node and value with its key, outer ones first."""
    yield path, node
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(value, join(path, key))


def join(path: str, key: Any) -> str:
    """The dotted key of an entry in a node."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def derived(cfg: DictConfig, keys: Collection[str]) -> set[str]:
    """The keys that take their values from others, directly or by way of further ones."""
    references = read_tree(cfg).references
    found: set[str] = set()
    for key, origin in references.items():
        while not lies_in(origin, keys) and origin in references:
            origin = references[origin]
        if lies_in(origin, keys):
            found.add(key)
    return found


def key_of(word: str) -> str:
    """The key of an override such as ``+head.size=3``, ``~head`` or ``model/backbone=vit``.

    A group is written like the node that it fills: ``model.backbone``.
    """
    return word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def lies_in(key: str, nodes: Collection[str]) -> bool:
    """Whether a key, or a node that holds it, is among some."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in nodes for n in range(1, len(parts) + 1))


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    names = {"None": "null", "True": "true", "False": "false"}
    text = str(value).replace("\n", "\\n")
    return text if isinstance(value, str) else names.get(text, text)


def near(word: str, choices: Collection[str], prefix: str = "") -> str:
    """The question whether up to two close matches were meant, after a space, or nothing."""
    matches = difflib.get_close_matches(word, sorted(choices), n=2, cutoff=0.6)
    return f" did you mean {' or '.join(prefix + match for match in matches)}?" if matches else ""


def unknown_key(path: str, name: Any, allowed: Collection[Any]) -> str:
    """That the key ``name`` of the node ``path`` is unknown, with the near ones, after the key."""
    name = str(name)  # a YAML may have a number for a key
    known = sorted({str(key) for key in allowed} - {name})
    listing = f" allowed: {', '.join(known)}" if known else " it takes no options"
    return f": unknown key;{near(name, known, join(path, ''))}{listing}"
