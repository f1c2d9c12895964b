"""Where a run ends: after a number of optimiser steps, or when a budget of time is used up.

The number of steps is limited by a callback: Lightning's own ``max_steps`` ends a run without a
validation, and a run limited by it does not resume correctly at an epoch's end (2.6.6 ends the
finished epoch a second time). Its ``max_time`` cuts a run off at the rate that it has just then.

With a budget the number of steps is planned. The first steps are measured, and the schedule is told
where the run will end, so that the rate has come down when the time is up. After every validation
the plan is compared with what was measured since, and made anew if it is off. The plan goes into
the checkpoint: a resumed run keeps it, and the time that was spent before counts.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytorch_lightning as pl

from scene_track.sweeps.trial import is_trial
from scene_track.training.schedules import WarmupCosine

log = logging.getLogger(__name__)

_SKIPPED, _MEASURED = 5, 20  # first steps: those that warm up, and those that are timed
_FOR_VALIDATIONS = 0.1  # share of the budget kept for validations until one was timed
_TOLERANCE = 0.05  # of the steps that are left: a plan that is off by less stays


def seconds_of(duration: str) -> float:
    """Seconds of ``DD:HH:MM:SS``."""
    days, hours, minutes, seconds = map(int, duration.split(":"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class RunLength(pl.Callback):
    """Ends the run at its last step, with a last validation.

    Attributes:
        planned: optimiser steps of the whole run within the budget; None = not known yet, or all
            that the run would make without a budget.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, *, max_steps: int | None, budget: str | None) -> None:
        """Store the limits of ``conf/trainer``; trials of a sweep have no budget.

        They are compared, so all of them make the same number of steps. What a resumed run did
        before counts.
        """
        self.max_steps, self.budget = max_steps, budget
        if budget is not None and is_trial():
            log.info("trainer.budget=%s is left out: trials are compared by equal steps", budget)
            self.budget = None
        self.planned: int | None = None
        self._spent_before = 0.0
        self._start_s: float | None = None
        self._first_step = 0  # of this process
        self._measured = False  # the first steps of this process
        self._mark: tuple[float, int] | None = None  # time and step from which steps are timed
        self._step_s: float | None = None  # seconds
        self._validation_start_s = 0.0
        self._validated_at = 0  # step

    @property
    def limit(self) -> float:
        """Optimiser steps after which the run ends, as far as is known now."""
        return min(math.inf if steps is None else steps for steps in (self.max_steps, self.planned))

    @property
    def spent_s(self) -> float:
        """Seconds of fitting, earlier parts of a resumed run included."""
        here = 0.0 if self._start_s is None else self.clock() - self._start_s
        return self._spent_before + here

    def state_dict(self) -> dict[str, Any]:
        """The plan and the time spent."""
        return {"budget": self.budget, "planned": self.planned, "wall_s": self.spent_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Carry the time on, and the plan if it is of the same budget."""
        self._spent_before = state_dict["wall_s"]
        self.planned = state_dict["planned"] if state_dict["budget"] == self.budget else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock."""
        if stage == "fit":
            self._start_s = self.clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Follow the plan of a resumed run; stop one that has reached its limit before."""
        self._first_step = self._validated_at = trainer.global_step
        if self.planned is not None:
            self._follow(trainer, self.planned)
        if trainer.global_step >= self.limit:
            log.warning("step %d is the last of the run: nothing to train", trainer.global_step)
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Time the first steps and plan; stop when the limit is reached."""
        if not self._measured and self._time_steps(trainer):
            self._measured = True
            if self.budget is not None and self.planned is None:
                spare = _FOR_VALIDATIONS * seconds_of(self.budget)
                self._plan(trainer, spare_s=spare, validation_s=0.0, every=1)
        if trainer.global_step >= self.limit:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the steps before it and the validation."""
        self._time_steps(trainer)
        self._validation_start_s = self.clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the plan with the time that steps and this validation took."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        took = self.clock() - self._validation_start_s
        every = max(1, trainer.global_step - self._validated_at)
        self._validated_at = trainer.global_step
        if self._mark is not None:  # the time of validations is not that of steps
            self._mark = (self._mark[0] + took, self._mark[1])
        if self.budget is not None and self._step_s is not None and not trainer.should_stop:
            self._plan(trainer, spare_s=took, validation_s=took, every=every)
            if self._mark is not None and trainer.global_step - self._mark[1] >= _MEASURED:
                self._mark = (self.clock(), trainer.global_step)  # a machine may get busier

    def _time_steps(self, trainer: pl.Trainer) -> bool:
        """Note the mean time of the steps since the last mark; whether there were enough."""
        step, now = trainer.global_step, self.clock()
        if self._mark is None:
            if step - self._first_step >= _SKIPPED:
                self._mark = (now, step)
            return False
        since, first = self._mark
        if step - first < _MEASURED:
            return False
        self._step_s = (now - since) / (step - first)
        return True

    def _plan(
        self, trainer: pl.Trainer, *, spare_s: float, validation_s: float, every: int
    ) -> None:
        """Choose the last step, unless the present one is about right."""
        assert self.budget is not None and self._step_s is not None
        step, most = trainer.global_step, _most_steps(trainer)
        left_s = seconds_of(self.budget) - self.spent_s - spare_s
        steps = step + max(1, int(left_s / (self._step_s + validation_s / every)))
        steps = trainer.strategy.broadcast(min(steps, most))  # one plan for all processes
        present = most if self.planned is None else self.planned
        log.info(
            "trainer.budget=%s, %.0f s spent: %.3f s a step, %.1f s a validation",
            *(self.budget, self.spent_s, self._step_s, validation_s),
        )
        if abs(steps - present) > _TOLERANCE * (steps - step):
            self.planned = steps if steps < most else None
            log.warning(
                "trainer.budget=%s has time for %d of %d steps: the schedule and the run end there"
                " (trainer.budget=null makes all of them)",
                *(self.budget, steps, most),
            )
            self._follow(trainer, steps)

    def _follow(self, trainer: pl.Trainer, steps: int) -> None:
        """Tell the schedules how long the run is."""
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, WarmupCosine):
                config.scheduler.total_steps = steps
            else:
                log.warning(
                    "%s knows nothing of trainer.budget: the rate will not have come down at the"
                    " end; type scheduler=warmup_cosine",
                    type(config.scheduler).__name__,
                )


def _most_steps(trainer: pl.Trainer) -> int:
    """Optimiser steps of the run without a budget."""
    lengths = [c for c in getattr(trainer, "callbacks", []) if isinstance(c, RunLength)]
    known = [length.max_steps for length in lengths if length.max_steps is not None]
    steps = min([trainer.estimated_stepping_batches, *known])
    if not math.isfinite(steps):
        raise ValueError("the run has no end: set trainer.max_epochs or trainer.max_steps")
    return int(steps)


def total_steps(trainer: pl.Trainer) -> int:
    """Optimiser steps that the run will make, the length of a learning-rate schedule.

    Raises:
        ValueError: neither epochs nor steps limit the run.
    """
    limits = [c.limit for c in getattr(trainer, "callbacks", []) if isinstance(c, RunLength)]
    return int(min([_most_steps(trainer), *limits]))
