"""Sweeps: trials in processes of their own that are recorded, resumed, searched for and reported.

Hydra finds sweepers only in a package that every Hydra program of the environment would load. So
``register`` puts ours in the place of Hydra's two, for this process alone.
"""


def register() -> None:
    """Make ``--multirun`` and ``hydra/sweeper=optuna`` of this process use our sweepers."""
    import logging
    from typing import Any

    from hydra.core.plugins import Plugins
    from hydra.plugins.sweeper import Sweeper

    from scene_track.sweeps.grid import GridSweeper

    def search(**options: Any) -> Sweeper:
        from scene_track.sweeps.search import SearchSweeper  # imports Optuna

        return SearchSweeper(**options)

    known: dict[str, Any] = Plugins.instance().class_name_to_class
    known["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"] = GridSweeper
    known["hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"] = search
    logging.getLogger("alembic").setLevel(logging.WARNING)  # logs a line for each migration
