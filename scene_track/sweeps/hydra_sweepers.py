"""Puts our sweepers in the place of Hydra's, for this process.

Special here: Hydra takes sweepers only from a package that all Hydra programs of an environment
load. Ours are for ours alone, and are to be chosen as the field does (``--multirun``,
``hydra/sweeper=optuna``), with Hydra's options. So they are registered under the names of the two
that they stand in for.
"""

from __future__ import annotations

import logging
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scene_track.sweeps.grid import GridSweeper

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


class SearchSweeper(Sweeper):
    """Does what ``hydra/sweeper=optuna`` stands for; imports Optuna when it is asked to."""

    def __init__(self, *, sampler: Any, **options: Any) -> None:
        """Store Hydra's options for the search.

        Args:
            sampler: of Optuna.
            **options: those of ``hydra/sweeper=optuna``.
        """
        self._sampler, self._options = sampler, options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            ValueError: an option contradicts the run's monitor, or has no meaning here.
        """
        from scene_track.sweeps.launching import SweepRun
        from scene_track.sweeps.search import Search

        run = SweepRun(hydra_context=hydra_context, task_function=task_function, config=config)
        self._search = Search(run, self._sampler, self._options)

    def sweep(self, arguments: list[str]) -> None:
        """Make the trials that the study lacks."""
        self._search.sweep(arguments)


def register() -> None:
    """From here on a sweep of this process is one of trials."""
    known = Plugins.instance().class_name_to_class
    known[_BASIC] = GridSweeper
    known[_OPTUNA] = SearchSweeper
    logging.getLogger("alembic").setLevel(logging.WARNING)  # says what it loads, line by line
