"""Hydra's errors in one line, without its search paths, with near matches and what is allowed."""

from __future__ import annotations

import re
from traceback import walk_tb
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from scene_track.config.help import chosen_options
from scene_track.config.paths import config_dir
from scene_track.config.shell import what_to_type
from scene_track.config.tree import near, unknown_key


def in_one_line(error: BaseException, config_name: str) -> str:
    """The message of an error that came up while the configuration was composed."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return of_the_disk(error)
    text = str(error).strip()
    if "Config group override must be" in text:
        *_, (frame, _) = walk_tb(error.__traceback__)
        word, options = frame.f_locals["override"], frame.f_locals["repo"].get_group_options
        allowed = ", ".join(o for o in options(word.key_or_group) if not o.startswith("_"))
        return f"{word.input_line}: no such option; allowed: {allowed}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        if not while_composing(error):
            return " ".join(text.split())
        # Of the reader of YAML, or of Hydra, which has met something that it does not expect.
        where = [frame.f_locals.get("full_path") for frame, _ in walk_tb(error.__traceback__)]
        file = next((f"{path}: " for path in reversed(where) if path), "")
        return f"{file}the configuration cannot be read: {' '.join(text.split())}"
    if isinstance(error, OverrideParseException):
        lines = text.splitlines()
        general = lines[0].startswith("Error parsing override") and len(lines) > 1
        return what_to_type(error.override, lines[1] if general else lines[0])
    if match := re.match(r"Could not override '([^']+)'", text):
        cause: Any = error.__cause__
        if "/" in match[1] or cause is None:
            groups = chosen_options(config_dir(), config_name)
            allowed = ", ".join(sorted(groups))
            return f"{match[1]}: no such group;{near(match[1], groups)} allowed: {allowed}"
        around, _, name = str(cause.full_key).rpartition(".")
        return f"{cause.full_key}{unknown_key(around, name, [*cause.parent_node])}"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        if not group:
            return f"{option}: no such configuration"
        listing = text.partition("Available options")[2].partition("Config search path")[0]
        options = re.findall(r"^\t([^_\s]\S*)$", listing, re.MULTILINE)  # _base is none
        allowed = ", ".join(options)
        return f"{group}={option}: no such option;{near(option, options)} allowed: {allowed}"
    kept = [line.strip() for line in text.partition("Config search path")[0].splitlines()]
    noise = ("full_key", "object_type", "See ")
    return "; ".join(line for line in kept if line and not line.startswith(noise))


def while_composing(error: BaseException) -> bool:
    """Whether an error came up within Hydra's reading of configurations."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_code.co_filename.endswith("config_loader_impl.py") for frame in frames)


def of_the_disk(error: OSError) -> str:
    """The message of an error of the operating system: the file first."""
    if error.filename is None or error.strerror is None:
        return str(error)
    target = f" -> {error.filename2}" if error.filename2 is not None else ""
    return f"{error.filename}{target}: {error.strerror}"
