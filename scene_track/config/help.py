"""What ``--help`` says: keys and groups with their options, straight from the YAML files.

Hydra's own help rescans its search path once per group, which takes seconds for a tree of this
size; this one composes the defaults and reads the first lines of the YAML files.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra

_FLAGS = {
    "key=value": "change a value, such as optimizer.lr=3e-4; group=option chooses an option",
    "+key=value": "add what is not there yet",
    "--multirun": "one job for each combination: denoiser.lambda_dn=0,1 optimizer.lr=1e-4,3e-4",
    "--cfg job": "show the composed configuration instead of running",
    "--info defaults": "show which files it is composed of",
    "--hydra-help": "further flags of Hydra",
}


def help_text(directory: str, config_name: str, program: str, summary: str) -> str:
    """The text of ``--help``."""
    root = Path(directory)
    chosen = chosen_options(directory, config_name)
    groups: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("[!_]*.yaml")):  # _base.yaml is no option
        group = file.parent.relative_to(root).as_posix()
        if group != ".":
            groups.setdefault(group, []).append(file)
    lines = [summary, "", f"usage: {program} [key=value ...] [flags]", ""]
    lines += [f"  {flag:<17}{meaning}" for flag, meaning in _FLAGS.items()]
    keys = _root_keys(root / f"{config_name}.yaml")
    if keys:
        lines += ["", "Keys:", ""]
        lines += [_entry(f"    {key}", comment) for key, comment in keys.items()]
    # What an entry point does not compose it need not list.
    relevant = {group: files for group, files in groups.items() if group in chosen}
    if relevant:
        lines += ["", "Groups (group=option, * is the default):"]
    for group, files in relevant.items():
        lines += ["", f"  {group}"]
        for file in files:
            mark = "*" if chosen[group] == file.stem else " "
            lines.append(_entry(f"  {mark} {file.stem}", _comment(file)))
    return "\n".join(lines)


def _entry(head: str, text: str) -> str:
    """One option with its comment, wrapped."""
    return (
        textwrap.fill(text, width=100, initial_indent=f"{head:<25} ", subsequent_indent=" " * 26)
        if text
        else head
    )


def _comment(file: Path) -> str:
    """The first sentence of the comment that a YAML file opens with."""
    words: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    return " ".join(words).partition(". ")[0].rstrip(".")


def _root_keys(file: Path) -> dict[str, str]:
    """The keys of the primary configuration that are no groups, with the comment beside them."""
    rows = re.findall(r"^(\w+): +[^#\n]*?(?: +# (.*))?$", file.read_text("utf-8"), re.MULTILINE)
    return dict(rows)


def chosen_options(directory: str, config_name: str) -> dict[str, str | None]:
    """The option of every group that a configuration composes by default, nested ones included.

    A group that the file itself sets to null is left out: nothing can be typed into it.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(directory, version_base="1.3"):
        cfg = hydra.compose(config_name, return_hydra_config=True)
    unused = {key for key, value in cfg.items_ex(resolve=False) if value is None}
    choices = cfg.hydra.runtime.choices.items()
    return {
        path: option for path, option in choices if path.split("/")[0] not in {*unused, "hydra"}
    }
