"""The root of the configuration: the few keys that belong to no class.

Everything else is a group, and its classes say what they accept (see ``check``). So a new dataset,
backbone or head needs no line here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, DirectoryPath, Field, FilePath


class Monitor(BaseModel):
    """What decides the best checkpoint."""

    model_config = ConfigDict(extra="forbid")

    metric: Annotated[str, Field(min_length=1)]
    mode: Literal["min", "max"]


class Viz(BaseModel):
    """Pictures drawn while training."""

    model_config = ConfigDict(extra="forbid")

    max_frames: Annotated[int, Field(ge=0)]


class RunConfig(BaseModel):
    """Root keys of ``config.yaml``; further ones must be groups (mappings)."""

    model_config = ConfigDict(extra="allow")

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    experiment_name: Annotated[str, Field(min_length=1)]
    monitor: Monitor
    viz: Viz
    resume_from: FilePath | DirectoryPath | None
    init_from: FilePath | DirectoryPath | None
    dry_run: bool
    init_parts: Annotated[list[str], Field(min_length=1)] | None
    init_partial: bool
    run_dir: Annotated[str, Field(min_length=1)]
    trusted_targets: list[str]
