"""A run that goes on: configured by the words it was started with, then by what is typed.

``resume_from=RUN`` alone repeats the run's own command line, which Hydra left in its folder; a word
that is typed beside it takes the place of the run's. What differs from the checkpoint without
having been typed (the folder is gone, a default has changed since) is refused: the run would go on
as another one and nobody would know.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scene_track.config.tree import derived, key_of, lies_in, shown

log = logging.getLogger(__name__)

_START = ("resume_from", "init_from", "init_parts", "init_partial")
# May change while a run goes on: where things lie, what is shown and scored, for how long, on what.
_FREE = (
    *(*_START, "dry_run", "run_dir", "experiment_name", "trusted_targets", "viz", "callbacks"),
    *("logger", "monitor", "tracker", "scheduler", "head.monitor", "head.visualiser"),
    *("head.evaluator", "model.backbone.weights", "dataset.loader", "dataset.eval_window"),
    "trainer",
)
_NOT_FREE = tuple(
    f"trainer.{key}"
    for key in ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
)
_MOST = 4  # keys that a message names
_ABSENT = "absent"  # in place of the value of a key that one of two configurations does not have


def with_words_of_run(arguments: Sequence[str]) -> list[str]:
    """The command line with the words of the run that ``resume_from=`` names in front.

    Returns:
        The same if there is no ``resume_from=``, its folder holds no words, or it is a sweep.
    """
    typed = {key_of(word): word for word in arguments if "=" in word}
    where = _value(typed.get("resume_from", ""))
    sweep = {"--multirun", "-m"} & set(arguments) or "hydra.mode=MULTIRUN" in arguments
    if sweep or where in ("", "null"):
        return list(arguments)
    words = _words_of(Path(where))
    kept = [w for w in words if key_of(w) not in _START and not lies_in(key_of(w), typed)]
    # A run that was the trial of a sweep goes on alone.
    alone = ["hydra.mode=RUN"] if "sweep" in map(key_of, kept) else []
    place = list(arguments).index(typed["resume_from"])
    return [*arguments[:place], *kept, *alone, *arguments[place:]]


def typed_keys(cfg: DictConfig, words: Sequence[str]) -> set[str]:
    """The keys, groups among them, that were typed beside ``resume_from=``."""
    theirs = set(_words_of(Path(cfg.resume_from)))
    typed = {key_of(word) for word in words if word not in theirs}
    return typed | derived(cfg, typed)


def refuse_another_run(
    saved: Mapping[str, Any], here: Mapping[str, Any], typed: Collection[str]
) -> None:
    """Compare the configuration in a checkpoint with that of the run that is to continue it.

    Raises:
        ValueError: something else differs, or something that would be of no effect.
    """
    where = here["resume_from"]
    before, now = dict(_leaves(saved, "")), dict(_leaves(here, ""))
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key, _ABSENT) != now.get(key, _ABSENT) and not _is_free(key)
    ]
    of_optimizer = [key for key in changed if lies_in(key, {"optimizer"}) and key in now]
    if vain := [key for key in of_optimizer if lies_in(key, typed)]:
        raise ValueError(
            f"{vain[0]}={shown(now[vain[0]])}: resume_from= goes on with the checkpoint's"
            f" optimiser, rates included ({vain[0]} is {shown(before.get(vain[0], _ABSENT))} in"
            " it): leave it out, or start from the weights alone with init_from="
        )
    silent = [key for key in changed if not lies_in(key, typed)]
    if silent:
        listed = "; ".join(
            f"{key} is {shown(now.get(key, _ABSENT))}, in it {shown(before.get(key, _ABSENT))}"
            for key in silent[:_MOST]
        )
        more = f"; and {len(silent) - _MOST} more" if len(silent) > _MOST else ""
        raise ValueError(
            f"resume_from={where} was trained with other settings: {listed}{more}. Type what that"
            f" run was started with, or take its weights alone with init_from={where}"
        )
    for key in changed:
        log.warning(
            "%s is %s from here on; it was %s",
            *(key, shown(now.get(key, _ABSENT)), shown(before.get(key, _ABSENT))),
        )


def _words_of(where: Path) -> list[str]:
    """What the run of a folder or checkpoint was started with; empty if that is not known.

    Raises:
        ValueError: its file does not hold a list of words.
    """
    where = Path(os.path.expanduser(where))  # leaves ~ of a user that is unknown
    for folder in (where, *where.parents[:2]):  # RUN, RUN/checkpoints, RUN/checkpoints/last.ckpt
        file = folder / ".hydra" / "overrides.yaml"
        if file.is_file():
            try:
                words = OmegaConf.to_container(OmegaConf.load(file))
            except (ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
                raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from None
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"{file} is damaged: expected a list of words key=value")
            return [str(word) for word in words]
    return []


def _value(word: str) -> str:
    value = word.partition("=")[2]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace("\\" + value[0], value[0]).replace("\\\\", "\\")
    return value


def _is_free(key: str) -> bool:
    place = key.startswith("dataset.") and key.endswith((".root", ".cache_dir"))
    return place or (lies_in(key, _FREE) and key not in _NOT_FREE)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values of a configuration by dotted key; lists and empty nodes are values."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(node) if isinstance(node, list | tuple) else node
