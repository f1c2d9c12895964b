"""What a finer map under a ViT costs: the up-sampled lateral and the side branch beside stride 16.

    python benchmarks/neck.py                # DINOv3 ViT-S/16, frozen, 448x800; a few minutes
    python benchmarks/neck.py --size 224 400 --frames 4

Times are of one training step (forward and backward) of a SceneModel with random weights, the
median over steps in turn, so that a busy machine slows all alike. What a finer map *gains* needs
pretrained weights and footage: compare runs that differ in the neck alone,

    python -m scene_track.train dataset=dancetrack dataset.root=PATH model.backbone.freeze=true
    ... model.neck.stride=8
    ... model.neck.side_channels=[32,64] model.neck.sample_stride=8
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from scene_track.config.paths import config_dir
from scene_track.models.scene import SceneModel

NECKS = {
    "ViT alone, stride 16": [],
    "up-sampled to 8": ["model.neck.stride=8"],
    "side branch, decoder at 8": [
        "model.neck.side_channels=[32,64]",
        "model.neck.sample_stride=8",
    ],
    "side branch, decoder at 4": ["model.neck.side_channels=[32,64]"],
}


def build(overrides: list[str]) -> SceneModel:
    """A SceneModel on a frozen ViT-S/16 with random weights."""
    base = ["model/backbone=dinov3_vits16", "model.backbone.weights=null"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=[*base, *overrides])
    model = instantiate(cfg.model).train()
    model.backbone.set_frozen(True)
    return model


def step(model: SceneModel, frames: torch.Tensor) -> float:
    """Seconds of a forward and backward pass."""
    started = time.perf_counter()
    seconds = torch.arange(frames.shape[1]).float().view(1, -1) / 20
    predictions, _ = model(frames, seconds, torch.zeros(frames.shape[:2], dtype=torch.bool))
    (predictions.boxes.sum() + predictions.dense.heat_logits.sum()).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def main() -> None:
    """Print parameters, seconds a step and the ratio to the ViT alone."""
    parser = argparse.ArgumentParser(description="Cost of finer maps under a ViT.")
    parser.add_argument("--size", type=int, nargs=2, default=(448, 800), help="height width")
    parser.add_argument("--frames", type=int, default=2, help="frames of the clip")
    parser.add_argument("--steps", type=int, default=5, help="steps of each")
    options = parser.parse_args()
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (1, options.frames, 3, *options.size), dtype=torch.uint8)
    models = {name: build(overrides) for name, overrides in NECKS.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(options.steps + 1):
        for name, model in models.items():
            taken = step(model, frames)
            if turn:  # the first warms up
                times[name].append(taken)
    reference = statistics.median(next(iter(times.values())))
    print(f"{'neck':<28}{'parameters':>12}{'s/step':>9}{'ratio':>8}")
    for name, model in models.items():
        count = sum(parameter.numel() for parameter in model.neck.parameters())
        median = statistics.median(times[name])
        print(f"{name:<28}{count:>12,}{median:>9.2f}{median / reference:>8.2f}")
    for name in list(NECKS)[1:]:
        median = statistics.median(times[name])
        print(f"ratio: a step, {name} to a ViT alone: {median / reference:.2f}")


if __name__ == "__main__":
    main()
