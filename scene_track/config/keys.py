"""The dotted keys of a configuration, and the words of a command line that name them."""

from __future__ import annotations

from collections.abc import Collection


def key_of(word: str) -> str:
    """The key of an override such as ``+head.size=3``, ``~head`` or ``model/backbone=vit``.

    A group is written like the node that it fills: ``model.backbone``.
    """
    return word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def lies_in(key: str, nodes: Collection[str]) -> bool:
    """Whether a key, or a node that holds it, is among some."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in nodes for n in range(1, len(parts) + 1))
