"""A run that goes on is the run that began: its own words, and no other settings unless typed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from scene_track.config.resumed import refuse_another_run, with_words_of_run
from scene_track.train import train
from tests.compose import command


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was started with a few words."""
    folder = tmp_path / "a run, it's mine"
    words = ["dataset=tracknet", "dataset.root=a b", "model/backbone=vit", "+model.backbone.x=1",
             "optimizer.lr=1e-3", "init_from=old", "sweep=small"]  # fmt: skip
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.create(words), folder / ".hydra" / "overrides.yaml")
    return folder


OF_THE_RUN = ["dataset=tracknet", "dataset.root=a b", "model/backbone=vit", "+model.backbone.x=1",
              "optimizer.lr=1e-3", "sweep=small", "hydra.mode=RUN"]  # fmt: skip


def test_a_folder_or_file_of_a_run_brings_its_words(run: Path) -> None:
    for where in (run, run / "checkpoints", run / "checkpoints" / "last.ckpt"):
        quoted = str(where).replace("'", "\\'")
        for word in (f"resume_from={where}", f"resume_from='{quoted}'"):
            assert with_words_of_run([word]) == [*OF_THE_RUN, word]
    flags = ["--cfg", "job", "seed=2", f"resume_from={run}", "viz.max_frames=0"]
    assert with_words_of_run(flags) == [*flags[:3], *OF_THE_RUN, *flags[3:]]


@pytest.mark.parametrize(
    ("typed", "gone"),
    [
        ("optimizer.lr=2", {"optimizer.lr=1e-3"}),
        ("dataset=mot", {"dataset=tracknet", "dataset.root=a b"}),
        ("model/backbone=timm", {"model/backbone=vit", "+model.backbone.x=1"}),
        ("++model.backbone.x=2", {"+model.backbone.x=1"}),
    ],
)
def test_what_is_typed_takes_the_place_of_the_runs(run: Path, typed: str, gone: set[str]) -> None:
    word = f"resume_from={run}"
    kept = [w for w in OF_THE_RUN if w not in gone]
    assert with_words_of_run([word, typed]) == [*kept, word, typed]


def test_otherwise_nothing_is_added(run: Path, tmp_path: Path) -> None:
    for words in (
        ["seed=1"],
        ["resume_from=null"],
        [f"resume_from={tmp_path}/nothing"],
        ["--multirun", f"resume_from={run}", "seed=1,2"],
    ):
        assert with_words_of_run(words) == words


SAVED = {
    "model": {"dim": 8, "parts": [1, 2]},
    "optimizer": {"lr": 0.1},
    "dataset": {"root": "a", "source": {"root": "a"}, "gap": 1},
    "trainer": {"max_epochs": 2, "gradient_clip_val": 1.0},
}


@pytest.mark.parametrize(
    ("changes", "typed", "message"),
    [
        ({"model.dim": 16}, set(), "model.dim is 16, in it 8. Type what"),
        ({"model.parts": [1]}, {"model.dim"}, r"model.parts is \[1\], in it \[1,2\]"),
        ({"model.new": None}, set(), "model.new is null, in it absent"),
        ({"trainer.gradient_clip_val": 0.1}, set(), "trainer.gradient_clip_val is 0.1, in it 1.0"),
        ({"optimizer.lr": 0.2}, set(), "optimizer.lr is 0.2, in it 0.1"),
        ({"optimizer.lr": 0.2}, {"optimizer.lr"}, "goes on with the checkpoint's optimiser"),
        ({"optimizer.lr": 0.2}, {"optimizer"}, "goes on with the checkpoint's optimiser"),
    ],
)
def test_other_settings_are_refused(changes: dict, typed: set[str], message: str) -> None:
    here = OmegaConf.create({**SAVED, "resume_from": "/runs/a"})
    for key, value in changes.items():
        OmegaConf.update(here, key, value, force_add=True)
    plain = OmegaConf.to_container(here)
    assert isinstance(plain, dict)
    with pytest.raises(ValueError, match=message):
        refuse_another_run(SAVED, plain, typed)  # type: ignore[arg-type]


def test_what_may_change(caplog: pytest.LogCaptureFixture) -> None:
    moved = {"root": "b", "source": {"root": "b"}, "gap": 3}
    longer = {"max_epochs": 9, "gradient_clip_val": 1}
    here = {**SAVED, "resume_from": "/runs/a", "dataset": moved, "trainer": longer}
    with caplog.at_level(logging.WARNING):
        refuse_another_run(SAVED, here, {"dataset.gap"})
    assert caplog.messages == ["dataset.gap is 3 from here on; it was 1"]


def test_the_command_line_of_a_run_is_repeated(run_folder: Path, tmp_path: Path) -> None:
    words = ["--cfg", "job", f"resume_from={run_folder}", "trainer.max_epochs=3"]
    done = command("train", words, tmp_path)
    assert done.returncode == 0, done.stderr
    saved, here = OmegaConf.load(run_folder / "config.yaml"), OmegaConf.create(done.stdout)
    assert here.model.dim == saved.model.dim
    assert here.dataset.source.frames == saved.dataset.source.frames
    assert (here.trainer.max_epochs, saved.trainer.max_epochs) == (3, 2)


def test_a_run_is_not_continued_as_another(
    run_folder: Path, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Without its words, as beside a checkpoint that was copied somewhere."""
    words = list(OmegaConf.load(run_folder / ".hydra" / "overrides.yaml"))
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes((run_folder / "checkpoints" / "last.ckpt").read_bytes())
    cfg = composed("config", *words, "denoiser.lambda_dn=0.5", f"resume_from={bare}")
    cfg.denoiser.lambda_dn = 0.25  # as if a default had changed that nobody typed
    cfg.head.criterion.weight_l1 = 7.0
    cfg.run_dir = str(tmp_path)
    with pytest.raises(ValueError, match=r"weight_l1 is 7.0, in it 5.0\. Type what that run"):
        train(cfg)


@pytest.mark.parametrize("content", ["- [", "a: 1", "- {a: 1}", "- 1", "\x00"])
def test_the_words_of_a_run_that_are_damaged_are_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / ".hydra" / "overrides.yaml"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match="overrides.yaml") as caught:
        with_words_of_run([f"resume_from={tmp_path}"])
    assert "\n" not in str(caught.value)
