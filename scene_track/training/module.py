"""The one LightningModule: whatever the dataset, the model and the head.

It moves batches through model, criterion and evaluator, and owns nothing of their meaning. What is
special:

* **Normalisation that adds up.** Losses are sums divided by the number of objects. Under gradient
  accumulation the mean of the micro-batches' ratios is not the ratio of the whole, so each
  micro-batch is weighted by its own count and the gradients are divided by the total before they
  are clipped.
* **Streaming validation.** Validation windows come in the order of the video; what one leaves
  behind (``ModelState``) goes into the next of the same sequence, so the metric is that of a whole
  video.
* **Validation by several processes.** Each streams whole sequences, so their numbers of windows
  differ and nothing may be exchanged on the way. Losses, like counts, are kept as sums and gathered
  once, at the end.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scene_track.data.batch import SceneBatch
from scene_track.models.clip_model import ClipModel, ModelState
from scene_track.objectives.processes import mean_over_processes
from scene_track.tracking.evaluation import Evaluator, gather_parts
from scene_track.tracking.inference import StreamState
from scene_track.training.feature_caching import FeatureCache
from scene_track.training.run_length import total_steps

logger = logging.getLogger(__name__)


class TrackingModule(pl.LightningModule):
    """Training and validation of any model, head and criterion."""

    def __init__(
        self,
        *,
        model: ClipModel,
        criterion: nn.Module,
        evaluator: Evaluator,
        denoiser: nn.Module | None = None,
        optimizer: Any = None,
        scheduler: Any = None,
        hyper_parameters: dict[str, Any] | None = None,
    ) -> None:
        """Assemble the module.

        Args:
            model: frames to predictions.
            criterion: predictions and batch to losses.
            evaluator: predictions of whole sequences to metrics.
            denoiser: makes denoising queries; None trains without.
            optimizer: callable that takes this module and returns an optimiser.
            scheduler: callable that takes the optimiser and ``total_steps``; None keeps the rate.
            hyper_parameters: the resolved configuration as plain containers, stored in checkpoints.
        """
        super().__init__()
        self.model, self.criterion, self.denoiser = model, criterion, denoiser
        self.evaluator = evaluator
        self.feature_cache: FeatureCache | None = None  # set by ``FeatureCaching``
        self._optimizer, self._scheduler = optimizer, scheduler
        self._stream = StreamState()
        self._loss_sums: dict[str, Tensor] = {}
        self._windows = 0
        self.picture: NDArray[np.uint8] | None = None  # of the last validation, in one process
        self._window_first: Tensor | None = None
        self._window_total: Tensor | None = None
        if hyper_parameters is not None:
            self.save_hyperparameters(hyper_parameters)

    @property
    def lambda_dn(self) -> float:
        """Weight of the denoising losses; 0 without a denoiser."""
        return 0.0 if self.denoiser is None else float(self.denoiser.lambda_dn)  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Batches are laid out for the convolutions of the device."""
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(self, batch: SceneBatch, *, state: ModelState | None = None, denoise: bool) -> Any:
        """Predictions, losses by name, and the state after the batch.

        In training the model may want gradient for a part of each clip alone
        (``ClipModel.gradient_frames``). The frames around it are predicted without gradient, as a
        video is streamed, and the criterion is given the whole clip besides.
        """
        if self.training and batch.num_frames is not None:
            batch = batch.between(0, batch.num_frames)  # what is padding in every clip
        length = batch.padding_mask.shape[1]
        part = self.model.gradient_frames(length) if self.training else range(length)
        if len(part) == length:
            predictions, state = self._predict(batch, state, denoise=denoise)
            return predictions, self._criterion(predictions, batch, None), state
        trained, parts = batch.between(part.start, part.stop), []
        if part.start:
            with torch.no_grad():
                earlier, state = self._predict(batch.between(0, part.start), state)
            parts.append(earlier)
        predictions, state = self._predict(trained, state, denoise=denoise)
        parts.append(predictions)
        if part.stop < length:
            with torch.no_grad():
                later, state = self._predict(batch.between(part.stop, length), state.detach())
            parts.append(later)
        clip = (self.model.join(parts), batch, part.start)
        return predictions, self._criterion(predictions, trained, clip), state

    def _criterion(
        self,
        predictions: Any,
        batch: SceneBatch,
        clip: tuple[Any, SceneBatch, int] | None,
    ) -> dict[str, Tensor]:
        """The losses, in float32, also inside autocast."""
        with torch.autocast(batch.frames.device.type, enabled=False):
            return self.criterion(
                predictions, batch, model=self.model, lambda_dn=self.lambda_dn, clip=clip
            )

    def _predict(
        self, batch: SceneBatch, state: ModelState | None, *, denoise: bool = False
    ) -> tuple[Any, ModelState]:
        """The model's answer to a batch, and the state after it."""
        queries = None
        if denoise and self.denoiser is not None and self.lambda_dn > 0:
            queries = self.denoiser(
                batch.boxes.flatten(0, 1),
                batch.labels.flatten(0, 1),
                (batch.valid & ~batch.padding_mask.unsqueeze(-1)).flatten(0, 1),
                self.model.num_queries,
            )
        features = None if self.feature_cache is None else self.feature_cache.of(batch)
        return self.model(batch.seen, batch.seconds, batch.padding_mask, queries, state, features)

    def training_step(self, batch: SceneBatch, batch_idx: int) -> Tensor:
        """One (micro-)batch."""
        _, losses, _ = self.losses(batch, denoise=True)
        clips = len(batch.sequence_ids)
        self.log("train/loss", losses["total"].detach(), batch_size=clips)
        # Two dozen terms cost as much to log as a tenth of a small step, so only when they are
        # written.
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            terms = {f"train/{name}": value for name, value in losses.items() if name != "total"}
            self.log_dict(terms, batch_size=clips)
        return self._weigh(losses["total"], losses["num_targets"])

    def _weigh(self, loss: Tensor, num_targets: Tensor) -> Tensor:
        """Turn the micro-batch's mean into its share of the accumulated window (see the header)."""
        if self.trainer.accumulate_grad_batches == 1:
            return loss
        count = mean_over_processes(num_targets).clamp(min=1.0)
        if self._window_first is None or self._window_total is None:
            self._window_first, self._window_total = count, torch.zeros_like(count)
        self._window_total = self._window_total + count
        return loss * (count / self._window_first)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the accumulated gradients by the window's count of objects, before clipping."""
        if self._window_first is None or self._window_total is None:
            return
        # Lightning has divided each loss by the number of micro-batches.
        scale = self._window_first * self.trainer.accumulate_grad_batches / self._window_total
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        self._window_first = self._window_total = None

    def on_validation_epoch_start(self) -> None:
        """Start with no video open and nothing counted."""
        self._stream = StreamState()
        self._loss_sums, self._windows = {}, 0
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.evaluator.reset(data.sequences("val"))

    def validation_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """One window of a streamed sequence."""
        if batch.padding_mask.all():  # nothing to see: no loss of 0 goes into the mean
            return
        before = self._stream.before(batch)
        predictions, losses, state = self.losses(batch, state=before, denoise=False)
        self._stream.after(batch, state)
        self.evaluator.update(self.model, predictions, batch)
        self._windows += 1
        for name, value in losses.items():
            if not name.startswith("num_"):
                # Summed on the device, which spares a wait for it.
                self._loss_sums[name] = self._loss_sums.get(name, 0) + value.detach().double()

    def mean_losses(self) -> dict[str, float]:
        """Losses of the validation by name; every window of every process weighs the same.

        Every process must call it. Without a single window there are none.
        """
        own = {name: float(value) for name, value in self._loss_sums.items()}
        parts = gather_parts((self._windows, own))
        windows = sum(count for count, _ in parts)
        names = dict.fromkeys(name for _, part in parts for name in part)
        return {
            "loss" if name == "total" else name: sum(part.get(name, 0.0) for _, part in parts)
            / windows
            for name in names
        }

    def on_validation_epoch_end(self) -> None:
        """Losses, metrics of the whole sequences, and the picture."""
        metrics = self.mean_losses() | self.evaluator.compute()
        self.log_dict({f"val/{name}": value for name, value in metrics.items()})
        picture = self.evaluator.picture() if self.trainer.is_global_zero else None
        self.picture = picture
        if picture is not None:
            for log in self.trainer.loggers:
                experiment = getattr(log, "experiment", None)
                if hasattr(experiment, "add_image"):
                    experiment.add_image(  # type: ignore[union-attr]
                        "val/tracks", picture, self.global_step, dataformats="HWC"
                    )

    def configure_optimizers(self) -> Any:
        """The configured optimiser, and its schedule by step."""
        if self._optimizer is None:
            return None
        optimizer = self._optimizer(self)
        if self._scheduler is None:
            return optimizer
        steps = total_steps(self.trainer)
        epochs = self.trainer.max_epochs
        per_epoch = self.trainer.estimated_stepping_batches / epochs if epochs else steps
        scheduler = self._scheduler(optimizer, total_steps=steps, steps_per_epoch=per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
