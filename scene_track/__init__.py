"""scene_track: experiments in end-to-end video tracking, composed by configuration.

Importing the package imports neither torch nor Lightning; the rooms below do when a job runs, and
``scene_track.load`` when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scene_track.api import FrameTracks as FrameTracks
    from scene_track.api import Run as Run
    from scene_track.api import load as load

__version__ = "0.2.0"

_OF_API = ("FrameTracks", "Run", "load")


def __getattr__(name: str) -> Any:
    if name not in _OF_API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scene_track import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OF_API})
