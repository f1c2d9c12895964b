"""What a checkpoint was trained with, and what is typed beside it.

A command that takes a checkpoint uses the data and the tracker of its run. A group that is typed
(``tracker=identity``) takes the place of the run's; a single key (``dataset.root=FOLDER``) changes
that key and what is interpolated from it, and the rest stays as it was trained. The configuration
in a checkpoint is a file from somewhere: it is checked like a typed one before anything is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scene_track.config.check import ConfigError, check_objects
from scene_track.config.tree import derived, key_of


def checked_group(cfg: DictConfig, group: str, *, source: str, trusted: Sequence[str]) -> Any:
    """One group of a checkpoint's configuration, ready to be instantiated.

    Raises:
        ValueError: the group is missing, or does not fit the code.
    """
    if not isinstance(OmegaConf.select(cfg, group), DictConfig):
        raise ValueError(
            f"{source} has no configuration of {group}, so it is not of scene_track.train or of an"
            " older layout: take another checkpoint"
        )
    try:
        check_objects(OmegaConf.create({group: cfg[group]}), trusted)
    except ConfigError as error:
        faults = str(error).split("\n")
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        if group == "model":
            remedy = "it is of another version of scene_track: take another checkpoint"
        else:
            remedy = f"type {group}=OPTION, or {group}.KEY=VALUE, to replace what is in it"
        raise ValueError(f"{source}: {faults[0]}{more}; {remedy}") from None
    return cfg[group]


# Groups that a dataset may choose: beside a checkpoint, what they hold is the checkpoint's.
_WITHOUT_EFFECT = ("recipe", "model", "head", "denoiser")


def refuse_without_effect(overrides: Sequence[str]) -> None:
    """Refuse words of the command line that would be ignored beside a checkpoint."""
    for word in overrides:
        key = key_of(word)
        removed = word.startswith("~") and "." in key
        if removed or key.partition(".")[0] in _WITHOUT_EFFECT:
            raise ValueError(
                f"{word}: beside checkpoint= only dataset=, tracker= and their keys are looked at,"
                " the rest is the checkpoint's; type dataset=OPTION or dataset.KEY=VALUE"
            )


def with_typed(
    trained: DictConfig, typed: DictConfig, overrides: Sequence[str], group: str
) -> DictConfig:
    """The run's configuration with what was typed of one group."""
    keys = [word.lstrip("+").partition("=")[0] for word in overrides if "=" in word]
    if group in keys:
        whole = OmegaConf.to_container(typed[group], resolve=True)
        return OmegaConf.create({group: whole})
    merged = OmegaConf.create({group: OmegaConf.select(trained, group)})
    changed = [key for key in keys if key.startswith(f"{group}.")]
    further = derived(typed, changed) - set(changed)
    for key in [*changed, *sorted(key for key in further if key.startswith(f"{group}."))]:
        OmegaConf.update(merged, key, OmegaConf.select(typed, key), force_add=True)
    return merged
