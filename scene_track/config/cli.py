"""An entry point around a job function: configuration composed and checked, then the job runs.

A user's mistake (a misspelt key, a wrong value, a missing folder) ends in one line on stderr per
fault and exit code 2; a fault of the program ends in a traceback and exit code 1. The type of an
error says which it is: ``ValueError`` and ``OSError`` are for users, in the whole package
(see ``USER_ERRORS``). ``HYDRA_FULL_ERROR=1`` shows the traceback in both cases; the log file of a
run that has begun has it, and a refused run leaves no folder behind. Neither torch nor pydantic is
imported before a job runs, so ``--help`` and ``--cfg job`` are fast. With ``trials`` each job of a
sweep is a process of its own that starts at the same entry point (see ``scene_track.sweeps``).
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import hydra._internal.utils
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from scene_track.config.complaints import in_one_line, of_the_disk, while_composing
from scene_track.config.help import help_text
from scene_track.config.paths import config_dir
from scene_track.config.resumed import with_words_of_run
from scene_track.config.shell import readable, settle
from scene_track.io.atomic import held

if TYPE_CHECKING:
    from scene_track.sweeps.trial import Program

_USER_MISTAKE = 2
_CTRL_C = 130

USER_ERRORS = (ValueError, OSError)
"""What a job raises for its user, who sees the message alone: mistakes, and faults of the disk."""


class UserError(ValueError):
    """A mistake of the user, as it is reported: one line per fault."""


def run_main(
    config_name: str,
    job: Callable[[DictConfig], Any],
    root: str | None = None,
    *,
    trials: bool = False,
) -> None:
    """Runs ``job`` on the configuration composed from the command line.

    Args:
        config_name: of the primary configuration in ``conf/``.
        job: a function at module level (launchers pickle it) that takes the checked configuration
            and returns the objective of a sweep, or nothing.
        root: dotted name of the class or function whose signature describes the root keys; by
            default those of a training run.
        trials: the jobs of a sweep are trials: recorded, resumed, reported on, each in a process of
            its own.

    Raises:
        SystemExit: with code 2 after a person's mistake.
    """
    settle()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir(), config_name, *_called(job)))
        return
    try:
        sys.argv[1:] = readable(sys.argv[1:], sweep=bool({"--multirun", "-m"} & set(sys.argv)))
        if trials:
            sys.argv[1:] = with_brought(with_words_of_run(sys.argv[1:]))
    except USER_ERRORS as error:
        print(of_the_disk(error) if isinstance(error, OSError) else error, file=sys.stderr)
        sys.exit(_USER_MISTAKE)
    program = None
    if trials:
        from scene_track.sweeps import register
        from scene_track.sweeps.trial import hold_lifeline

        hold_lifeline()
        register()
        program = _program(job)
    task = _Job(job, root, program)
    # Hydra hands its exceptions on, instead of printing them and leaving with code 1. The switch is
    # a private one of Hydra 1.3.
    hydra._internal.utils.is_under_debugger = lambda: True
    try:
        run = hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)
        run(task)()
    except UserError:  # a job of a sweep, which has reported it
        sys.exit(_USER_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(_CTRL_C)
    except Exception as error:
        told = isinstance(error, HydraException | OmegaConfBaseException | ValueError | OSError)
        if error is task.error or not (told or while_composing(error)):
            raise
        _say(in_one_line(error, config_name), error)
        sys.exit(getattr(error, "code", _USER_MISTAKE))  # a sweep that failed has one


def with_brought(words: list[str]) -> list[str]:
    """The words of a command line with those that a typed one brings.

    Hydra's way is a defaults list, but there a dataset has the last word about a model's parts.
    """
    brought = {"model=association": "input=boxes"}
    return [word for typed in words for word in (typed, brought.get(typed, "")) if word]


def _called(job: Callable[[DictConfig], Any]) -> tuple[str, str]:
    """How the entry point is called, and what it does: the first line of its module."""
    module = sys.modules[job.__module__]
    name = module.__spec__.name if module.__spec__ is not None else Path(sys.argv[0]).name
    program = f"python -m {name}" if module.__spec__ is not None else f"python {name}"
    return program, (module.__doc__ or "").strip().split("\n")[0]


def _program(job: Callable[[DictConfig], Any]) -> Program:
    """How this entry point is started again, with the flags by which Hydra finds configurations."""
    from hydra._internal.utils import get_args_parser

    from scene_track.sweeps.trial import Program

    spec = sys.modules[job.__module__].__spec__
    words = ("-m", spec.name) if spec is not None else (os.path.abspath(sys.argv[0]),)
    typed = get_args_parser().parse_args(sys.argv[1:])
    flags = {"--config-path": typed.config_path, "--config-name": typed.config_name}
    flags |= {"--config-dir": typed.config_dir}
    found = [word for flag, value in flags.items() if value for word in (flag, value)]
    return Program(words, tuple(found), os.getcwd())


class HoldsRunFolder(Callback):
    """Keeps the run folder for this process before Hydra writes its words and log into it."""

    def __init__(self) -> None:
        self._run = ExitStack()  # the lock goes with this object

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Ends the process with code 2 if another run has the folder."""
        from scene_track.sweeps.trial import is_first_process

        if config.dry_run or not is_first_process():
            return
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # as Hydra does before it looks for the folder
        try:
            # Hydra meets the other errors a moment later, and says them.
            with suppress(OSError, OmegaConfBaseException):
                self._run.enter_context(held(config.hydra.run.dir, "hydra.run.dir"))
        except ValueError as error:
            print(error, file=sys.stderr)
            sys.exit(_USER_MISTAKE)  # Hydra takes an exception of a callback for a warning
        finally:
            HydraConfig.instance().cfg = before

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """Gives the folder back."""
        self._run.close()


class _Job:
    """The job with the check in front; pickles by its parts."""

    def __init__(
        self,
        function: Callable[[DictConfig], Any],
        root: str | None,
        program: Program | None = None,
    ) -> None:
        functools.update_wrapper(self, function)  # Hydra names the job after the wrapped one
        self._function, self._root, self._program = function, root, program
        self.error: Exception | None = None  # the one that ended the last job

    def __call__(self, cfg: DictConfig) -> Any:
        """Checks ``cfg`` and runs the job on it; a trial of a sweep does so in its own process."""
        from scene_track.sweeps.trial import leave_outcome, run_trial

        run = HydraConfig.get()
        folder = Path(run.runtime.output_dir)
        if self._program is not None and run.mode == RunMode.MULTIRUN:
            words = list(run.overrides.task), list(run.overrides.hydra)
            return run_trial(self._program, *words, folder)
        from scene_track.config.check import ConfigError, check

        log_file = folder / f"{run.job.name}.log"
        # A refused run leaves no folder behind; one with anything of somebody else's in it stays.
        fresh = _holds_only(folder, ".hydra", log_file.name) and not (
            log_file.is_file() and log_file.stat().st_size
        )
        try:
            check(cfg, self._root)
            value = self._function(cfg)
        except Exception as error:
            message = str(error) if isinstance(error, ConfigError) else _mistake_of(error)
            if message is None:
                self.error = error
                _write_to_log("the run failed", error)
                reason = " ".join(str(error).split())
                leave_outcome(error=f"{type(error).__name__}: {reason}", fault="error")
                raise
            mistake = UserError(message)
            mistake.__cause__ = error
        else:
            leave_outcome(objective=value)
            return value
        _write_to_log(message, mistake)
        if run.mode == RunMode.MULTIRUN:
            _say(f"job {run.job.num}: {message}", mistake)
            raise mistake  # the launcher collects it; the other jobs of the sweep go on
        leave_outcome(error=" ".join(message.split()), fault="mistake")
        _say(message, mistake)
        if fresh and _holds_only(folder, ".hydra", log_file.name, "config.yaml"):
            shutil.rmtree(folder, ignore_errors=True)
        raise SystemExit(_USER_MISTAKE) from mistake


def _holds_only(folder: Path, *names: str) -> bool:
    return all(entry.name in names for entry in folder.iterdir())


def _mistake_of(error: BaseException) -> str | None:
    """The message of a user's mistake, in one line; None if ``error`` is a fault of the program.

    Lightning marks a mistake by its ``MisconfigurationException``.
    """
    where = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        if match := re.search(r"^full_key: (.+)$", str(error), re.MULTILINE):
            where = f"{match[1]}: "
        error = error.__cause__
    lightning = any(cls.__name__ == "MisconfigurationException" for cls in type(error).__mro__)
    # What Lightning says of a logger's package that is not installed, and of Slurm's variables.
    lightning |= isinstance(error, ModuleNotFoundError) and "pip install" in str(error)
    lightning |= isinstance(error, RuntimeError) and "SLURM" in str(error)
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    memory |= isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if not lightning and not memory and not isinstance(error, USER_ERRORS):
        return None
    text = of_the_disk(error) if isinstance(error, OSError) else str(error)
    if memory:
        text = (
            f"out of memory ({text.strip().split('. ')[0][:200]}): type dataset.batch_size=1, or a"
        )
        text += " smaller dataset.size or dataset.window.length"
    if "Original Traceback" in text:  # of a loading process, which ends in the error itself
        text = re.sub(r"^[\w.]+: ", "", text.strip().splitlines()[-1])  # without the type
    return where + " ".join(text.split())


def _write_to_log(message: str, error: BaseException) -> None:
    """Writes the traceback to the run's log file, and there only."""
    log = logging.getLogger("scene_track")
    info = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _say(message: str, error: BaseException) -> None:
    """Says on stderr what is wrong, after the traceback if that was asked for."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(message, file=sys.stderr, flush=True)
