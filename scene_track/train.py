"""Train a model: ``python -m scene_track.train [group=option] [key=value] ...``.

The bare command is the quick start: synthetic dance, a small backbone from scratch, two CPU cores,
minutes.

    python -m scene_track.train                                              # the quick start
    python -m scene_track.train dataset=dancetrack model.backbone.freeze=true
    python -m scene_track.train --multirun denoiser.lambda_dn=0,0.5,1 optimizer.lr=1e-4,3e-4
    python -m scene_track.train dataset=tracknet model=heatmap head=heatmap  # a tennis ball
    python -m scene_track.train debug=fast_dev_run                           # seconds: does it run?
    python -m scene_track.train debug=dry_run                                # shapes and memory
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from scene_track.config.cli import run_main

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from scene_track.training.module import TrackingModule

log = logging.getLogger(__name__)


def build_module(cfg: DictConfig) -> TrackingModule:
    """The LightningModule with all its parts, from a checked configuration."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from scene_track.training.module import TrackingModule

    return TrackingModule(
        model=instantiate(cfg.model),
        criterion=instantiate(cfg.head.criterion),
        evaluator=instantiate(cfg.head.evaluator),
        denoiser=instantiate(cfg.denoiser),
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler),
        hyper_parameters=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
    )


def train(cfg: DictConfig) -> float | None:
    """One run, from a checked configuration to the best value of the monitor (None: dry run)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from scene_track.config.resumed import typed_keys
    from scene_track.sweeps.trial import is_first_process
    from scene_track.training.checkpointing import prepare_resume
    from scene_track.training.freezing import warn_of_a_random_backbone
    from scene_track.training.reproducibility import seed_everything
    from scene_track.training.run_checkpoint import exit_codes
    from scene_track.training.transfer import init_from

    runtime = HydraConfig.get().runtime if HydraConfig.initialized() else None
    if runtime is None or OmegaConf.is_missing(runtime, "output_dir"):
        pass  # composed without a job, as in a test
    elif cfg.run_dir != runtime.output_dir:
        raise ValueError(
            f"run_dir={cfg.run_dir} is not where Hydra writes the words and the log of this run:"
            f" type hydra.run.dir={cfg.run_dir}, for a sweep hydra.sweep.dir"
        )
    if not cfg.dry_run:
        log.info("run folder: %s", cfg.run_dir)
    seed_everything(cfg.seed)
    data = instantiate(cfg.dataset)
    module = build_module(cfg)
    taken: list[str] = []
    if cfg.resume_from is not None:
        pass  # all weights are the checkpoint's
    elif cfg.init_from is not None:
        report = init_from(module, cfg.init_from, parts=cfg.init_parts, partial=cfg.init_partial)
        taken = report.keys.matched
    elif cfg.init_parts is not None:
        raise ValueError("init_parts is of no effect without init_from=RUN_OR_CKPT: type both")
    if cfg.resume_from is None:
        warn_of_a_random_backbone(module, taken)
    if cfg.dry_run:
        from scene_track.training.dry_run import dry_run

        dry_run(module, data, accelerator=cfg.trainer.accelerator, precision=cfg.trainer.precision)
        return None
    resume = None
    if cfg.resume_from is not None:
        words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
        resume = prepare_resume(cfg.resume_from, module, typed_keys(cfg, words))

    dry = bool(cfg.trainer.fast_dev_run)
    if not dry and is_first_process():
        OmegaConf.save(cfg, f"{cfg.run_dir}/config.yaml", resolve=True)
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        callbacks=[instantiate(node) for node in cfg.callbacks.values()],
        loggers=[] if dry else [instantiate(node) for node in cfg.logger.values()],
    )
    with exit_codes(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return objective(trainer, cfg.monitor.metric)


def objective(trainer: pl.Trainer, metric: str) -> float:
    """The best value of the monitor, what a sweep compares.

    Raises:
        ValueError: the run has no finite value of it (a NaN returned to a sampler would kill the
            sweep).
    """
    best = getattr(trainer.checkpoint_callback, "best_model_score", None)
    value = trainer.callback_metrics.get(metric) if best is None else best
    if value is None or not math.isfinite(float(value)):
        raise ValueError(
            f"the run ended without a finite {metric} (found {value}): it needs at least one"
            " validation, see trainer.limit_val_batches and trainer.check_val_every_n_epoch"
        )
    return float(value)


def main() -> None:
    """The command line."""
    run_main("config", train, trials=True)


if __name__ == "__main__":
    main()
