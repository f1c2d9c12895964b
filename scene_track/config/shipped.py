"""Objects of a shipped option, for code that needs one that nobody has chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scene_track.config.paths import config_dir


def build_option(group: str, option: str, **changes: Any) -> Any:
    """Builds what ``conf/<group>/<option>.yaml`` describes, such as ``("tracker", "bytetrack")``.

    The values of an option have their home in its YAML alone. This is for options of one object,
    without interpolations and defaults lists.
    """
    from hydra.utils import get_object

    values = option_values(group, option)
    return get_object(values.pop("_target_"))(**(values | changes))


def option_values(group: str, option: str) -> dict[str, Any]:
    """The content of ``conf/<group>/<option>.yaml``, ``_target_`` included."""
    from omegaconf import OmegaConf

    content = OmegaConf.load(Path(config_dir()) / group / f"{option}.yaml")
    values: Any = OmegaConf.to_container(content)
    return values
