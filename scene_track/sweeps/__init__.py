"""Sweeps: trials in processes of their own that are recorded, resumed, searched for and reported.

Hydra finds sweepers only in a package that every Hydra program of the environment would load. So
``register`` puts ours in the place of Hydra's two, for this process alone.
"""

from __future__ import annotations

import logging
from typing import Any


def register() -> None:
    """Make ``--multirun`` and ``hydra/sweeper=optuna`` of this process use our sweepers."""
    from hydra.core.plugins import Plugins

    from scene_track.sweeps.sweeper import GridSweeper

    known: dict[str, Any] = Plugins.instance().class_name_to_class
    known["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"] = GridSweeper
    known["hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"] = _search
    logging.getLogger("alembic").setLevel(logging.WARNING)  # logs a line for each migration


def _search(**options: Any) -> Any:
    from scene_track.sweeps.search import SearchSweeper  # imports Optuna

    return SearchSweeper(**options)
