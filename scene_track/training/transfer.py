"""``init_from=``: takes the weights of another run, and logs what became of every key.

A *part* of a model is the first two names of a key (``model.backbone``, ``model.head``). A part
that fits only in some keys is refused: it would be neither trained nor a fresh start.
``init_partial=true`` takes what fits of it, ``init_parts=[model.backbone]`` leaves it out.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from scene_track.models.weights import StateDictComparison, compare_state_dicts
from scene_track.training.checkpointing import load_checkpoint, resolve_checkpoint

log = logging.getLogger(__name__)

_SHOWN = 20


@dataclass(frozen=True)
class TransferReport:
    """What ``init_from`` did.

    Attributes:
        keys: of these, ``matched`` were taken; ``reshaped`` and ``missing`` keep their initial
            values; the model lacks ``unexpected``.
        left: keys of the model that ``init_parts`` leaves out; they keep their initial values.
    """

    keys: StateDictComparison
    left: list[str]

    def columns(self) -> dict[str, list[str]]:
        """Keys by what became of them, which is the heading in the table."""
        keys = self.keys
        return {
            "matched": keys.matched,
            "other shape": list(keys.reshaped),
            "new": keys.missing,
            "unused": keys.unexpected,
            "left out": self.left,
        }

    def partly_fitting(self) -> dict[str, str]:
        """Parts of which some weights fit and others do not, with the numbers."""
        matched = Counter(map(part_of, self.keys.matched))
        others = Counter(map(part_of, [*self.keys.reshaped, *self.keys.missing]))
        return {
            part: f"{matched[part]} of {matched[part] + others[part]}"
            for part in sorted(matched.keys() & others.keys())
        }

    def table(self) -> str:
        """A line by what became of the keys, with their number by part; then those not taken."""
        lines, names = [], []
        for name, keys in self.columns().items():
            counts = sorted(Counter(map(part_of, keys)).items())
            lines.append(f"{name:<12} {', '.join(f'{part} {n}' for part, n in counts) or '-'}")
            if name in ("other shape", "new", "unused"):
                more = [f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
                names += [
                    f"{name}: {key} {self.keys.reshaped.get(key, '')}".rstrip()
                    for key in [*keys[:_SHOWN], *more]
                ]
        return "\n".join([*lines, *names])


def part_of(key: str) -> str:
    """The part of the model that a key belongs to: its first two names."""
    return ".".join(key.split(".")[:2])


def compare(
    here: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    source: str,
    parts: Sequence[str] | None,
) -> TransferReport:
    """Compare the tensors of a file with a model's, below the prefixes ``parts`` alone if given.

    Raises:
        ValueError: the model or the file has no key below one of ``parts``.
    """
    for part in parts or ():
        for where, keys in (("the model", here), (source, saved)):
            if not any(_below(key, part) for key in keys):
                known = ", ".join(sorted({part_of(key) for key in keys}))
                raise ValueError(f"init_parts: {where} has no {part}; it has {known or 'nothing'}")
    left = [key for key in here if parts is not None and not any(_below(key, p) for p in parts)]
    asked = {key: value for key, value in here.items() if key not in left}
    found = {key: value for key, value in saved.items() if key not in left}
    return TransferReport(compare_state_dicts(asked, found), left)


def init_from(
    module: nn.Module,
    where: str | os.PathLike[str],
    *,
    parts: Sequence[str] | None = None,
    partial: bool = False,
) -> TransferReport:
    """Load the weights that fit from a run folder (its best checkpoint) or a file.

    Args:
        module: changed in place, and not at all if an error is raised.
        where: a run folder, a ``.ckpt`` of this project, or a bare state dict.
        parts: dotted prefixes such as ``model.backbone`` that alone are taken; None = all.
        partial: take what fits of a part that fits only in some keys.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file is torn, no key of it fits, a part fits only in some keys, or a prefix
            matches nothing.
    """
    path = resolve_checkpoint(where, prefer="best")
    checkpoint = load_checkpoint(path)
    saved: Mapping[str, Any] = checkpoint.get("state_dict", checkpoint)
    saved = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
    here = module.state_dict()
    report = compare(here, saved, str(path), parts)
    matched = report.keys.matched
    if not matched:
        raise ValueError(
            f"init_from={path}: none of its {len(saved)} weights fits; it has names such as"
            f" {', '.join(list(saved)[:3]) or '(none)'}, the model such as"
            f" {', '.join(list(here)[:3])}"
        )
    torn = report.partly_fitting()
    if torn and not partial:
        log.warning("init_from=%s\n%s", path, report.table())
        found = ", ".join(f"{part} ({numbers})" for part, numbers in torn.items())
        whole = sorted({part_of(key) for key in matched} - torn.keys())
        raise ValueError(
            f"init_from={path}: {found} weights fit, which would leave a part half trained; type"
            f" init_parts=[{','.join(whole)}] to take the parts that fit as a whole, or"
            " init_partial=true to take every weight that fits"
        )
    module.load_state_dict({key: saved[key] for key in matched}, strict=False)
    log.info(
        "init_from=%s: %d of %d weights taken\n%s",
        *(path, len(matched), len(here), report.table()),
    )
    return report


def _below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")
