"""Resume: a run stopped anywhere ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from scene_track.training.checkpointing import BEST, FOLDER, LAST, load_checkpoint
from scene_track.training.run_checkpoint import NonFiniteError

Hard = type("Hard", (NonFiniteError,), {"__doc__": "Nothing is saved for it: as a kill -9."})


def last(run: Path) -> Path:
    return run / FOLDER / LAST


def assert_same_end(whole: Path, resumed: Path) -> None:
    """Both runs' last checkpoints agree in weights, optimiser, schedule, counters and history."""
    left, right = load_checkpoint(last(whole)), load_checkpoint(last(resumed))
    for checkpoint in (left, right):
        for state in checkpoint["callbacks"].values():
            state.pop("wall_s", None)
        # the validation loop's tallies differ where a validation was repeated
        checkpoint["loops"] = {
            key: checkpoint["loops"]["fit_loop"][key]
            for key in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict")
        }
    assert_same(left, right, "checkpoint")


def assert_same(left: Any, right: Any, where: str) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert left == right, where


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "validated inside the epoch": {"val_check_interval": 3},
    "validated every second epoch": {"check_val_every_n_epoch": 2},
    "short epochs": {"limit_train_batches": 5},
    "bf16": {"precision": "bf16-mixed"},
}

# (hook, epoch, batch) of the stop, and whether the run still gets to save
STOPS = {
    "first epoch": ("on_train_batch_start", 0, 4, ValueError("an error")),
    "between batches": ("on_train_batch_start", 1, 3, ValueError("an error")),
    "in a step": ("on_before_backward", 1, 3, ValueError("an error")),
    "killed": ("on_before_backward", 1, 4, Hard()),
    "killed in the last batch": ("on_train_batch_start", 1, 4, Hard()),
    "after an update": ("on_train_batch_end", 1, 3, ValueError("an error")),
    "killed in validation": ("on_validation_batch_start", 1, 1, Hard()),
    "error in validation": ("on_validation_batch_start", 1, 0, ValueError("an error")),
    "at an epoch's end": ("on_train_epoch_start", 2, 6, Hard()),
}


@pytest.fixture(scope="module")
def whole(tiny: Any, tmp_path_factory: pytest.TempPathFactory):
    """The uninterrupted runs, each made once."""
    made: dict[str, tuple[Path, Any]] = {}

    def run(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[name] = folder, tiny.fit(folder, every_n_steps=2, **SETTINGS[name])
        return made[name]

    return run


def stop_and_resume(tiny: Any, run: Path, stop: tuple, **settings: Any):
    hook, epoch, batch, error = stop
    with pytest.raises(type(error)):
        tiny.fit(run, extra=[tiny.Stop(hook, epoch, batch, error)], **settings)
    return tiny.fit(run, resume=last(run), **settings)


@pytest.mark.parametrize(
    ("name", "stop"),
    [("plain", stop) for stop in STOPS]
    + [("accumulated", stop) for stop in ("between batches", "in a step", "after an update")],
)
def test_any_stop(tiny: Any, whole: Any, tmp_path: Path, name: str, stop: str) -> None:
    folder, module = whole(name)
    settings = {"every_n_steps": 2, **SETTINGS[name]}
    resumed = stop_and_resume(tiny, tmp_path, STOPS[stop], **settings)
    assert_same_end(folder, tmp_path)
    assert module.seen[-len(resumed.seen) :] == resumed.seen
    assert (folder / "metrics.csv").read_text() == (tmp_path / "metrics.csv").read_text()


@pytest.mark.parametrize("stop", ["in a step", "killed in validation"])
@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if name not in ("plain", "accumulated")]
)
def test_any_setting(tiny: Any, whole: Any, tmp_path: Path, name: str, stop: str) -> None:
    settings = {"every_n_steps": 2, **SETTINGS[name]}
    stop_and_resume(tiny, tmp_path, STOPS[stop], **settings)
    assert_same_end(whole(name)[0], tmp_path)


@pytest.mark.parametrize(
    "stop", ["in a step", "after an update", "killed in validation", "error in validation"]
)
def test_with_averaged_weights(tiny: Any, tmp_path: Path, stop: str) -> None:
    """Lightning's callback puts the average in the place of the weights while it validates."""

    def go(run: Path, *more: Any, resume: Path | None = None) -> Any:
        extra = [EMAWeightAveraging(decay=0.9), *more]
        return tiny.fit(run, extra=extra, every_n_steps=2, resume=resume)

    go(tmp_path / "whole")
    hook, epoch, batch, error = STOPS[stop]
    with pytest.raises(type(error)):
        go(tmp_path / "cut", tiny.Stop(hook, epoch, batch, error))
    go(tmp_path / "cut", resume=last(tmp_path / "cut"))
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    saved, weight = load_checkpoint(last(tmp_path / "whole")), "model.head.weight"
    assert not torch.equal(saved["state_dict"][weight], saved["current_model_state"][weight])


def test_what_was_scored_is_what_is_saved(tiny: Any, tmp_path: Path) -> None:
    class Scored(tiny.TinyModule):
        def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
            seen.append(self.model.head.weight.detach().clone())
            super().validation_step(batch, batch_idx)

    seen: list[torch.Tensor] = []
    module = Scored(scores=[0.1, 0.3, 0.2])
    tiny.fit(tmp_path, module=module, extra=[EMAWeightAveraging(decay=0.9)])
    best = load_checkpoint(tmp_path / FOLDER / BEST)
    assert torch.equal(best["state_dict"]["model.head.weight"], seen[2])  # of two batches each


def test_with_a_worker_that_reads_ahead(tiny: Any, whole: Any, tmp_path: Path) -> None:
    stop_and_resume(tiny, tmp_path, STOPS["in a step"], num_workers=1, every_n_steps=2)
    assert_same_end(whole("plain")[0], tmp_path)


def test_stopped_twice(tiny: Any, whole: Any, tmp_path: Path) -> None:
    for batch, resume in ((4, None), (6, last(tmp_path))):
        with pytest.raises(ValueError, match="an error"):
            stop = tiny.Stop("on_before_backward", 0, batch, ValueError("an error"))
            tiny.fit(tmp_path, resume=resume, extra=[stop], every_n_steps=2)
    tiny.fit(tmp_path, resume=last(tmp_path), every_n_steps=2)
    assert_same_end(whole("plain")[0], tmp_path)


def test_a_step_limit_is_no_end(tiny: Any, whole: Any, tmp_path: Path) -> None:
    """A run ended by max_steps inside an epoch validates, and continues with a higher limit."""
    tiny.fit(tmp_path, max_steps=10, module=(first := tiny.TinyModule()))
    assert len(first.seen) == 10
    assert load_checkpoint(last(tmp_path))["global_step"] == 10
    assert "11," not in (tmp_path / "metrics.csv").read_text().splitlines()[-1]
    resumed = tiny.fit(tmp_path, resume=last(tmp_path))
    assert whole("plain")[1].seen == first.seen + resumed.seen


def test_best_goes_along_into_a_new_folder(tiny: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(ValueError):
        tiny.fit(old, extra=[tiny.Stop("on_before_backward", 2, 5, ValueError())])
    before = load_checkpoint(last(old))["callbacks"]
    state = next(s for key, s in before.items() if "RunCheckpoint" in key)
    assert len(state["history"]) == 2

    tiny.fit(new, resume=last(old), module=tiny.TinyModule(scores=[0.0] * 3))
    after = load_checkpoint(last(new))["callbacks"]
    carried = next(s for key, s in after.items() if "RunCheckpoint" in key)
    assert carried["best"] == state["best"]
    assert carried["history"][:2] == state["history"]
    assert carried["history"][2]["value"] == 0.0
    copied = load_checkpoint(new / FOLDER / BEST)
    assert_same(copied["state_dict"], load_checkpoint(old / FOLDER / BEST)["state_dict"], "best")


def test_resume_from_best_trains_the_next_epoch(tiny: Any, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        tiny.fit(tmp_path, extra=[tiny.Stop("on_before_backward", 1, 2, ValueError())])
    resumed = tiny.fit(tmp_path / "new", resume=tmp_path / FOLDER / BEST)
    assert [epoch for epoch, _ in resumed.seen] == [1] * 7 + [2] * 7
    assert_same(
        load_checkpoint(last(whole("plain")[0]))["state_dict"],
        load_checkpoint(last(tmp_path / "new"))["state_dict"],
        "weights",
    )
