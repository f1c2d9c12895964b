"""The learning-rate schedule, stepped once per optimiser step.

The rate is a function of the step alone, which torch does not save: the curve of a resumed run is
that of its own configuration, also a longer one. The peak rates are the checkpoint's, like the rest
of the optimiser.
"""

from __future__ import annotations

import logging
import math
from typing import Annotated, Any

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

log = logging.getLogger(__name__)


class WarmupCosine(LambdaLR):
    """Linear warm-up, then a half cosine (Loshchilov & Hutter, *SGDR*, ICLR 2017, no restarts).

    Attributes:
        total_steps: where the curve ends; may change while the run goes on, and is not saved.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        warmup_steps: int,
        start_factor: float | None,
        final_scale: float,
    ) -> None:
        self.total_steps = total_steps
        start = max(0, warmup_steps - 1)  # the first step at the full rate

        def warmup(step: int) -> float:
            if step >= start:
                return 1.0
            if start_factor is None:
                return (step + 1) / warmup_steps
            return start_factor + (1 - start_factor) * step / start

        def scale(step: int) -> float:
            done = min(1.0, max(0.0, (step - start) / max(1, self.total_steps - 1 - start)))
            cosine = (1 + math.cos(math.pi * done)) / 2
            return warmup(step) * (final_scale + (1 - final_scale) * cosine)

        super().__init__(optimizer, scale)

    def state_dict(self) -> dict[str, Any]:
        """The counter and what follows from it."""
        return {k: value for k, value in super().state_dict().items() if k != "total_steps"}


def warmup_cosine(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: float = 0.0,
    warmup_steps: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)],
    warmup_epochs: Annotated[float, Field(ge=0)] | None,
    warmup_start_factor: Annotated[float, Field(gt=0, le=1)] | None,
    final_scale: Annotated[float, Field(ge=0, le=1)],
) -> WarmupCosine:
    """The schedule of ``conf/scheduler/warmup_cosine.yaml``, stepped after every optimiser step."""
    if warmup_epochs is not None:
        warmup = round(warmup_epochs * steps_per_epoch)
    elif 0 < warmup_steps < 1:
        warmup = round(warmup_steps * total_steps)
    else:
        warmup = int(warmup_steps)
    if warmup >= total_steps:
        words = "the warm-up has %d steps, the run only %d: the full rate is not reached"
        log.warning(words, warmup, total_steps)
    curve = {"start_factor": warmup_start_factor, "final_scale": final_scale}
    return WarmupCosine(optimizer, total_steps=total_steps, warmup_steps=warmup, **curve)
