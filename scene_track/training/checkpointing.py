"""Checkpoints that survive a kill at any moment and continue bit for bit.

Special here:

- A file is written beside its final name, flushed to the disk and renamed, so a reader sees the old
  one or the new one, never half of one.
- What a checkpoint says of *where* the run was is written by ``RunCheckpoint``, not taken from
  Lightning's counters: those are in the middle of something when a run is interrupted (a batch
  fetched but not trained, an accumulation half done, a validation half run). The state is always
  the one after the last optimiser step; a validation that was due and not finished is due again.
- A signal is answered between two optimiser steps, where the weights are whole, and by all
  processes after the same one, whichever was told to stop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from scene_track.config.resumed import refuse_another_run
from scene_track.io.atomic import atomic_path

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
_AGREE_EVERY = 10  # optimiser steps between two looks of several processes at each other's signals


class NonFiniteError(RuntimeError):
    """A loss or a weight is NaN or infinite; nothing of it may be saved."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file access: atomic writes, and reading that runs no code from the file."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write ``checkpoint`` to ``path`` atomically."""
        del storage_options
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read ``path`` as ``load_checkpoint`` does; the other arguments play no part."""
        del map_location, weights_only
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is torn, not a checkpoint, or holds more than plain containers and
            tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):  # the directory of a zip file is its end: a torn one has none
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
        if head.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise ValueError(
                f"{path} is a web page, not a checkpoint: download the file itself, not the page"
                " that shows it"
            )
        raise ValueError(f"{path} is torn ({size} bytes) or not a checkpoint: take another one")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch checks no sums: weights that a broken transfer changed would load in silence.
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{path} is damaged (in {broken}): take another one")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds objects other than tensors and plain containers; such a file is not"
            " opened because loading it could run code"
        ) from error
    except (RuntimeError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0].split(". ")[0]  # the rest is advice to torch's authors
        raise ValueError(f"{path} is damaged ({reason}): take another one") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, expected a checkpoint: take another one"
        )
    return content


def resolve_checkpoint(where: str | os.PathLike[str], *, prefer: Literal["best", "last"]) -> Path:
    """The checkpoint file meant by a run folder or a file name.

    Args:
        where: a ``.ckpt``/``.pth`` file, a run folder, or its ``checkpoints`` folder.
        prefer: which one of a folder; the other one is taken when it is not there.

    Raises:
        FileNotFoundError: nothing there; says where it looked.
    """
    path = Path(where).expanduser()
    if path.is_file():
        return path
    names = (BEST, LAST) if prefer == "best" else (LAST, BEST)
    candidates = [folder / name for name in names for folder in (path / FOLDER, path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} has no {FOLDER}/{names[0]}: give a run folder or a .ckpt file"
        )
    raise FileNotFoundError(f"{path} does not exist: give a run folder or a .ckpt file")


def prepare_resume(
    where: str | os.PathLike[str], module: pl.LightningModule, typed: Collection[str] = ()
) -> Path:
    """Find the checkpoint that ``resume_from=`` names and check that it continues ``module``.

    Args:
        where: a run folder (its last checkpoint) or a file.
        module: as configured now, the configuration among its hyperparameters.
        typed: keys that were typed, the only ones in which the run's settings may differ.

    Returns:
        The file, to be given to ``Trainer.fit(ckpt_path=...)``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is torn, has weights only, or belongs to another model or to a run
            with other settings (names the keys).
    """
    path = resolve_checkpoint(where, prefer="last")
    checkpoint = load_checkpoint(path)
    missing_parts = [k for k in ("state_dict", "optimizer_states", "loops") if k not in checkpoint]
    if missing_parts:
        raise ValueError(
            f"resume_from={path} has no {', '.join(missing_parts)}: it holds weights only;"
            " use init_from="
        )
    if (settings := checkpoint.get("hyper_parameters")) and module.hparams:
        refuse_another_run(settings, module.hparams, typed)
    saved, here = checkpoint["state_dict"], module.state_dict()
    shapes = [
        f"{key} {tuple(saved[key].shape)} instead of {tuple(here[key].shape)}"
        for key in here
        if key in saved and saved[key].shape != here[key].shape
    ]
    problems = (
        ("missing in it", [key for key in here if key not in saved]),
        ("unknown here", [key for key in saved if key not in here]),
        ("of another shape", shapes),
    )
    if any(keys for _, keys in problems):
        text = "; ".join(f"{name}: {_few(keys)}" for name, keys in problems if keys)
        raise ValueError(
            f"resume_from={path} is of another model: {text}. Resume with that run's"
            " configuration, or take the weights that fit with init_from="
        )
    return path


def _few(keys: list[str], most: int = 4) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


@dataclass
class _Position:
    """Where the run was after its last optimiser step.

    Attributes:
        epoch: epoch from 0.
        batches: batches of this epoch trained.
        total_batches: batches of the whole run trained.
        steps: optimiser steps of the whole run.
        last_batch: this was the epoch's last batch.
        validation: ``pending`` = due here and not finished; ``done`` = nothing is due (any more).
        epoch_done: the epoch's end has been reached.
    """

    epoch: int
    batches: int
    total_batches: int
    steps: int
    last_batch: bool
    validation: Literal["pending", "done"]
    epoch_done: bool = False


def write_position(loops: dict[str, Any], position: _Position) -> None:
    """Rewrite a checkpoint's loop counters so that Lightning 2.6.6 continues at ``position``.

    Lightning tells from the relations of four counters (ready, started, processed, completed) what
    was going on, and takes a different way for each. Three patterns are known to continue exactly:

    - *after a batch*: ``completed`` of the batches is one behind. Training continues with the next
      batch.
    - *validation pending*: all counters of the batches equal, one validation batch started and none
      processed. The whole validation runs again, then training continues.
    - *epoch done*: all counters of the batches equal, ``completed`` of the epochs one behind. The
      next epoch starts.

    Args:
        loops: ``checkpoint["loops"]["fit_loop"]``, changed in place.
        position: the run's position.
    """

    def counters(ready: int, processed: int, completed: int) -> dict[str, int]:
        return {"ready": ready, "started": ready, "processed": processed, "completed": completed}

    pending = position.validation == "pending" and not position.epoch_done
    behind = 0 if pending or position.epoch_done else 1
    for scope, count in (("total", position.total_batches), ("current", position.batches)):
        loops["epoch_loop.batch_progress"][scope] = counters(count, count, count - behind)
        epochs, done = position.epoch + 1, position.epoch + int(position.epoch_done)
        loops["epoch_progress"][scope] = counters(epochs, done, position.epoch)
        loops["epoch_loop.val_loop.batch_progress"][scope] = counters(int(pending), 0, 0)
    loops["epoch_loop.batch_progress"]["is_last_batch"] = position.last_batch
    loops["epoch_loop.val_loop.batch_progress"]["is_last_batch"] = False
    # in the first two patterns Lightning counts the step once more when it continues
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = position.steps - (
        not position.epoch_done
    )
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for event in optimizer.values():
        for scope in event.values():  # a step that was begun and not finished did not happen
            scope.update({key: scope["completed"] for key in scope})
    for loader in loops["state_dict"].get("combined_loader", []):
        if {"epoch", "batches"} <= loader.keys():
            loader.update(epoch=position.epoch, batches=position.batches)


class RunCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` of a run.

    *Last* is written every ``every_n_steps`` optimiser steps, before every validation, at every
    epoch end, and when the run is stopped by SIGTERM or Ctrl-C, or, if it is of one process, by an
    error. *Best* is written after a
    validation whose monitored value is better than all before, also before a resume.

    EMA or other weights that follow the optimiser must be updated inside ``optimizer_step``: this
    callback saves before the module's own ``on_train_batch_end``.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        monitor: str,
        mode: Literal["min", "max"],
        every_n_steps: Annotated[int, Field(ge=1)],
    ) -> None:
        """Store the settings.

        Args:
            run_dir: the run's folder; files go to its ``checkpoints``.
            monitor: name of the logged validation value that decides which one is best.
            mode: whether lower or higher is better.
            every_n_steps: optimiser steps between two writes of *last*: the most that a kill can
                lose.
        """
        self.folder = Path(run_dir) / FOLDER
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.best_model_score: float | None = None
        self.best_step: int | None = None
        self.history: list[dict[str, float]] = []
        self._position: _Position | None = None
        self._saved: tuple[int, str, bool] | None = None
        self._updating = False
        self._buffers: list[Tensor] = []
        self._versions: list[int] = []
        self.received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def best_model_path(self) -> str:
        """The best checkpoint's file, or an empty string while there is none."""
        return str(self.folder / BEST) if self.best_model_score is not None else ""

    @property
    def last_model_path(self) -> str:
        """The last checkpoint's file, or an empty string while there is none."""
        return str(self.folder / LAST) if (self.folder / LAST).is_file() else ""

    def state_dict(self) -> dict[str, Any]:
        """Position, best value and history of the monitor, as plain numbers."""
        return {
            "monitor": self.monitor,
            "best": self.best_model_score,
            "best_step": self.best_step,
            "history": list(self.history),
            "position": asdict(self._position) if self._position else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Carry the position on, and best value and history if they are of the same monitor."""
        if state_dict["position"] is not None:
            self._position = _Position(**state_dict["position"])
        if state_dict["monitor"] != self.monitor:
            log.warning(
                "the checkpoint's monitor was %s, now it is %s: the best is sought anew",
                state_dict["monitor"],
                self.monitor,
            )
            return
        self.best_model_score = state_dict["best"]
        self.best_step = state_dict["best_step"]
        self.history = list(state_dict["history"])

    # --- the way of a run
    # -------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the best checkpoint of a resumed run into this run's folder."""
        if self.best_model_score is None or trainer.ckpt_path is None:
            return
        target = self.folder / BEST
        source = Path(trainer.ckpt_path).parent / BEST
        found = next((path for path in (target, source) if self._is_best(path)), None)
        if found is None:
            log.warning(
                "%s %.4g was best, but its checkpoint is not beside %s: the best is sought anew",
                self.monitor,
                self.best_model_score,
                trainer.ckpt_path,
            )
            self.best_model_score = self.best_step = None
        elif found != target and trainer.is_global_zero:
            with atomic_path(target) as temporary:
                shutil.copyfile(found, temporary)

    def _is_best(self, path: Path) -> bool:
        return path.is_file() and load_checkpoint(path).get("global_step") == self.best_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the loader into its place; take the signals over, which wait for a step's end."""
        # Asking for ``estimated_stepping_batches`` sets the loaders up before the loops are
        # restored, and Lightning then never loads their positions: an epoch resumed in its middle
        # would start anew.
        trainer.fit_loop._load_combined_loader_states()
        self._buffers = list(pl_module.buffers())
        self._versions = [buffer._version for buffer in self._buffers]
        self.received = None
        # Lightning's handler calls the other processes from inside the signal, wherever they are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if again:
            raise self._stop_request()
        log.warning(
            "%s: finishing the step and saving; once more stops at once", self.received.name
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """From here to the end of the batch the weights may be half updated."""
        self._updating = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """After an optimiser step: note the position, save when it is time, answer signals."""
        before = self._position.steps if self._position else None
        if not self._updating and trainer.global_step == before:
            return  # gradients are being accumulated
        self._updating = False
        loop = trainer.fit_loop
        last_batch = bool(loop.epoch_loop.batch_progress.is_last_batch)
        fetcher = loop._data_fetcher
        assert fetcher is not None
        due = not trainer.should_stop and loop.epoch_loop._should_check_val_fx(fetcher)
        self._position = _Position(
            epoch=trainer.current_epoch,
            batches=batch_idx + 1,
            total_batches=loop.total_batch_idx + 1,
            steps=trainer.global_step,
            last_batch=last_batch,
            validation="pending" if due else "done",
        )
        self._versions = [buffer._version for buffer in self._buffers]
        stop = self._told_to_stop(trainer, last_batch)
        # without a validation the epoch's end, which saves, is only an instant away
        if due or stop or (trainer.global_step % self.every_n_steps == 0 and not last_batch):
            self._save_last(trainer)
        if stop:
            raise self._stop_request()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Answer signals; *last* was saved before the validation."""
        if self.received is not None and trainer.world_size == 1:  # several ask after a step
            raise self._stop_request()

    def _told_to_stop(self, trainer: pl.Trainer, last_batch: bool) -> bool:
        """Whether this process was told to stop; of several, now and then, whether any was.

        Several give the same answer: a signal that comes while they ask counts the next time.
        """
        if trainer.world_size == 1:
            return self.received is not None
        if trainer.global_step % _AGREE_EVERY and not last_batch:
            return False
        number = torch.tensor(int(self.received or 0), device=trainer.strategy.root_device)
        told = int(trainer.strategy.reduce(number, reduce_op="max"))  # one wait in ten steps
        if told:
            self.received = signal.Signals(told)
        return bool(told)

    def _stop_request(self) -> BaseException:
        return SIGTERMException() if self.received is signal.SIGTERM else KeyboardInterrupt()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the monitored value with the best and save."""
        if trainer.sanity_checking or self._position is None or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"monitor.metric={self.monitor} is not logged by the validation; there are"
                f" {', '.join(sorted(trainer.callback_metrics))}"
            )
        position = self._position
        position.validation = "done"
        position.epoch_done = position.last_batch
        # all processes must agree on what is best: saving waits for each of them
        value = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        self.history.append({"epoch": position.epoch, "step": position.steps, "value": value})
        if self._is_better(value):
            self.best_model_score, self.best_step = value, position.steps
            trainer.save_checkpoint(self.folder / BEST, weights_only=False)
            log.info("%s %.4g is the best so far", self.monitor, value)
        if not position.epoch_done:
            self._save_last(trainer)

    def _is_better(self, value: float) -> bool:
        if value != value:
            log.warning("%s is NaN: not a candidate for the best checkpoint", self.monitor)
            return False
        if self.best_model_score is None:
            return True
        better = (
            value < self.best_model_score if self.mode == "min" else value > self.best_model_score
        )
        return better

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save *last*; an epoch that was cut short (should_stop) stays unfinished in it."""
        if self._position is None:
            return
        self._position.epoch_done = self._position.last_batch
        self._save_last(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save *last* unless the weights may be half updated or not finite."""
        self._restore_handlers()
        if (
            isinstance(exception, NonFiniteError)
            or trainer.world_size > 1
            or self._position is None
        ):
            return  # one rank alone would wait for the others for ever
        # running statistics move before the weights do; saved in between they would move twice
        moved = self._versions != [buffer._version for buffer in self._buffers]
        if self._updating or (moved and not trainer.validating):
            log.warning("stopped inside a step: %s holds an earlier one", self.folder / LAST)
            return
        try:
            self._save_last(trainer)
        except Exception:  # the first error is the one to report
            log.exception("could not save %s", self.folder / LAST)

    def _save_last(self, trainer: pl.Trainer) -> None:
        position = self._position
        assert position is not None
        mark = (position.steps, position.validation, position.epoch_done)
        if mark != self._saved:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)
            self._saved = mark

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the position; make all of it plain, to be loadable with ``weights_only=True``."""
        if self._position is not None:
            write_position(checkpoint["loops"]["fit_loop"], self._position)
            checkpoint["epoch"] = self._position.epoch
        for key, value in list(checkpoint.items()):
            if key != "state_dict":
                checkpoint[key] = _plain(value)


def _plain(value: Any) -> Any:
    """Containers, numbers, strings and tensors only: a path or a config node would need code."""
    if value is None or isinstance(value, bool | Tensor):
        return value
    for kind in (
        int,
        float,
        str,
    ):  # also undoes subclasses such as numpy's float64 and string enums
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, int) else str(key): _plain(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if hasattr(value, "items") and hasattr(value, "keys"):
        return _plain(dict(value.items()))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"a checkpoint cannot hold a {type(value).__name__}: make it a plain container or number"
    )


@contextlib.contextmanager
def exit_codes(trainer: pl.Trainer) -> Iterator[None]:
    """Around ``trainer.fit``: ends the process with 143 after SIGTERM and 130 after Ctrl-C.

    Lightning ends with 0 after the first and 1 after the second, which tells a scheduler that the
    run succeeded, or failed for good.
    """
    try:
        yield
    except SIGTERMException:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            sys.exit(130)
        raise
    except RuntimeError:
        # a signal to the whole process group kills the data workers first, which is an error of the
        # loader
        keepers = [c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        if any(keeper.received is signal.SIGTERM for keeper in keepers):
            sys.exit(143)
        raise
