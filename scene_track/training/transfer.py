"""``init_from=``: weights of another run or model, and a table of what became of each.

Special here: no half-load goes unnoticed. Every key is matched, of another shape, new, or unused,
and all four are counted and named; nothing matched is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from scene_track.training.checkpointing import load_checkpoint, resolve_checkpoint

log = logging.getLogger(__name__)


@dataclass
class TransferReport:
    """What ``init_from`` did.

    Attributes:
        source: the file.
        matched: keys whose weights were taken.
        skipped: keys of another shape, with both shapes; they keep their initial values.
        new: keys that the file lacks; they keep their initial values.
        unused: keys of the file that the model lacks.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def table(self) -> str:
        """A table by part of the model (first two names of a key), then the keys not taken."""
        rows: dict[str, list[int]] = {}
        columns = (self.matched, self.skipped, self.new, self.unused)
        for column, keys in enumerate(columns):
            for key in keys:
                rows.setdefault(".".join(key.split(" ")[0].split(".")[:2]), [0] * 4)[column] += 1
        width = max(map(len, rows), default=4)
        lines = [f"{'part':<{width}}  matched  other shape   new  unused"]
        lines += [
            f"{part:<{width}}  {a:>7}  {b:>11}  {c:>4}  {d:>6}"
            for part, (a, b, c, d) in sorted(rows.items())
        ]
        for name, keys in zip(("other shape", "new", "unused"), columns[1:], strict=True):
            lines += [f"{name}: {key}" for key in keys[:20]]
            if len(keys) > 20:
                lines.append(f"{name}: and {len(keys) - 20} more")
        return "\n".join(lines)


def init_from(module: nn.Module, where: str | os.PathLike[str]) -> TransferReport:
    """Load the weights that fit from a run folder (its best checkpoint) or a file.

    Args:
        module: the LightningModule; changed in place.
        where: a run folder, a ``.ckpt`` of this project, or a bare state dict.

    Returns:
        The report, which is also logged as a table.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file is torn, or no key of it fits.
    """
    path = resolve_checkpoint(where, prefer="best")
    checkpoint = load_checkpoint(path)
    saved: Mapping[str, Any] = checkpoint.get("state_dict", checkpoint)
    saved = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
    here = module.state_dict()
    report = TransferReport(source=str(path))
    taken: dict[str, Tensor] = {}
    for key, value in here.items():
        if key not in saved:
            report.new.append(key)
        elif saved[key].shape != value.shape:
            report.skipped.append(
                f"{key} {tuple(saved[key].shape)} instead of {tuple(value.shape)}"
            )
        else:
            report.matched.append(key)
            taken[key] = saved[key]
    report.unused = [key for key in saved if key not in here]
    if not taken:
        raise ValueError(
            f"init_from={path}: none of its {len(saved)} weights fits; it has names such as"
            f" {', '.join(list(saved)[:3]) or '(none)'}, the model such as"
            f" {', '.join(list(here)[:3])}"
        )
    module.load_state_dict(taken, strict=False)
    log.info(
        "init_from=%s: %d of %d weights taken\n%s", path, len(taken), len(here), report.table()
    )
    return report
