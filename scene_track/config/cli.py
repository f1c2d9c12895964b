"""An entry point around a job function: configuration found, composed, checked, then the job runs.

A person's mistake (a misspelt key, a wrong value, a missing folder) ends in one line on stderr per
fault and exit code 2; a fault of the program ends in a traceback and exit code 1. Hydra's own
complaints are brought into the same form. ``HYDRA_FULL_ERROR=1`` shows the traceback in both cases;
the run's log file has it always. Neither torch nor pydantic is imported before a job runs, so
``--help`` and ``--cfg job`` are fast. With ``trials`` each job of a sweep is a process of its own
that starts at the same entry point (see ``scene_track.sweeps``).
"""

from __future__ import annotations

import difflib
import dis
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scene_track.config.help import help_text
from scene_track.config.paths import config_dir
from scene_track.config.resumed import with_words_of_run

if TYPE_CHECKING:
    from scene_track.sweeps.trial import Program

_FULL = "HYDRA_FULL_ERROR"
_USER_MISTAKE = 2
_CTRL_C = 130


class UserError(ValueError):
    """A person's mistake, found while a job ran; its message is one line per fault."""


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
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(config_dir(), config_name, *_called(job)))
        return
    if trials:
        sys.argv[1:] = with_words_of_run(sys.argv[1:])
    wanted_full = os.environ.get(_FULL) == "1"
    program = None
    if trials:
        from scene_track.sweeps.hydra_sweepers import register
        from scene_track.sweeps.trial import hold_lifeline

        hold_lifeline()
        register()
        program = _program(job)
    task = _Job(job, root, wanted_full, program)
    # With this set Hydra hands its exceptions on instead of printing them and leaving with code 1.
    with _environment(_FULL, "1"):
        try:
            main = hydra.main(
                version_base="1.3", config_path=config_dir(), config_name=config_name
            )(task)
            main()
        except UserError:  # a job of a sweep; it has said what is wrong
            sys.exit(_USER_MISTAKE)
        except KeyboardInterrupt:
            sys.exit(_CTRL_C)
        except Exception as error:
            if trials and (code := _sweep_failed(error)) is not None:
                _say(" ".join(str(error).split()), error, wanted_full)
                sys.exit(code)
            wrong = (HydraException, OmegaConfBaseException, FileNotFoundError)
            if not isinstance(error, wrong) or not _is_composing(error):
                raise
            _say(_in_one_line(error, config_name), error, wanted_full)
            sys.exit(_USER_MISTAKE)


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


def _sweep_failed(error: Exception) -> int | None:
    """The exit code for a sweep that came to nothing, or cannot begin; None for other errors."""
    from scene_track.sweeps.ending import SweepFailed

    if isinstance(error, SweepFailed):
        return error.code
    ours = _raised_in(error).startswith("scene_track.sweeps")
    return _USER_MISTAKE if ours and isinstance(error, ValueError) else None


class _Job:
    """The job with the check in front; pickles by its parts."""

    def __init__(
        self,
        function: Callable[[DictConfig], Any],
        root: str | None,
        wanted_full: bool,
        program: Program | None = None,
    ) -> None:
        functools.update_wrapper(self, function)  # Hydra names the job after the wrapped one
        self._function = function
        self._root = root
        self._wanted_full = wanted_full
        self._program = program

    def __call__(self, cfg: DictConfig) -> Any:
        """Checks ``cfg`` and runs the job on it; a trial of a sweep does so in its own process."""
        if self._program is None:
            return self._run(cfg)
        from scene_track.sweeps.trial import leave_outcome, run_trial

        hydra_cfg = HydraConfig.get()
        with _environment(_FULL, "1" if self._wanted_full else None):
            if hydra_cfg.mode == RunMode.MULTIRUN:
                return run_trial(
                    self._program,
                    list(hydra_cfg.overrides.task),
                    list(hydra_cfg.overrides.hydra),
                    Path(hydra_cfg.runtime.output_dir),
                )
        try:
            value = self._run(cfg)
        except SystemExit as end:
            if end.code == _USER_MISTAKE and end.__cause__ is not None:
                leave_outcome(error=" ".join(str(end.__cause__).split()), fault="mistake")
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            leave_outcome(error=f"{type(error).__name__}: {reason}", fault="error")
            raise
        leave_outcome(objective=value)
        return value

    def _run(self, cfg: DictConfig) -> Any:
        from scene_track.config.check import ConfigError, check

        with _environment(_FULL, "1" if self._wanted_full else None):
            try:
                check(cfg, self._root)
                return self._function(cfg)
            except ConfigError as error:
                mistake = UserError(str(error))
                mistake.__cause__ = error
            except Exception as error:
                message = self._mistake_of(error, cfg.get("trusted_targets") or ())
                if message is None:
                    _write_to_log("the run failed", error)
                    raise
                mistake = UserError(message)
                mistake.__cause__ = error
        _write_to_log(str(mistake), mistake)
        run = HydraConfig.get()
        if run.mode == RunMode.MULTIRUN:
            _say(f"job {run.job.num}: {mistake}", mistake, self._wanted_full)
            raise mistake  # the launcher collects it; the other jobs of the sweep go on
        _say(str(mistake), mistake, self._wanted_full)
        raise SystemExit(_USER_MISTAKE) from mistake

    def _mistake_of(self, error: BaseException, trusted: Iterable[str]) -> str | None:
        """The message of a person's mistake; None if ``error`` is a fault of the program.

        A ``ValueError`` or ``FileNotFoundError`` is a person's mistake if a ``raise`` in our own
        code (or in what is trusted) made it; one out of a library is not. Lightning says the same
        by its ``MisconfigurationException``.
        """
        where = ""
        while isinstance(error, InstantiationException) and error.__cause__ is not None:
            if match := re.search(r"^full_key: (.+)$", str(error), re.MULTILINE):
                where = f"{match[1]}: "
            error = error.__cause__
        if not any(cls.__name__ == "MisconfigurationException" for cls in type(error).__mro__):
            modules = ("scene_track", "__main__", self._function.__module__, *trusted)
            ours = {module.split(".")[0] for module in modules}
            if (
                not isinstance(error, ValueError | FileNotFoundError)
                or _raised_in(error).split(".")[0] not in ours
            ):
                return None
        return where + " ".join(str(error).split())


def _raised_in(error: BaseException) -> str:
    """The module of the ``raise`` that made the error; empty if it came out of a call."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    if dis.opname[code[trace.tb_lasti]] != "RAISE_VARARGS":
        return ""
    return trace.tb_frame.f_globals.get("__name__", "")


def _write_to_log(message: str, error: BaseException) -> None:
    """Writes the traceback to the run's log file, and there only."""
    log = logging.getLogger("scene_track")
    info = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _say(message: str, error: BaseException, full: bool) -> None:
    """Says on stderr what is wrong, after the traceback if that was asked for."""
    if full:
        traceback.print_exception(error)
    print(message, file=sys.stderr, flush=True)


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """An environment variable for a while."""
    before = os.environ.get(name)
    try:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


# --- Hydra's complaints in one line --------------------------------------------------------------


def _is_composing(error: BaseException) -> bool:
    """Whether the error came up in Hydra itself, not in the job."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _Job.__call__.__code__:
            return False
        trace = trace.tb_next
    return True


def _in_one_line(error: BaseException, config_name: str) -> str:
    """Hydra's message without its search paths, with the near matches of a misspelt key."""
    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value: {text.splitlines()[0]}"
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        if "No match in the defaults list" in text:
            return f"{key}: no option of this group is in use; type +{key}=OPTION"
        others = _options_with(config_name, key)
        if others:
            return f"{key}: {_unknown_here(key, others)}"
        choices = sorted({*_keys(config_name, key), *_groups()})
        return f"{key}: unknown key{_near(key, choices)}"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        if not group:
            return f"{option}: no such configuration"
        listing = text.partition("Available options")[2].partition("Config search path")[0]
        options = re.findall(r"^\t(\S+)$", listing, re.MULTILINE)
        return f"{group}={option}: no such option{_near(option, options)}; allowed: " + ", ".join(
            options
        )
    kept = [line.strip() for line in text.partition("Config search path")[0].splitlines()]
    noise = ("full_key", "object_type", "See ")
    return "; ".join(line for line in kept if line and not line.startswith(noise))


def _near(word: str, choices: list[str]) -> str:
    """The question whether a near match was meant, with a semicolon in front, or nothing."""
    matches = difflib.get_close_matches(word, choices, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _groups() -> list[str]:
    """All config groups."""
    root = config_dir()
    return [os.path.relpath(folder, root) for folder, _, _ in os.walk(root) if folder != root]


def _unknown_here(key: str, others: list[str]) -> str:
    """What to type for a key that other options of its group have, such as ``tracker=ball``."""
    group = others[0].partition("=")[0]
    value = next((a.partition("=")[2] for a in sys.argv[1:] if a.startswith(f"{key}=")), "VALUE")
    return (
        f"the {group} chosen here has no such key, {' or '.join(others)} has: type"
        f" {others[0]} {key}={value}"
    )


def _options_with(config_name: str, key: str) -> list[str]:
    """The options of a key's group that have the key, as they are typed: ``tracker=ball``."""
    root, parts = Path(config_dir()), key.split(".")
    depths = [n for n in range(1, len(parts)) if root.joinpath(*parts[:n]).is_dir()]
    if not depths:
        return []
    group = parts[: max(depths)]
    options = sorted(file.stem for file in root.joinpath(*group).glob("[!_]*.yaml"))
    typed = [f"{'/'.join(group)}={option}" for option in options]
    return [
        word
        for word in typed
        if (cfg := _composed(config_name, key, word)) is not None
        and OmegaConf.select(cfg, ".".join(parts[:-1])) is not None
        and parts[-1] in OmegaConf.select(cfg, ".".join(parts[:-1]))
    ]


def _composed(config_name: str, without: str, *words: str) -> DictConfig | None:
    """What is typed, without one key and with further words; None if it cannot be composed."""
    overrides = [
        argument
        for argument in sys.argv[1:]
        if "=" in argument and not argument.startswith(("-", without)) and "," not in argument
    ]
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
            return hydra.compose(config_name, overrides=[*overrides, *words])
    except (HydraException, OmegaConfBaseException):
        return None


def _keys(config_name: str, unknown: str) -> list[str]:
    """The dotted keys that there would be without the unknown one; empty if that cannot be said."""
    cfg = _composed(config_name, unknown)
    if cfg is None:
        return []
    found: list[str] = []

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            found.append(here)
            if isinstance(value, dict):
                walk(value, here)

    walk(OmegaConf.to_container(cfg, resolve=False), "")
    return found
