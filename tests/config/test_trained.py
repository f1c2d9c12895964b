"""What is typed beside a checkpoint, and configurations that no longer fit."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from scene_track.config.shipped import option_values
from scene_track.config.trained import checked_group, with_typed
from tests.compose import compose_run

TRAINED = {
    "dataset": {
        "_target_": "scene_track.data.module.TrackingDataModule",
        "root": "old",
        "source": {"_target_": "scene_track.data.video.MotFolder", "root": "old"},
        "size": [448, 800],
    },
    "tracker": {
        "_target_": "scene_track.tracking.streaming.IdentityTracker",
        "birth": 0.5,
        "accept": 0.4,
    },
}


def merged(group: str, *overrides: str) -> dict:
    typed = compose_run(overrides, "evaluate")
    trained = OmegaConf.create(TRAINED)
    found = with_typed(trained, typed, overrides, group)
    assert trained == OmegaConf.create(TRAINED)
    return OmegaConf.to_container(found)[group]  # type: ignore[index, call-overload]


def test_without_a_word_everything_is_as_trained() -> None:
    assert merged("dataset") == TRAINED["dataset"]
    assert merged("tracker", "dataset.root=new") == TRAINED["tracker"]


def test_a_key_changes_itself_and_what_is_interpolated_from_it() -> None:
    found = merged("dataset", "dataset.root=new")
    assert found["root"] == "new" and found["source"]["root"] == "new"
    # Synthetic dance, the default group, has another source and another size.
    assert found["source"]["_target_"].endswith("MotFolder") and found["size"] == [448, 800]
    assert merged("tracker", "tracker.birth=0.7") == TRAINED["tracker"] | {"birth": 0.7}
    assert merged("tracker", "tracker.lookahead=3")["lookahead"] == 3


def test_a_group_replaces_the_whole() -> None:
    found = merged("dataset", "dataset=dancetrack", "dataset.root=new")
    assert found["source"] == {
        "_target_": "scene_track.data.video.MotFolder",
        "root": "new",
        "classes": {1: "dancer"},
    }
    assert merged("tracker", "tracker=identity")["birth"] == 0.85


def test_a_group_that_does_not_fit_is_told_with_its_source() -> None:
    cfg = OmegaConf.create(TRAINED | {"tracker": option_values("tracker", "identity")})
    assert isinstance(cfg, DictConfig)
    assert checked_group(cfg, "tracker", source="x.ckpt", trusted=()) == cfg.tracker
    cfg.tracker.gone, cfg.tracker.birth = 1, 2
    with pytest.raises(ValueError, match=r"x.ckpt: tracker.birth=2: .*; and 1 more; type tracker="):
        checked_group(cfg, "tracker", source="x.ckpt", trusted=())
    with pytest.raises(ValueError, match="x.ckpt has no configuration of model"):
        checked_group(cfg, "model", source="x.ckpt", trusted=())
    cfg.tracker = {"_target_": "mine.Tracker"}
    with pytest.raises(ValueError, match="must start with scene_track.*trusted_targets="):
        checked_group(cfg, "tracker", source="x.ckpt", trusted=())
