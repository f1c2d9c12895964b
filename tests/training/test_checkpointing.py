"""Checkpoint files: whole or not there, plain, refused with one clear line; and what signals do."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from scene_track.training.checkpointing import (
    BEST,
    FOLDER,
    LAST,
    AtomicCheckpointIO,
    load_checkpoint,
    prepare_resume,
    resolve_checkpoint,
)
from scene_track.training.run_checkpoint import exit_codes


def folders(run: Path) -> list[str]:
    return sorted(path.name for path in (run / FOLDER).iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"value": torch.ones(3)}, path)

    def torn(content: Any, target: BinaryIO) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises(KeyboardInterrupt):
            io.save_checkpoint({"value": torch.zeros(3)}, path)
    assert torch.equal(io.load_checkpoint(path)["value"], torch.ones(3))
    assert os.listdir(path.parent) == ["last.ckpt"], "no temporary file stays"


def test_bad_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {"w": torch.ones(10_000)}}, path)
    whole = path.read_bytes()
    for length in (0, 10, 300, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.ckpt is torn"):
            load_checkpoint(path)
    path.write_bytes(whole[:20_000] + bytes(9000) + whole[29_000:])
    with pytest.raises(ValueError, match="is damaged .*: take another one"):
        load_checkpoint(path)
    for text, message in (
        ("hello, I am no checkpoint", "not a checkpoint"),
        ("\n<!DOCTYPE html>\n<html>Not found</html>", "is a web page, not a checkpoint"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path)
    for content, message in (
        ({"state_dict": {}, "path": Path("x")}, "loading it could run code"),
        ([1, 2], "holds a list, expected a checkpoint"),
        ({"state_dict": {"b": torch.tensor((1, float("nan")))}}, "NaN or infinity in 1 of .* is b"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_where_a_checkpoint_is_looked_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / FOLDER).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"has no {FOLDER}/{LAST}"):
        resolve_checkpoint(run, prefer="last")
    (run / FOLDER / BEST).touch()
    assert resolve_checkpoint(run, prefer="last").name == BEST, (
        "the other one, if it is all there is"
    )
    (run / FOLDER / LAST).touch()
    assert resolve_checkpoint(run, prefer="last").name == LAST
    assert resolve_checkpoint(run / FOLDER, prefer="best").name == BEST
    assert resolve_checkpoint(run / FOLDER / LAST, prefer="best").name == LAST
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        resolve_checkpoint(tmp_path / "nowhere", prefer="last")


def test_another_models_checkpoint_is_refused_by_name(tiny: Any, tmp_path: Path) -> None:
    tiny.fit(tmp_path, max_epochs=1)
    module = tiny.TinyModule()
    assert prepare_resume(tmp_path, module) == tmp_path / FOLDER / LAST
    module.extra = nn.Linear(1, 1)
    module.model.head = nn.Linear(4, 2)
    module.model.backbone.norm = nn.Identity()
    with pytest.raises(ValueError) as caught:
        prepare_resume(tmp_path, module)
    message = str(caught.value)
    assert "\n" not in message
    assert "2 missing (extra.weight, extra.bias)" in message
    assert "5 unexpected (model.backbone.norm.weight" in message
    assert "model.head.weight (1, 4) instead of (2, 4)" in message
    bare = tmp_path / "bare.ckpt"
    torch.save({"state_dict": {}}, bare)
    with pytest.raises(ValueError, match="holds weights only; use init_from="):
        prepare_resume(bare, module)


def test_files_of_a_run_are_plain(tiny: Any, tmp_path: Path) -> None:
    """Also with hyper-parameters and callback states that are not: they become so, or are named."""
    module = tiny.TinyModule()
    module.save_hyperparameters({"lr": np.float64(0.1), "where": Path("x"), "sizes": [1, (2, 3)]})
    tiny.fit(tmp_path, module=module, max_epochs=1)
    assert folders(tmp_path) == [BEST, LAST]
    parameters = load_checkpoint(tmp_path / FOLDER / LAST)["hyper_parameters"]
    assert parameters == {"lr": 0.1, "where": "x", "sizes": [1, (2, 3)]}
    assert type(parameters["lr"]) is float
    module.save_hyperparameters({"odd": object()})
    with pytest.raises(TypeError, match="cannot hold a object"):
        tiny.fit(tmp_path, module=module, max_epochs=1)


@pytest.mark.parametrize(
    ("values", "mode", "best_epoch"),
    [
        ([0.1, 0.3, 0.2], "max", 1),
        ([0.3, 0.3, 0.3], "max", 0),
        ([float("nan"), 0.1, float("nan")], "max", 1),
        ([0.2, 0.1, 0.3], "min", 1),
    ],
)
def test_best_is_the_first_of_the_best(
    tiny: Any, tmp_path: Path, values: list[float], mode: Any, best_epoch: int
) -> None:
    tiny.fit(
        tmp_path, callbacks=[keeper(tiny, tmp_path, mode)], module=tiny.TinyModule(scores=values)
    )
    best = load_checkpoint(tmp_path / FOLDER / BEST)
    assert (best["epoch"], best["global_step"]) == (best_epoch, 7 * (best_epoch + 1))
    assert load_checkpoint(tmp_path / FOLDER / LAST)["global_step"] == 21


def keeper(tiny: Any, run: Path, mode: Any = "max", monitor: str = "val/hota") -> Any:
    return tiny.RunCheckpoint(run_dir=str(run), monitor=monitor, mode=mode, every_n_steps=5)


def test_an_unlogged_monitor_is_named(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"val/hotta is not logged.*val/hota"):
        tiny.fit(tmp_path, callbacks=[keeper(tiny, tmp_path, monitor="val/hotta")])


def test_last_is_never_older_than_promised(tiny: Any, tmp_path: Path) -> None:
    steps: list[int] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            path = tmp_path / FOLDER / LAST
            saved = load_checkpoint(path)["global_step"] if path.is_file() else 0
            steps.append(trainer.global_step - saved)

    tiny.fit(tmp_path, every_n_steps=3, extra=[Look()])
    assert len(steps) == 21
    assert max(steps) == 2
    assert steps[7] == steps[14] == 0, "saved at every epoch's end"


def code_of(trainer: pl.Trainer, module: pl.LightningModule, tiny: Any) -> Any:
    """The exit code of a run that is ended from outside."""
    with pytest.raises(SystemExit) as ended, exit_codes(trainer):
        trainer.fit(module, *tiny.loaders())
    return ended.value.code


class Send(pl.Callback):
    """Sends this process a signal in a hook, once."""

    def __init__(self, hook: str, number: signal.Signals, epoch: int = 0, batch: int = 3) -> None:
        self.at, self.number, self.sent = (epoch, batch), number, False
        self.after = 0
        setattr(self, hook, self._strike)

    def _strike(self, trainer, module, *rest: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == self.at and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
@pytest.mark.parametrize(
    ("hook", "steps"),
    [("on_before_backward", 4), ("on_before_optimizer_step", 4), ("on_validation_batch_start", 7)],
)
def test_a_signal_finishes_the_step_saves_and_says_so(
    tiny: Any, tmp_path: Path, number: signal.Signals, code: int, hook: str, steps: int
) -> None:
    before = signal.getsignal(number)
    sender = Send(hook, number, batch=6 if "validation" in hook else 3)
    trainer = tiny.trainer(tmp_path, extra=[sender])
    tiny.seed_everything(1)
    module = tiny.TinyModule()
    assert code_of(trainer, module, tiny) == code
    assert len(module.seen) == steps, "the step is finished, no other begun"
    assert load_checkpoint(tmp_path / FOLDER / LAST)["global_step"] == steps
    assert signal.getsignal(number) == before, "the signal is given back"
    whole = tiny.fit(tmp_path / "whole")
    resumed = tiny.fit(tmp_path, resume=tmp_path / FOLDER / LAST)
    assert module.seen + resumed.seen == whole.seen
    for left, right in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_signal_between_accumulated_batches_waits_for_the_step(tiny: Any, tmp_path: Path) -> None:
    sender = Send("on_before_backward", signal.SIGTERM, batch=2)
    trainer = tiny.trainer(tmp_path, extra=[sender], accumulate_grad_batches=2)
    assert code_of(trainer, module := tiny.TinyModule(), tiny) == 143
    assert len(module.seen) == 4


def test_a_second_signal_stops_at_once(tiny: Any, tmp_path: Path) -> None:
    class Impatient(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    trainer = tiny.trainer(tmp_path, extra=[Impatient()], every_n_steps=3)
    assert code_of(trainer, tiny.TinyModule(), tiny) == 130
    assert load_checkpoint(tmp_path / FOLDER / LAST)["global_step"] == 3, "nothing half updated"


def test_other_exits_pass_through() -> None:
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[])
    with pytest.raises(SystemExit) as ended, exit_codes(trainer):
        raise SystemExit(7)
    assert ended.value.code == 7
    with pytest.raises(RuntimeError, match="boom"), exit_codes(trainer):
        raise RuntimeError("boom")
