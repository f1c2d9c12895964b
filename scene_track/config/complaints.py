"""Hydra's errors in one line, without its search paths, with near matches and what is allowed."""

from __future__ import annotations

import re
import sys
from traceback import walk_tb

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scene_track.config.help import chosen_options
from scene_track.config.paths import config_dir
from scene_track.config.shell import what_to_type
from scene_track.config.tree import near, walk


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
    if not isinstance(error, HydraException | OmegaConfBaseException) and while_composing(error):
        # Of the reader of YAML, or of Hydra, which has met something that it does not expect.
        where = [frame.f_locals.get("full_path") for frame, _ in walk_tb(error.__traceback__)]
        file = next((f"{path}: " for path in reversed(where) if path), "")
        return f"{file}the configuration cannot be read: {' '.join(text.split())}"
    if isinstance(error, OverrideParseException):
        lines = text.splitlines()
        general = lines[0].startswith("Error parsing override") and len(lines) > 1
        return what_to_type(error.override, lines[1] if general else lines[0])
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown(match[1], config_name, group="No match in the defaults list" in text)
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


def _unknown(key: str, config_name: str, group: bool) -> str:
    """A key or group that the command line changes and the configuration does not have."""
    groups = chosen_options(config_dir(), config_name)
    if group:
        return f"{key}: no such group;{near(key, groups)} allowed: {', '.join(sorted(groups))}"
    return f"{key}: unknown key;{near(key, {*_keys(config_name, key), *groups})}".rstrip(";")


def _keys(config_name: str, unknown: str) -> set[str]:
    """The dotted keys of what is typed without the unknown one; none if it cannot be composed."""
    typed = [
        word
        for word in sys.argv[1:]
        if "=" in word and "," not in word and not word.startswith(("-", unknown))
    ]
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = hydra.compose(config_name, overrides=typed)
    except (HydraException, OmegaConfBaseException):
        return set()
    return {key for key, _ in walk(OmegaConf.to_container(cfg, resolve=False)) if key}
