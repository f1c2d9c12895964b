"""``model.backbone.cache=true``: computes the features of a frozen backbone once per frame.

While the whole backbone is frozen, datasets look for the features of a frame on disk
(``data/feature_store.py``) and decode an image only where there are none; those are computed here
and stored. A run gives the same numbers whatever the store holds:

* Features that were just computed are rounded to half precision like those that are read.
* A frame is computed by itself: in a batch its size would change the rounding of sums.
* Whether a batch comes with features is decided by its epoch alone, like freezing.

Losses differ from those without a cache by the rounding alone. Only the backbone's output is
stored; what else needs images (a branch beside the backbone, the evaluator's plot) is given them:
``FeatureSource.pictures``, and the first window of each streamed video.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from scene_track.data.batch import SceneBatch
from scene_track.data.feature_store import FeatureSource, FeatureStore
from scene_track.data.module import TrackingDataModule
from scene_track.models.backbones.base import Backbone, BackboneFeatures
from scene_track.models.backbones.packing import FeatureLayout, fingerprint, name_of
from scene_track.training.freezing import backbone_of
from scene_track.training.precision import autocast_type

log = logging.getLogger(__name__)


class FeatureCache:
    """Returns the features of batches, read from disk or computed by the backbone."""

    def __init__(
        self,
        backbone: Backbone,
        root: Any,
        *,
        size: tuple[int, int],
        precision: torch.dtype,
        writable: bool = True,
    ) -> None:
        """Open the store of the backbone with its present weights."""
        self.backbone, self.precision = backbone, precision
        self.layout = FeatureLayout.of(self._run(torch.zeros(1, 3, *size, dtype=torch.uint8)))
        content = fingerprint(backbone, size=size, precision=str(precision).removeprefix("torch."))
        self.store = FeatureStore(
            root,
            name_of(content),
            values=self.layout.values,
            limit_bytes=int(backbone.cache_limit_gb * 1024**3),
            about=content,
            writable=writable,
        )
        self.size = size
        self.counts: Counter[str] = Counter()  # of frames since the last report
        self._blank: Tensor | None = None

    def of(self, batch: SceneBatch) -> BackboneFeatures | None:
        """Features of the B x T frames of a batch; None if the store was not asked for them.

        Raises:
            RuntimeError: the store was asked although the backbone trains.
        """
        if batch.stored is None:
            return None
        if not self.backbone.frozen:
            raise RuntimeError("features were read for an epoch in which the backbone trains")
        rows = batch.features
        if rows is None:
            shape = (*batch.padding_mask.shape, self.layout.values)
            rows = torch.zeros(shape, dtype=torch.float16, device=batch.padding_mask.device)
        for clip, frames in enumerate(batch.stored):
            for time, found in enumerate(frames):
                if found is True:
                    self.counts["read"] += 1
                elif found is False:
                    rows[clip, time] = self._black()
                else:
                    # One by one, see above: only in the first epoch, like the wait for a GPU.
                    row = self.layout.pack(self._run(batch.frames[clip, time].unsqueeze(0)))[0]
                    rows[clip, time] = row
                    self.counts["computed"] += 1
                    self.counts["kept"] += self.store.write(found, row.cpu())
        return self.layout.unpack(rows.flatten(0, 1))

    def _black(self) -> Tensor:
        """The row of a padded frame, which is black."""
        if self._blank is None:
            black = torch.zeros(1, 3, *self.size, dtype=torch.uint8)
            self._blank = self.layout.pack(self._run(black))[0]
        return self._blank

    def report(self, what: str) -> float | None:
        """Log the frames since the last report of ``what``, such as ``epoch 3, training``.

        Returns:
            The share of them whose features were read, 0-1; None if there were none.
        """
        counts, self.counts = self.counts, Counter()
        if not (total := counts["read"] + counts["computed"]):
            return None
        log.info(
            "%s: cache: features of %d frames read, %d computed, %d of them kept; %.2f of %g GiB"
            " on disk in %s",
            *(what, counts["read"], counts["computed"], counts["kept"]),
            *(self.store.used_bytes() / 1024**3, self.backbone.cache_limit_gb, self.store.root),
        )
        return counts["read"] / total

    def _run(self, frames: Tensor) -> BackboneFeatures:
        """The frozen backbone in the model's precision, on uint8 frames."""
        device = self.backbone.mean.device
        half = self.precision != torch.float32
        with (
            self.backbone.at_rest(),
            torch.autocast(device.type, self.precision if half else None, enabled=half),
        ):
            return self.backbone(frames.to(device))


def cache_for(
    backbone: Backbone,
    data: TrackingDataModule,
    *,
    precision: torch.dtype,
    pictures: bool,
    writable: bool = True,
) -> FeatureCache:
    """Returns the feature cache of a backbone, and makes the datasets read from it."""
    root = data.feature_folder()
    cache = FeatureCache(backbone, root, size=data.size, precision=precision, writable=writable)
    data.features.pictures = pictures
    data.features.store = cache.store
    log.info("features are kept in %s", cache.store.folder)
    return cache


class FeatureCaching(pl.Callback):
    """Carries out ``model.backbone.cache``: opens the cache, sets the epoch, logs the counts."""

    _cache: FeatureCache | None = None
    _source: FeatureSource | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the augmentation, before anything is loaded.

        Raises:
            ValueError: images change in ways that the store does not hold.
        """
        backbone = backbone_of(pl_module)
        if stage == "fit" and backbone is not None and backbone.cache:
            _data(trainer).check_repeatable()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the store, now that the weights are loaded."""
        backbone = backbone_of(pl_module)
        self._cache = self._source = None
        if backbone is None or not backbone.cache:
            return
        data: Any = _data(trainer)
        self._source = data.features
        data.features.until = backbone.unfreeze_after
        self._cache = cache_for(
            backbone,
            data,
            precision=autocast_type(str(trainer.precision)),
            pictures=pl_module.model.looks_at_pictures,  # pyright: ignore
            writable=not trainer.fast_dev_run,  # pyright: ignore[reportAttributeAccessIssue]
        )
        module: Any = pl_module
        module.feature_cache = self._cache

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the epoch: a resume inside an epoch has no epoch start."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the epoch of the validation's datasets."""
        if self._source is not None:
            self._source.epoch = trainer.current_epoch

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read nothing: the backbone is not frozen yet."""
        if self._source is not None and self._source.until is not None:
            self._source.epoch = self._source.until

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the counts of the training before it."""
        self._report(trainer, "training")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the counts of the validation."""
        self._report(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the counts of an epoch without a validation."""
        self._report(trainer, "training")

    def _report(self, trainer: pl.Trainer, what: str) -> None:
        if self._cache is None or trainer.sanity_checking:
            return
        share = self._cache.report(f"epoch {trainer.current_epoch}, {what}")
        if share is not None:
            for logger in trainer.loggers:
                logger.log_metrics({f"cache/{what}_hits": share}, step=trainer.global_step)


def _data(trainer: pl.Trainer) -> TrackingDataModule:
    """The run's data module."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TrackingDataModule):
        raise ValueError(
            f"model.backbone.cache=true needs a TrackingDataModule, found {type(data).__name__}:"
            " type model.backbone.cache=false"
        )
    return data
