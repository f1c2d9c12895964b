"""What the launching shell hands over: words that Hydra cannot read, and a notebook's settings.

Hydra reads ``key=/home/me/ダウンロード``, ``key=data (1)`` or ``key=~/data`` only within quotes of
its own. Where the meaning is plain the quotes are put here.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

_WORD = re.compile(r"(?P<key>[+~]{0,2}[A-Za-z_][\w./@:$-]*)=(?P<value>.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z_./:\\-][\w./:\\-]*|", re.ASCII)  # what Hydra surely takes as it is
_SYNTAX = re.compile(r"\{|\w+\(")  # of Hydra: a mapping, a function
_SPLITS = ("dataset.train", "dataset.val", "dataset.test")
# A date is a name, 1_000 is a number.
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(_[0-9]{3})+")
_UNDERSCORED = re.compile(r"[0-9][0-9_]*_[0-9_]*")
_NUMBER = re.compile(r"[0-9_.]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def settle() -> None:
    """Drops what would stop a command before it begins: a notebook's backend, a check of 3.14."""
    if os.environ.get("MPLBACKEND", "").startswith("module://"):
        os.environ["MPLBACKEND"] = "agg"  # files are drawn, nothing is shown
    if sys.version_info >= (3, 14):
        accept_help_objects()


def accept_help_objects() -> None:
    """Lets argparse take Hydra's parser: 3.14 reads help texts at once, and one is no string.

    hydra-core 1.3.8 gives an object that becomes a text when it is shown.
    """
    add = argparse.ArgumentParser.add_argument
    if getattr(add, "takes_objects", False):
        return

    def add_argument(self: argparse.ArgumentParser, *names: Any, **options: Any) -> Any:
        if not isinstance(options.get("help"), str | None):
            options["help"] = "Install or uninstall shell completion"
        return add(self, *names, **options)

    add_argument.takes_objects = True  # pyright: ignore[reportFunctionMemberAccess]
    argparse.ArgumentParser.add_argument = add_argument


def readable(words: Sequence[str], *, sweep: bool) -> list[str]:
    """The words of a command line, quoted for Hydra where it cannot read them otherwise.

    Args:
        words: as typed, without the program.
        sweep: commas separate the values of a sweep.

    Raises:
        ValueError: a word is not UTF-8.
    """
    return [word if word.startswith("-") else _readable(word, sweep) for word in words]


def what_to_type(word: str, reason: str) -> str:
    """One line about a word that stays unreadable.

    Args:
        word: an override.
        reason: what Hydra says of it.
    """
    key, equals, value = word.partition("=")
    if not equals or not _WORD.fullmatch(word):
        return f"{word!r} is not key=value: type words such as seed=3 or 'dataset.root=FOLDER'"
    if match := re.fullmatch(r"choice\((.*)\)", value):
        advice = f"{key}={match[1]}"
    else:
        advice = f"'{key}={_quoted(value)}'"
    return f"{word}: cannot be read as key=value: {reason}; type {advice}"


def _readable(word: str, sweep: bool) -> str:
    match = _WORD.fullmatch(word)
    if match is None:
        return word
    key, value = match["key"], match["value"]
    try:
        value.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(value).decode(errors="backslashreplace")
        raise ValueError(f"{key}={shown}: these bytes are not UTF-8: rename the folder") from None
    if _PLAIN.fullmatch(value) or _SYNTAX.match(value):
        return word
    if value.startswith("[") and value.endswith("]"):
        better = f"[{_each(key, value[1:-1])}]"
    elif value.startswith("["):
        return word
    else:
        better = _each(key, value) if sweep else _item(key, value)
    return f"{key}={better}" if better != value and _reads(f"{key}={better}") else word


def _each(key: str, items: str) -> str:
    """A list of items without brackets of its own; as it is if it has quotes or brackets."""
    if re.search(r"[\"'\[\]{}\\]|\(.*,.*\)", items):
        return items
    return ",".join(_item(key, item) for item in items.split(","))


def _item(key: str, item: str) -> str:
    """One value, quoted if Hydra cannot read it, or would read a name as a number."""
    text = item.strip()
    if text[:1] in "\"'" and text:
        return item
    date = _UNDERSCORED.fullmatch(text) and not _THOUSANDS.fullmatch(text)
    if date or (key.lstrip("+") in _SPLITS and _NUMBER.fullmatch(text)):
        return _quoted(text)
    return item if _reads(f"key={item}") else _quoted(os.path.expanduser(text))


def _quoted(value: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.double).with_quotes()


def _reads(word: str) -> bool:
    """Whether Hydra can read an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
