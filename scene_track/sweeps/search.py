"""``hydra/sweeper=optuna``: a search that resumes after a kill and is shared by machines.

The one file that imports Optuna (2.10, as Hydra's plugin asks for). The plugin gives the options,
the samplers and the reading of what varies; Optuna the study, ``ask`` and ``tell``, the storage's
heartbeat, and its callback that retries trials that died.

The plugin's loop is not used. It stops at a trial that fails, dies of an objective that is NaN, and
when it is started again it repeats points, writes into existing folders, and makes ``n_trials``
more. Here ``n_trials`` is the number of trials of the *study*, whoever makes them: one that ended
counts, also with an error; one whose process died is tried once more, and does not count.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from scene_track.sweeps import records
from scene_track.sweeps.records import Trial
from scene_track.sweeps.sweeper import TrialSweeper

log = logging.getLogger(__name__)

_TRIES, _RANDOM_TRIES = 20, 500  # proposals for one trial: by the sampler, then at random
# User attributes of the study's trials
_FOLDER, _REASON, _FAULT = "folder", "reason", "fault"


class SearchSweeper(TrialSweeper):
    """Replaces ``hydra/sweeper=optuna``, with its options."""

    def __init__(self, *, sampler: Any, **options: Any) -> None:
        self.sampler, self.options = sampler, options

    def _prepare(self, arguments: list[str]) -> None:
        """Check the options and read what varies."""
        for option in ("search_space", "custom_search_space", "max_failure_rate", "direction"):
            if self._typed(option) or (option.endswith("space") and self.options[option]):
                raise ValueError(
                    f"hydra.sweeper.{option} plays no part, leave it out: what varies stands under"
                    " hydra.sweeper.params, the direction is that of monitor.mode, and a trial that"
                    " fails ends no search"
                )
        self._direction = {"max": "maximize", "min": "minimize"}[self.run.monitor.mode]
        if not isinstance(self.sampler, optuna.samplers.BaseSampler):
            raise ValueError(
                "hydra/sweeper/sampler=grid: for a grid leave hydra/sweeper=optuna out; others are"
                " tpe, random, cmaes, nsgaii"
            )
        self._n_trials = int(self.options["n_trials"])
        # The plugin's default is two at a time, which Hydra's own launcher cannot do.
        self._n_jobs = 1 if self.one_by_one else int(self.options["n_jobs"])
        self._url = self.options["storage"] or f"sqlite:///{self.folder / 'study.db'}"
        self._name = self.options["study_name"] or "sweep"
        words = [*(f"{k}={v}" for k, v in (self.options["params"] or {}).items()), *arguments]
        overrides = {
            o.get_key_element(): o for o in OverridesParser.create().parse_overrides(words)
        }
        self._space = {k: axis(o) for k, o in overrides.items() if o.is_sweep_override()}
        self._fixed = [f"{k}={o.get_value_element_as_str()}" for k, o in overrides.items()
                       if k not in self._space]  # fmt: skip
        if not self._space:
            raise ValueError(
                "nothing varies: type what is to be searched, such as"
                " optimizer.lr='tag(log, interval(1e-4,1e-2))'"
            )
        varied = [overrides[key] for key in self._space]
        self._points = math.inf  # that the space has
        if all(override.is_discrete_sweep() for override in varied):
            self._points = math.prod(len(set(o.sweep_string_iterator())) for o in varied)
        self._running: set[int] = set()  # IDs of the trials whose heartbeat is ours

    def _typed(self, option: str) -> str | None:
        """The value that was typed for an option of the sweeper; None if none was."""
        start = f"hydra.sweeper.{option}="
        words = [o for o in self.run.hydra.overrides.hydra if o.startswith(start)]
        return words[-1].removeprefix(start) if words else None

    def _begin(self) -> None:
        self._study = self._open()
        self._settle()
        node = self.run.hydra.sweeper.sampler
        # With the seed of the first start the sampler would propose the points of that again.
        if (existing := len(self._study.trials)) and OmegaConf.select(node, "seed") is not None:
            self.sampler = instantiate(node, seed=int(node.seed) + existing)
        log.info(
            "study %s in %s: %d of %d trials are done; to %s %s",
            *(self._name, self._url_to_show(), len(self._counted()), self._n_trials),
            *(self._direction, self.run.monitor.metric),
        )

    def _open(self) -> optuna.Study:
        """The study, created if there is none."""
        logging.getLogger("optuna").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
        try:
            with self._alone():  # two processes that create the tables disturb each other
                return self._create()
        except ValueError as error:
            raise ValueError(
                f"the study {self._name} has the other direction than monitor.mode="
                f"{self.run.monitor.mode}: type another hydra.sweeper.study_name or hydra.sweep.dir"
            ) from error
        except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
            raise ValueError(
                f"hydra.sweeper.storage={self._url_to_show()} cannot be opened:"
                f" {str(error).splitlines()[0]}; expected such as sqlite:////FOLDER/study.db or"
                " postgresql://USER:PASSWORD@HOST/NAME, whose folder or database exists"
            ) from error

    def _create(self) -> optuna.Study:
        sqlite = self._url.startswith("sqlite:")
        storages: Any = optuna.storages
        self._retry = storages.RetryFailedTrialCallback(max_retry=1)
        self._storage = storages.RDBStorage(
            self._url,
            engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {},  # s, for its lock
            heartbeat_interval=math.ceil(records.BEAT_S),
            grace_period=math.ceil(records.SILENT_S),
            failed_trial_callback=self._retry,
        )
        return optuna.create_study(
            study_name=self._name,
            storage=self._storage,
            sampler=self.sampler,
            direction=self._direction,
            load_if_exists=True,
        )

    def _url_to_show(self) -> str:
        return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", self._url)  # without password

    def _take(self) -> list[Path]:
        self._settle()
        folders: list[Path] = []
        while len(folders) < self._n_jobs and (trial := self._ask()) is not None:
            values = {
                key: value if isinstance(value, str) else json.dumps(value)
                for key, value in trial.params.items()
            }
            overrides = [*self._fixed, *(f"{key}={value}" for key, value in values.items())]
            params = {key.lstrip("+~"): value for key, value in values.items()}
            with records.locked(self.folder):
                folder = records.claim(self.folder, overrides, params, trial.number)
            trial.set_user_attr(_FOLDER, str(folder))
            folders.append(folder)
        return folders

    def _ask(self) -> optuna.trial.Trial | None:
        """A new trial of the study; None if it has all, or no point is left.

        Optuna's samplers repeat points: a proposal that has a trial already is given up.
        """
        for attempt in range(_TRIES + _RANDOM_TRIES):
            if attempt == _TRIES:
                self._study.sampler = optuna.samplers.RandomSampler()
            with self._alone():
                if len(self._counted()) >= min(self._n_trials, self._points):
                    return None
                trial = self._study.ask()
                self._storage.record_heartbeat(trial._trial_id)
            for key, distribution in self._space.items():
                trial._suggest(key, distribution)  # as the plugin does
            # Another process may have been faster.
            earlier = [t for t in self._counted() if t.number < trial.number]
            if twin := next((t for t in earlier if t.params == trial.params), None):
                self._give_up(trial, f"the same point as trial {twin.number}")
            elif len(earlier) >= self._n_trials:
                self._give_up(trial, "the study had all its trials")
            else:
                self._study.sampler = self.sampler
                self._running.add(trial._trial_id)
                return trial
        log.info("the search is over: no point without a trial was found")
        return None

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Hold a lock on an SQLite study while it is created, or asked for a trial.

        Optuna 2.10 checks and takes a queued trial in two statements, between which another process
        may do the same; only database servers lock the row.
        """
        file = re.fullmatch(r"sqlite:///(.+)", self._url)
        folder = Path(file[1] if file else "").parent
        exists = file is not None and folder.is_dir()
        return records.locked(folder) if exists else contextlib.nullcontext()

    def _beat(self) -> None:
        """Record heartbeats: Optuna does so in ``optimize`` only, which runs the trial itself."""
        for trial_id in list(self._running):
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                self._storage.record_heartbeat(trial_id)

    def _settle(self) -> None:
        """Tell the study of trials that ended without its knowledge."""
        optuna.storages.fail_stale_trials(self._study)
        for trial in self._study.trials:
            if trial.state != TrialState.RUNNING:
                continue
            folder = trial.user_attrs.get(_FOLDER)
            record = None if folder is None else records.read(Path(folder))
            if record is not None and record.study == trial.number:
                if record.state not in records.UNFINISHED:
                    self._tell(record)
            elif record is not None or not (trial.params or folder):
                # Killed right after it was asked for: Optuna never fails a trial without heartbeat.
                age = datetime.now() - (trial.datetime_start or datetime.now())
                if age.total_seconds() > records.SILENT_S:
                    self._give_up(self._handle(trial.number), records.GONE)

    def _finish(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._tell(trial)
        self._running.clear()
        if any(t.state == TrialState.COMPLETE for t in self._study.trials):
            best = self._study.best_trial
            content = {"name": "optuna", "best_params": best.params, "best_value": best.value}
            OmegaConf.save(OmegaConf.create(content), self.folder / "optimization_results.yaml")

    def _tell(self, record: Trial) -> None:
        """Tell the study what became of a trial; an outcome that it has already stays."""
        assert record.study is not None
        trial = self._handle(record.study)
        with self._once(trial):
            if record.reason is not None:
                trial.set_user_attr(_REASON, record.reason)
            if record.state == "complete":
                self._study.tell(trial, record.objective)
            elif record.state == "stopped":
                # The objective of a shorter training: known to the sampler, never the best.
                assert record.objective is not None
                trial.report(record.objective, step=1)
                self._study.tell(trial, state=TrialState.PRUNED)
            elif record.fault == "died":
                self._study.tell(trial, state=TrialState.FAIL)
                self._retry(self._study, self._study.trials[trial.number])
            else:
                trial.set_user_attr(_FAULT, record.fault)
                self._study.tell(trial, state=TrialState.FAIL)

    def _give_up(self, trial: optuna.trial.Trial, reason: str) -> None:
        """End a trial that is not to count."""
        with self._once(trial):
            trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, state=TrialState.FAIL)

    @contextlib.contextmanager
    def _once(self, trial: optuna.trial.Trial) -> Iterator[None]:
        """Around ``tell``: two processes may read the same record."""
        try:
            yield
        except (RuntimeError, ValueError):
            if not self._study.trials[trial.number].state.is_finished():
                raise

    def _handle(self, number: int) -> optuna.trial.Trial:
        """A trial of the study, to write to; ``Study.trials`` has copies."""
        return optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)

    def _counted(self) -> list[FrozenTrial]:
        """The trials that count for ``n_trials``: those that run or ended by themselves."""
        states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        return [t for t in self._study.trials if t.state in states or _FAULT in t.user_attrs]

    def _left(self) -> list[str]:
        running = [trial for trial in self._study.trials if trial.state == TrialState.RUNNING]
        return [f"trial {t.number} of the study, {t.user_attrs.get(_FOLDER)}" for t in running]

    def _failures(self, trials: Sequence[Trial]) -> list[Trial]:
        return [] if any(trial.state in records.DONE for trial in trials) else list(trials)


def axis(override: Override) -> BaseDistribution:
    """What one override varies, as the plugin reads it; with its faults mended.

    The plugin takes a range's stop for its last value, and does not know ``glob(*)`` of a group.

    Raises:
        ValueError: a range is empty, or the monitor varies.
    """
    key, value = override.get_key_element(), override.value()
    if key.lstrip("+").split(".")[0] == "monitor":
        raise ValueError(f"{key} cannot vary: trials are compared by it")
    if isinstance(value, ChoiceSweep | RangeSweep):  # another process would shuffle otherwise
        value = replace(value, shuffle=False)
    if isinstance(value, RangeSweep):
        assert value.start is not None and value.stop is not None
        count = math.ceil((value.stop - value.start) / value.step)
        if count < 1 or value.step < 0:
            raise ValueError(f"{override.input_line}: expected range(LOW,HIGH) with LOW < HIGH")
        value = replace(value, stop=value.start + (count - 1) * value.step)
    elif isinstance(value, Glob):
        value = ChoiceSweep(list=list(override.sweep_string_iterator()))
    try:
        return create_optuna_distribution_from_override(replace(override, _value=value))
    except ValueError as error:
        raise ValueError(f"{override.input_line}: {error}") from error
