"""How a sweep ends: with a report, with the command that goes on, and with an exit code."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial
from scene_track.sweeps.trial import quoted

log = logging.getLogger(__name__)


class SweepFailed(Exception):
    """Trials of a sweep came to nothing; the exit code says so.

    Attributes:
        code: 2 if all of it were a person's mistakes, else 1.
    """

    def __init__(self, message: str, trials: Sequence[Trial]) -> None:
        """Store the message and what follows for the exit code.

        Args:
            message: in one line.
            trials: those that failed.
        """
        super().__init__(message)
        self.code: Literal[1, 2] = 2 if all(t.fault == "mistake" for t in trials) else 1


@contextlib.contextmanager
def end_sweep(
    config: DictConfig, sweep: Path, points: Sequence[tuple[str, ...]] | None
) -> Iterator[None]:
    """Around a sweep: reports however it ends.

    Args:
        config: of the sweep.
        sweep: its folder.
        points: overrides of all trials that a grid consists of, each of which was asked for; None
            for a search, which goes on without those that fail.

    Raises:
        SweepFailed: a trial of a grid failed, or all trials of a search.
    """
    try:
        yield
    except BaseException:
        _report(sweep)
        print(f"to go on: {_again(config, sweep)}", file=sys.stderr, flush=True)
        raise
    _report(sweep)
    trials = records.read_all(sweep).values()
    done = {trial.overrides for trial in trials if trial.state in records.DONE}
    failed = [trial for trial in trials if trial.state == "failed"]
    if points is not None:
        wanted = set(points)
        failed = [t for t in failed if t.overrides in wanted - done]
    elif done:
        failed = []
    if failed:
        open_points = {trial.overrides for trial in failed}
        latest = {trial.overrides: trial for trial in failed}
        raise SweepFailed(
            f"{len(open_points)} of {len(done | open_points)} trials failed, the first:"
            f" trial {failed[0].number}: {failed[0].reason}",
            list(latest.values()),
        )


def _report(sweep: Path) -> None:
    """The report of the trials so far; a fault in it must not hide what a sweep came to."""
    from scene_track.sweeps.report import report

    try:
        report(sweep)
    except FileNotFoundError as error:  # other processes made all trials, in their folders
        log.info("no report: %s", error)
    except Exception:
        log.exception("no report could be made of %s", sweep)


def _again(config: DictConfig, sweep: Path) -> str:
    """The command that goes on with a sweep."""
    typed = [word for word in sys.argv[1:] if not word.startswith("hydra.sweep.dir=")]
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module is not None else [sys.argv[0]]
    return shlex.join(["python", *program, *typed, f"hydra.sweep.dir={quoted(sweep)}"])
