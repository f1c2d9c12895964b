"""``hydra/sweeper=optuna``: a search that goes on after a kill and on several machines.

The one file that imports Optuna: a study can only be asked, told, and rid of trials that died by
its own library. Of that, only what versions 2.10 to 4 have in common is used (``create_study``,
``ask``, ``suggest_*``, ``tell``, ``create_trial``, attributes), so that another version is a
change of a pin. Hydra's plugin gives the options and the samplers; its loop is not used, because it
stops at a trial that fails, dies of an objective that is no number, and, started again, repeats
points, writes into folders that exist and makes ``n_trials`` more.

Special here: ``n_trials`` is the number of trials of the *study*, whoever makes them. One that came
to an end counts, also a failed one; one that died with its process does not.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from scene_track.sweeps import records
from scene_track.sweeps.ending import end_sweep
from scene_track.sweeps.launching import Point, SweepRun, listed
from scene_track.sweeps.records import Process, Trial
from scene_track.sweeps.space import Choice, Space, points, split

log = logging.getLogger(__name__)

STUDY = "study.db"
_NAME = "sweep"  # of a study that is given none
_TRIES = 20
_OPENINGS = 5
# Attributes of the study's trials
_OWNER, _FOLDER, _REASON, _VOID = "process", "folder", "reason", "void"


class Search:
    """A study and what it takes to go on with it."""

    def __init__(self, run: SweepRun, sampler: Any, options: dict[str, Any]) -> None:
        """Check the options of ``hydra.sweeper``.

        Args:
            run: gives folder and launcher.
            sampler: of Optuna.
            options: of Hydra's Optuna plugin.

        Raises:
            ValueError: an option contradicts the run's monitor, or has no meaning here.
        """
        self.run = run
        self.direction = _direction(run.config)
        self.sampler = _reseeded(run.config, sampler, 0)
        self.n_trials = int(options["n_trials"])
        # Hydra's default is two at a time, which one machine with one launcher cannot do.
        self.n_jobs = 1 if run.one_by_one else int(options["n_jobs"])
        self.params = options["params"] or {}
        self.storage = options["storage"] or f"sqlite:///{run.folder / STUDY}"
        self.study_name = options["study_name"] or _NAME
        rate = float(options["max_failure_rate"])
        # Hydra's default, 0, would end a search at its first failure; typed, it means that.
        self.max_failure_rate = rate if rate > 0 or _typed(run.config, "max_failure_rate") else 1.0
        for name in ("search_space", "custom_search_space"):
            if options[name] is not None:
                raise ValueError(
                    f"hydra.sweeper.{name}: not supported; list what varies under"
                    " hydra.sweeper.params, or type it: optimizer.lr='interval(1e-4,1e-2)'"
                )

    def sweep(self, arguments: Sequence[str]) -> None:
        """Make the trials that the study lacks.

        Raises:
            SweepFailed: no trial of the sweep was successful, or more failed than may.
            ValueError: nothing varies, or what varies decides over the objective itself.
        """
        space, fixed = split(
            OverridesParser.create().parse_overrides(
                [*(f"{k}={v}" for k, v in self.params.items()), *arguments]
            )
        )
        _check_space(space)
        self.run.begin()
        study = self._open()
        self._settle(study)
        existing = len(study.trials)
        if existing:  # with the seed of the first time it would propose what it did then
            self.sampler = _reseeded(self.run.config, self.sampler, existing)
        log.info(
            "study %s in %s: %d of %d trials are done; to %s %s",
            *(self.study_name, _without_password(self.storage), _counted(study), self.n_trials),
            self.direction,
            self.run.config.monitor.metric,
        )
        with end_sweep(self.run.config, self.run.folder, None):
            self._search(study, space, fixed)
            _say_whose(study, self.n_trials)
        self._keep_best(study)

    def _open(self) -> optuna.Study:
        """The study, made if there is none.

        Raises:
            ValueError: its storage cannot be opened, or it has the other direction.
        """
        logging.getLogger("optuna").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        for attempt in range(_OPENINGS):
            try:
                study = self._load_or_create()
                break
            except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
                # Two processes that make the tables at the same time get into each other's way.
                if attempt + 1 < _OPENINGS and isinstance(error, IntegrityError | OperationalError):
                    time.sleep(random.uniform(0.2, 1.0))
                    continue
                raise ValueError(
                    f"hydra.sweeper.storage={_without_password(self.storage)} cannot be opened:"
                    f" {str(error).splitlines()[0]}; expected such as sqlite:////FOLDER/study.db or"
                    " postgresql://USER:PASSWORD@HOST/NAME, whose folder or data base exists"
                ) from error
        else:
            raise AssertionError("the last attempt returns or raises")
        found = study.direction.name.lower()
        if found != self.direction:
            raise ValueError(
                f"the study {self.study_name} is to {found}, monitor.mode asks to"
                f" {self.direction}: type another hydra.sweeper.study_name, or hydra.sweep.dir"
            )
        return study

    def _load_or_create(self) -> optuna.Study:
        sqlite = self.storage.startswith("sqlite:")
        patient = {"connect_args": {"timeout": 60}} if sqlite else {}  # seconds, for a locked file
        storage = optuna.storages.RDBStorage(self.storage, engine_kwargs=patient)
        try:
            study = optuna.load_study(study_name=self.study_name, storage=storage)
            # A study is made in two steps, name and direction: another process, or one that was
            # killed, may stand between them.
            if study.direction != StudyDirection.NOT_SET:
                return study
        except KeyError:
            pass
        # Sets the direction of a study that has none; says nothing to one that has this one.
        return optuna.create_study(
            study_name=self.study_name,
            storage=storage,
            direction=self.direction,
            load_if_exists=True,
        )

    def _search(self, study: optuna.Study, space: Space, fixed: list[str]) -> None:
        made = failed = 0
        while True:
            batch: list[tuple[optuna.trial.Trial, Point, Path]] = []
            while len(batch) < self.n_jobs and (trial := self._ask(study, space)) is not None:
                point = _point(trial, fixed)
                with records.locked(self.run.folder):
                    folder = records.claim(
                        self.run.folder, point.overrides, point.params, point.study
                    )
                trial.set_user_attr(_FOLDER, str(folder))
                batch.append((trial, point, folder))
            if not batch:
                if self._finds_lost(study):
                    continue
                return
            asked, todo, folders = zip(*batch, strict=True)
            try:
                for trial, record in zip(asked, self.run.run(todo, folders), strict=True):
                    _tell(study, trial, record)
                    made += 1
                    failed += record.state == "failed"
            except BaseException:
                self._settle(study)
                raise
            if failed > self.max_failure_rate * max(made, 1):
                log.error(
                    "%d of %d trials failed, more than hydra.sweeper.max_failure_rate=%g allows",
                    *(failed, made, self.max_failure_rate),
                )
                return

    def _ask(self, study: optuna.Study, space: Space) -> optuna.trial.Trial | None:
        """A trial at a point that no other trial has; None if the study has all that it should."""
        while True:
            known = [t for t in study.trials if _counts(t)]
            if len(known) >= self.n_trials:
                return None
            proposal = self._propose(known, space)
            if proposal is None:
                return None
            params, memory = proposal
            owner = asdict(Process.this())
            study.add_trial(  # all at once, so that no kill leaves a trial that is nobody's
                optuna.trial.create_trial(
                    state=TrialState.WAITING,
                    user_attrs={_OWNER: owner},
                    system_attrs={**memory, "fixed_params": params},
                )
            )
            trial = study.ask()
            if trial.user_attrs.get(_OWNER) != owner:  # put there by another process, or a person
                trial.set_user_attr(_OWNER, owner)
            for key, axis in space.items():
                _suggest(trial, key, axis)
            # Another process may have been faster.
            earlier = [t for t in study.trials if t.number < trial.number and _counts(t)]
            if len(earlier) >= self.n_trials:
                _give_up(study, trial, "the study had all its trials")
            elif twin := next((t for t in earlier if t.params == trial.params), None):
                _give_up(study, trial, f"the same point as trial {twin.number}")
            else:
                return trial

    def _propose(
        self, known: Sequence[optuna.trial.FrozenTrial], space: Space
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """A point without a trial, from the sampler; None if there is none left.

        The sampler is asked about a copy of the study, so that proposals that are no good leave no
        trace in it. One that keeps to a few points of a small space is overruled by chance.

        Returns:
            The point, and what the sampler wrote down about it. CMA-ES and NSGA-II keep all that
            they have learned in their trials' system attributes: without them they stay random.
        """
        taken = [trial.params for trial in known]
        scratch = optuna.create_study(sampler=self.sampler, direction=self.direction)
        scratch.add_trials(known)
        for _ in range(_TRIES):
            trial = scratch.ask()
            for key, axis in space.items():
                _suggest(trial, key, axis)
            if trial.params not in taken:
                return trial.params, scratch.trials[trial.number].system_attrs
            scratch.tell(trial, state=TrialState.FAIL)
        free = [point for point in map(dict, points(space)) if point not in taken]
        if not free:
            log.info("the search is over: no point without a trial was found")
            return None
        return random.choice(free), {}

    def _finds_lost(self, study: optuna.Study) -> bool:
        """Whether, looking once more, there are trials that others began and lost."""
        before = {trial.number for trial in study.trials if _counts(trial)}
        if not _of_others(study):
            return False
        self.run.look_again()
        self._settle(study)
        return not before <= {trial.number for trial in study.trials if _counts(trial)}

    def _settle(self, study: optuna.Study) -> None:
        """Tell the study of trials that ended without its hearing of it."""
        for trial in study.trials:
            if trial.state != TrialState.RUNNING:
                continue
            owner, folder = trial.user_attrs.get(_OWNER), trial.user_attrs.get(_FOLDER)
            process = None if owner is None else Process(**owner)
            mine = process == Process.this()
            alive = None if process is None else process.alive()
            if alive and not mine:  # tells of it itself
                continue
            record = None if folder is None else records.read(Path(folder))
            handle = optuna.trial.Trial(study, trial._trial_id)
            if record is not None and record.study == trial.number:
                if record.state not in records.UNFINISHED:
                    _tell(study, handle, record)
            # It never got a folder, or that is on a machine of which nothing is known here.
            elif mine or alive is False or (process is None and _is_nobodys(trial)):
                _give_up(study, handle, records.GONE)

    def _keep_best(self, study: optuna.Study) -> None:
        """What Hydra's plugin leaves: ``optimization_results.yaml``."""
        if not any(t.state == TrialState.COMPLETE for t in study.trials):
            return
        best = study.best_trial
        content = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        OmegaConf.save(OmegaConf.create(content), self.run.folder / "optimization_results.yaml")


def _direction(config: DictConfig) -> str:
    """Where the objective is to go: where ``monitor.mode`` says.

    Raises:
        ValueError: another direction was typed.
    """
    direction = {"max": "maximize", "min": "minimize"}[config.monitor.mode]
    typed = _typed(config, "direction")
    if typed is not None and typed != direction:
        raise ValueError(
            f"hydra.sweeper.direction={typed} contradicts monitor.mode={config.monitor.mode}, by"
            " which a run tells its best checkpoint: leave it out, it follows monitor.mode"
        )
    return direction


def _typed(config: DictConfig, option: str) -> str | None:
    """The value that was typed for an option of the sweeper; None if none was."""
    start = f"hydra.sweeper.{option}="
    values = [o.removeprefix(start) for o in config.hydra.overrides.hydra if o.startswith(start)]
    return values[-1] if values else None


def _reseeded(config: DictConfig, sampler: Any, existing: int) -> Any:
    """The sampler, seeded by how many trials there are, if it has a seed.

    Raises:
        ValueError: it is one that needs to know the space beforehand.
    """
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise ValueError(
            "hydra/sweeper/sampler=grid: for a grid leave hydra/sweeper=optuna out; others are tpe,"
            " random, cmaes, nsgaii"
        )
    node = config.hydra.sweeper.sampler
    if not existing or OmegaConf.select(node, "seed") is None:
        return sampler
    return instantiate(node, seed=int(node.seed) + existing)


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", url)


def _check_space(space: Space) -> None:
    if not space:
        raise ValueError(
            "nothing varies: type what is to be searched, such as"
            " optimizer.lr='tag(log, interval(1e-4,1e-2))'"
        )
    wrong = [key for key in space if key.lstrip("+").split(".")[0] == "monitor"]
    if wrong:
        raise ValueError(f"{wrong[0]} cannot vary: it is what trials are compared by")


def _suggest(trial: optuna.trial.Trial, key: str, axis: Any) -> None:
    if isinstance(axis, Choice):
        trial.suggest_categorical(key, list(axis.values))
    elif axis.integer:
        trial.suggest_int(
            key, int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.log
        )
    else:
        trial.suggest_float(key, float(axis.low), float(axis.high), step=axis.step, log=axis.log)


def _point(trial: optuna.trial.Trial, fixed: Sequence[str]) -> Point:
    def typed(value: Any) -> str:
        if value is None:
            return "null"
        return str(value).lower() if isinstance(value, bool) else str(value)

    values = {key: typed(value) for key, value in trial.params.items()}
    overrides = (*fixed, *(f"{key}={value}" for key, value in values.items()))
    return Point(overrides, {k.lstrip("+~"): v for k, v in values.items()}, trial.number)


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial is one of the study's ``n_trials``: it ended, or somebody runs it."""
    return trial.state != TrialState.WAITING and _VOID not in trial.user_attrs


def _of_others(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that are being made by other processes, when this one makes none."""
    return [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def _say_whose(study: optuna.Study, n_trials: int) -> None:
    """Name what is left to other processes: nothing here knows what will come of it."""
    if left := _of_others(study):
        hosts = [(trial.user_attrs.get(_OWNER) or {}).get("host") for trial in left]
        names = [
            f"trial {trial.number} of the study" + (f" on {host}" if host else "")
            for trial, host in zip(left, hosts, strict=True)
        ]
        log.warning(
            "%d of %d trials are made by other processes: %s; run the same command again later, it"
            " makes others for those that died",
            *(len(left), n_trials, listed(names)),
        )


def _is_nobodys(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a running trial without an owner was left so by a kill just after it was asked for.

    One that has parameters is another program's, which shares the study.
    """
    if trial.params or trial.datetime_start is None:
        return False
    return (datetime.now() - trial.datetime_start).total_seconds() > records.SILENT_S


def _counted(study: optuna.Study) -> int:
    return sum(map(_counts, study.trials))


def _give_up(study: optuna.Study, trial: optuna.trial.Trial, reason: str) -> None:
    """End a trial that has no outcome, so that it is not one of the study's ``n_trials``."""
    with _once(study, trial):
        trial.set_user_attr(_VOID, reason)
        study.tell(trial, state=TrialState.FAIL)


@contextlib.contextmanager
def _once(study: optuna.Study, trial: optuna.trial.Trial) -> Iterator[None]:
    """Around telling of a trial, which two processes may do that find the same record."""
    try:
        yield
    except (RuntimeError, ValueError):  # by the version of Optuna
        if not study.trials[trial.number].state.is_finished():
            raise
        log.info("trial %d of the study was told of by another process", trial.number)


def _tell(study: optuna.Study, trial: optuna.trial.Trial, record: Trial) -> None:
    """What became of a trial."""
    with _once(study, trial):
        _tell_first(study, trial, record)


def _tell_first(study: optuna.Study, trial: optuna.trial.Trial, record: Trial) -> None:
    if record.reason is not None:
        trial.set_user_attr(_REASON, record.reason)
    if record.state == "complete":
        study.tell(trial, record.objective)
    elif record.state == "stopped":
        # Its objective is that of a shorter training: known to the sampler, never the best.
        assert record.objective is not None
        trial.report(record.objective, step=1)
        study.tell(trial, state=TrialState.PRUNED)
    elif record.fault == "died":
        _give_up(study, trial, record.reason or records.GONE)
    else:
        study.tell(trial, state=TrialState.FAIL)
