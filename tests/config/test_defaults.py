"""One home for a default: what the shipped YAML states of a class has no default in the class."""

from __future__ import annotations

import inspect

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from scene_track.config.paths import config_dir
from scene_track.config.signature import read_signature
from scene_track.config.tree import walk
from tests.config.test_shipped import COMPOSITIONS


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=lambda words: words[-1])
def test_a_value_of_the_yaml_has_no_default_in_the_class(overrides: list[str]) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    doubled: set[str] = set()
    for _, node in walk(OmegaConf.to_container(cfg, resolve=False)):
        if not isinstance(node, dict) or not str(node.get("_target_")).startswith("scene_track."):
            continue
        parameters = read_signature(node["_target_"]).parameters
        doubled |= {
            f"{node['_target_']}: {name}"
            for name in node.keys() & parameters.keys()
            if parameters[name].default is not inspect.Parameter.empty
        }
    assert sorted(doubled) == []
