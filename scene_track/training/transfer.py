"""``init_from=``: weights of another run or model, and a table of what became of each.

Special here: no half-load goes unnoticed. Every key is matched, of another shape, new, unused, or
left out on request, and all are counted and named. A *part* (the first two names of a key:
``model.backbone``, ``model.head``) that is in both and fits only here and there is refused, for
such a part is neither what it was nor a fresh start; ``init_partial=true`` takes it all the same,
``init_parts=[model.backbone]`` leaves it out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from scene_track.training.checkpointing import load_checkpoint, resolve_checkpoint

log = logging.getLogger(__name__)

_SHOWN = 20


@dataclass
class TransferReport:
    """What ``init_from`` did.

    Attributes:
        source: the file.
        matched: keys whose weights were taken.
        skipped: keys of another shape, with both shapes; they keep their initial values.
        new: keys that the file lacks; they keep their initial values.
        unused: keys of the file that the model lacks.
        left: keys of the model that ``init_parts`` leaves out; they keep their initial values.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, list[int]]:
        """Keys by part: matched, of another shape, new, unused, left out."""
        rows: dict[str, list[int]] = {}
        for column, keys in enumerate(self._columns()):
            for key in keys:
                rows.setdefault(part_of(key), [0] * len(_HEADINGS))[column] += 1
        return dict(sorted(rows.items()))

    def halves(self) -> list[str]:
        """Parts of which some weights fit and others do not, with the numbers."""
        return [
            f"{part} ({matched} of {matched + skipped + new})"
            for part, (matched, skipped, new, _, _) in self.counts().items()
            if matched and (skipped or new)
        ]

    def table(self) -> str:
        """A table by part of the model, then the keys that were not taken."""
        rows = self.counts()
        width = max(map(len, rows), default=4)
        lines = [f"{'part':<{width}}  " + "  ".join(_HEADINGS)]
        for part, counts in rows.items():
            cells = (f"{n:>{len(name)}}" for n, name in zip(counts, _HEADINGS, strict=True))
            lines.append(f"{part:<{width}}  " + "  ".join(cells))
        for name, keys in zip(_HEADINGS[1:4], self._columns()[1:4], strict=True):
            lines += [f"{name}: {key}" for key in keys[:_SHOWN]]
            if len(keys) > _SHOWN:
                lines.append(f"{name}: and {len(keys) - _SHOWN} more")
        return "\n".join(lines)

    def _columns(self) -> tuple[list[str], ...]:
        return self.matched, self.skipped, self.new, self.unused, self.left


_HEADINGS = ("matched", "other shape", "new", "unused", "left out")


def part_of(key: str) -> str:
    """The part of the model that a key belongs to: its first two names."""
    return ".".join(key.split(" ")[0].split(".")[:2])


def compare(
    here: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    *,
    source: str,
    parts: Sequence[str] | None = None,
) -> TransferReport:
    """What of a file fits a model.

    Args:
        here: the model's tensors by key.
        saved: the file's.
        source: the file, for messages.
        parts: dotted prefixes of the keys that are asked for; None = all.

    Raises:
        ValueError: the model or the file has no key below one of ``parts``.
    """
    for part in parts or ():
        for where, keys in (("the model", here), (source, saved)):
            if not any(_below(key, part) for key in keys):
                known = ", ".join(sorted({part_of(key) for key in keys}))
                raise ValueError(f"init_parts: {where} has no {part}; it has {known or 'nothing'}")

    def asked(key: str) -> bool:
        return parts is None or any(_below(key, part) for part in parts)

    report = TransferReport(source=source)
    for key, value in here.items():
        if not asked(key):
            report.left.append(key)
        elif key not in saved:
            report.new.append(key)
        elif saved[key].shape != value.shape:
            was, now = tuple(saved[key].shape), tuple(value.shape)
            report.skipped.append(f"{key} {was} instead of {now}")
        else:
            report.matched.append(key)
    report.unused = [key for key in saved if key not in here]
    return report


def init_from(
    module: nn.Module,
    where: str | os.PathLike[str],
    *,
    parts: Sequence[str] | None = None,
    partial: bool = False,
) -> TransferReport:
    """Load the weights that fit from a run folder (its best checkpoint) or a file.

    Args:
        module: the LightningModule; changed in place, and not at all if an error is raised.
        where: a run folder, a ``.ckpt`` of this project, or a bare state dict.
        parts: dotted prefixes such as ``model.backbone`` that alone are taken; None = all.
        partial: take what fits also of a part that fits only here and there.

    Returns:
        The report, which is also logged as a table.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file is torn, no key of it fits, a part fits only here and there, or a
            prefix is in vain.
    """
    path = resolve_checkpoint(where, prefer="best")
    checkpoint = load_checkpoint(path)
    saved: Mapping[str, Any] = checkpoint.get("state_dict", checkpoint)
    saved = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
    here = module.state_dict()
    report = compare(here, saved, source=str(path), parts=parts)
    if not report.matched:
        raise ValueError(
            f"init_from={path}: none of its {len(saved)} weights fits; it has names such as"
            f" {', '.join(list(saved)[:3]) or '(none)'}, the model such as"
            f" {', '.join(list(here)[:3])}"
        )
    halves = report.halves()
    if halves and not partial:
        log.warning("init_from=%s\n%s", path, report.table())
        torn = {half.split(" ")[0] for half in halves}
        whole = sorted({part_of(key) for key in report.matched} - torn)
        raise ValueError(
            f"init_from={path}: {', '.join(halves)} weights fit, which would leave a part half"
            f" trained; type init_parts=[{','.join(whole)}] to take the parts that fit as a whole,"
            " or init_partial=true to take every weight that fits"
        )
    module.load_state_dict({key: saved[key] for key in report.matched}, strict=False)
    log.info(
        "init_from=%s: %d of %d weights taken\n%s",
        *(path, len(report.matched), len(here), report.table()),
    )
    return report


def _below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")
