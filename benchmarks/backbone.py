r"""What a frozen backbone costs: frozen to trained, cached to frozen, a sweep with a cache.

    python benchmarks/backbone.py                          # about 6 minutes on an idle core
    python benchmarks/backbone.py --repeats 1 --trials 0   # the two ratios of a step alone
    python benchmarks/backbone.py --size 224 384 --frames 4
    python benchmarks/backbone.py --size 256 448 --frames 4 --bf16 --trials 0 \
        model/backbone=efficientnet_lite0 recipe=mot dataset.batch_size=2   # another backbone

DINOv3 ViT-S/16 with random weights (they cost what trained ones cost) under the scene model of
``dataset=dancetrack``, on drawn dancers. A step is everything: reading the clip, the move through
model and criterion, gradients, optimiser. The sweep is nine short runs as ``--multirun`` would make
them (three learning rates by three denoising weights), three steps of four frames and a validation
of four frames each; the longer the runs, the nearer their ratio comes to that of a step.

Times are those of the processor that this process has used (``time.process_time``): what else runs
on the machine plays no part.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from scene_track.config.paths import config_dir
from scene_track.data.batch import SceneBatch
from scene_track.data.module import TrackingDataModule
from scene_track.train import build_module, train
from scene_track.training.feature_caching import cache_for
from scene_track.training.module import TrackingModule

PLAIN = [
    f"dataset.augment.{name}=0"
    for name in ("scale", "shift", "channel_permutation", "gain", "bias")
]
LEARNING_RATES = ("1e-4", "2e-4", "3e-4")
DENOISING = ("0", "0.5", "1")


def configuration(root: Path, size: tuple[int, int], frames: int, *more: str) -> DictConfig:
    """A run of the DanceTrack recipe on drawn dancers of the right size."""
    height, width = size
    chosen = any(word.startswith("model/backbone=") for word in more)
    overrides = [
        "dataset=synthetic_dance",
        "model/backbone=dinov3_vits16",
        "recipe=dancetrack",
        *([] if chosen else ["model.backbone.weights=null"]),
        f"dataset.root={root / 'dance'}",
        "dataset.source.train_sequences=2",
        "dataset.source.val_sequences=1",
        "dataset.source.test_sequences=0",
        "dataset.source.frames=16",
        f"dataset.source.width={width}",
        f"dataset.source.height={height}",
        "dataset.source.workers=1",
        f"dataset.size=[{height},{width}]",
        "dataset.batch_size=1",
        f"dataset.window.length={frames}",
        "dataset.window.max_interval=1",
        "dataset.eval_window.length=4",
        "viz.max_frames=0",
        "trainer.enable_progress_bar=false",
        *PLAIN,
        *more,
    ]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    with open_dict(cfg):
        cfg.experiment_name, cfg.run_dir = "benchmark", str(root / "run")
        del cfg["hydra"]
    return cfg


def stepper(
    module: TrackingModule, batches: Iterator[SceneBatch], precision: torch.dtype
) -> Callable[[], float]:
    """A function that makes one optimiser step and gives its loss."""
    optimizer = module._optimizer(module)

    def step() -> float:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            _, losses, _ = module.losses(next(batches), denoise=True)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        return float(losses["total"].detach())

    return step


def seconds(work: Callable[[], float], repeats: int) -> float:
    """Median time of one call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def forever(data: TrackingDataModule) -> Iterator[SceneBatch]:
    """The first epoch's batches, again and again: the same frames for everybody."""
    while True:
        yield from data.train_dataloader()


def steps(root: Path, args: argparse.Namespace) -> None:
    """Print the ratios of a step: frozen to trained, and cached to frozen."""
    size = (args.size[0], args.size[1])
    cfg = configuration(root, size, args.frames, *args.overrides)
    precision = torch.bfloat16 if args.bf16 else torch.float32
    data = instantiate(cfg.dataset)
    data.trainer = None
    data.prepare_data()
    torch.manual_seed(0)
    module = build_module(cfg).train()
    backbone = module.model.backbone
    assert backbone is not None
    step = stepper(module, forever(data), precision)
    trained = seconds(step, args.repeats)
    backbone.set_frozen(True)
    frozen = seconds(step, args.repeats)
    cache = cache_for(backbone, data, precision=precision, pictures=False)
    module.feature_cache = cache
    clips = len(data.train_dataloader())
    for _ in range(clips):  # the first epoch fills
        step()
    cache.counts.clear()
    cached = seconds(step, max(args.repeats, 5))
    computed = cache.counts["computed"]
    if computed:
        raise SystemExit(f"{computed} frames were not read from the cache: a time means nothing")
    name = " ".join(args.overrides) or "ViT-S/16"
    print(f"one step, {name}, {size[0]}x{size[1]}, {args.frames} frames, {precision}:")
    print(f"  trained {trained:7.2f} s    frozen {frozen:7.2f} s    cached {cached:7.3f} s")
    print(f"ratio: a step, frozen to trained backbone: {frozen / trained:.3f} (aim: at most 0.45)")
    print(f"ratio: a step, cached to frozen backbone: {cached / frozen:.3f} (aim: at most 0.15)")


def sweep(root: Path, args: argparse.Namespace, *, cache: bool) -> float:
    """Time of the trials, one after the other."""
    size = (args.size[0], args.size[1])
    name = "cached" if cache else "plain"
    start = time.process_time()
    trials = list(product(LEARNING_RATES, DENOISING))[: args.trials]
    for number, (rate, weight) in enumerate(trials):
        cfg = configuration(
            root, size, 4, f"optimizer.lr={rate}", f"denoiser.lambda_dn={weight}",
            "model.backbone.freeze=true", f"model.backbone.cache={str(cache).lower()}",
            "trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1",
        )  # fmt: skip
        cfg.run_dir = str(root / name / str(number))
        Path(cfg.run_dir).mkdir(parents=True)
        train(cfg)
    return time.process_time() - start


def main() -> None:
    """Time all three and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(448, 800), help="height width")
    parser.add_argument("--frames", type=int, default=2, help="of a clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trials", type=int, default=9, help="of the sweep, 0-9")
    parser.add_argument("overrides", nargs="*", help="of a step, such as model/backbone=NAME")
    parser.add_argument("--bf16", action="store_true", help="autocast, as trainer.precision=auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"{torch.get_num_threads()} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        steps(Path(folder), args)
        if args.trials:
            plain = sweep(Path(folder), args, cache=False)
            cached = sweep(Path(folder), args, cache=True)
            print(f"{args.trials} trials with a frozen backbone, whole runs:")
            print(f"  without cache {plain:6.1f} s    with cache {cached:6.1f} s")
            print(f"ratio: a sweep, with to without a cache: {cached / plain:.3f}")


if __name__ == "__main__":
    main()
