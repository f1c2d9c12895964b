"""The shipped configuration: every option passes the check, and mistakes in it are found."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from scene_track.config.check import ConfigError, check
from scene_track.config.help import _comment
from scene_track.config.paths import config_dir
from tests.compose import OF_A_BALL, OF_BOXES

_FILES = sorted(Path(config_dir()).rglob("[!_]*.yaml"))
_OPTIONS = [
    (file.parent.relative_to(config_dir()).as_posix(), file.stem)
    for file in _FILES
    if file.parent != Path(config_dir())
]
COMPOSITIONS = [  # overrides that choose each option, with a dataset that it goes with
    [
        *(["dataset=tracknet"] if option in OF_A_BALL.get(group, ()) else []),
        *(["input=boxes"] if option in OF_BOXES.get(group, ()) else []),
        f"{group}={option}",
    ]
    for group, option in _OPTIONS
    if group != "sweep"
]
_SWEEPS = [option for group, option in _OPTIONS if group == "sweep"]
# What a person has to bring: footage and weights.
_BRING = (
    "dataset.root",
    "dataset.train",
    "dataset.val",
    "dataset.source.parts.videos.train",
    "dataset.source.parts.videos.val",
    "dataset.source.parts.stills.source.root",
    "model.backbone.weights",
    "model.backbone.freeze=false: must be True",  # head=detreg, with a backbone of one's own
    "model.backbone.name",
)


@pytest.fixture(autouse=True, scope="module")
def hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        yield


@cache
def _composed(*overrides: str) -> DictConfig:
    return compose("config", overrides=list(overrides))


def _faults(*overrides: str, **changes: Any) -> list[str]:
    """What the check says of a composed configuration with some values changed."""
    cfg = _composed(*overrides)
    if changes:
        cfg = copy.deepcopy(cfg)
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, force_add=True)
    try:
        check(cfg)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def test_the_bare_command_is_fine() -> None:
    assert _faults() == []


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=lambda words: words[-1])
def test_every_option_passes_but_for_what_a_person_brings(overrides: list[str]) -> None:
    lines = [line for line in _faults(*overrides) if not line.startswith(_BRING)]
    assert lines == []


@pytest.mark.parametrize("option", [option for group, option in _OPTIONS if group == "debug"])
def test_every_debug_option_goes_with_a_ball(option: str) -> None:
    faults = _faults("dataset=tracknet", f"debug={option}")
    assert [line for line in faults if not line.startswith(_BRING)] == []


@pytest.mark.parametrize("file", _FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_file_opens_with_what_it_is(file: Path) -> None:
    assert len(_comment(file)) > 5  # --help shows it


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("optimizer.lr", "abc", "=abc: must be a valid number"),
        ("trainer.max_epoch", 3, ": unknown key; did you mean trainer.max_epochs"),
        ("model.backbone.freez", True, ": unknown key; did you mean model.backbone.freeze"),
        ("dataset.size", [100, 224], "=[100,224]: height and width must be multiples of 16"),
        ("dataset.augment.crop", [180, 320], "=[180,320]: height and width must be multiples of"),
        ("dataset.detections", "noise", "=noise: SceneModel reads images"),
        ("dataset.further", [{"root": "/"}, {}], "[1].root: is required"),
        ("dataset.further", "sportsmot", "=sportsmot: must be a valid array"),
        ("model.dim", 56, "=56: must be a multiple of"),  # what its group norm cannot divide
        ("monitor.metric", "val/hotta", "=val/hotta: SceneEvaluator does not log it; did you mean"),
        ("monitor.mode", "best", "=best: must be 'min' or 'max'"),
        ("resume_from", "/no/such/run", "=/no/such/run: path does not point to a file or path"),
        ("model.backbone._target_", "os.system", "=os.system: must start with scene_track."),
    ],
)
def test_a_mistake_is_one_line(key: str, value: Any, line: str) -> None:
    (found,) = _faults(**{key: value})
    assert found.startswith(key + line)


def test_a_figure_that_an_evaluator_inherits_can_be_monitored() -> None:
    assert _faults("head=scene3d", "monitor.metric=val/ap50_nms") == []
    assert _faults("head=scene3d", "monitor.metric=val/xyz_error") == []


def test_weights_that_are_not_there_are_never_replaced_by_random_ones() -> None:
    (line,) = _faults("model/backbone=dinov3_vits16", "model.backbone.weights=/no/such.pth")
    assert line.startswith("model.backbone.weights=/no/such.pth: path does not point to a file")
    assert "accept the licence at https://ai.meta.com/" in line


def test_choosing_a_dataset_brings_its_defaults_and_each_can_be_overridden() -> None:
    def composed(*overrides: str) -> DictConfig:
        return compose("config", overrides=["dataset=dancetrack", *overrides])

    chosen = composed("model.backbone.freeze=true")
    assert chosen.model.backbone._target_.endswith("dinov3.DinoV3")
    assert chosen.model.backbone.freeze is True
    assert list(chosen.dataset.size) == [448, 800]
    quick = compose("config")
    assert chosen.optimizer.lr != quick.optimizer.lr
    assert composed("recipe=quick").optimizer.lr == quick.optimizer.lr
    assert composed("optimizer.lr=0.5").optimizer.lr == 0.5
    assert composed("model/backbone=hybrid_tiny").model.backbone == quick.model.backbone
    assert list(composed("dataset.size=[224,400]").dataset.size) == [224, 400]


@pytest.mark.parametrize("sweep", _SWEEPS)
def test_the_jobs_of_a_sweep_pass(sweep: str) -> None:
    cfg = compose("config", overrides=[f"sweep={sweep}"], return_hydra_config=True)
    assert str(cfg.hydra.mode).endswith("MULTIRUN")
    parser = OverridesParser.create()
    for key, values in OmegaConf.to_container(cfg.hydra.sweeper.params).items():  # type: ignore
        override = parser.parse_override(f"{key}={values}")
        if override.is_choice_sweep():
            options = [str(value) for value in override.sweep_string_iterator()]
        else:
            interval = override.value()
            options = [str(interval.start), str(interval.end)]  # type: ignore[union-attr]
        if (Path(config_dir()) / str(key)).is_dir():  # a group: an option is a file, not a value
            assert all(_faults(f"{key}={option}") == [] for option in options)
            continue
        for option in (options[0], options[-1]):
            assert _faults(**{str(key): yaml.safe_load(option)}) == []


def test_the_folder_of_a_sweep_is_known_before_its_jobs() -> None:
    # The ${hydra:...} resolver answers only inside a job; the sweep's folder is read outside.
    cfg = compose("config", return_hydra_config=True)
    assert cfg.hydra.sweep.dir.startswith("outputs/sweeps/")
