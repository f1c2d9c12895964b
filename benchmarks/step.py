"""Where a training step of the default run goes: time by part, and by kind of operation.

    python benchmarks/step.py                                 # about a minute on one thread
    python benchmarks/step.py --threads 1 2                   # is the second thread worth it?
    python benchmarks/step.py --against ../other_checkout     # in turns with another version
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/step.py         # as on a CPU without AVX-512
    python benchmarks/step.py dataset=synthetic_tennis        # any overrides of a run

A step is what training makes of a batch that is loaded: losses, gradients, clipping, optimiser. The
batches are those of the dataset, drawn on first use, and lie in memory. Medians over steps; steps
of two versions take turns. On one thread times are those of the processor that this process has
used, so what else runs on the machine plays nearly no part; on several they are of the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from scene_track.config.paths import config_dir
from scene_track.train import build_module

_KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "aten::mm", "bmm"),
    "attention": ("scaled_dot_product",),
    "normalisation": ("norm",),
    "sampling": ("grid_sampl",),
}


class Clock:
    """Seconds: of the processor while all is done on one thread, see the header."""

    of_the_wall = False

    def __call__(self) -> float:
        """Read it."""
        return time.perf_counter() if self.of_the_wall else time.process_time()


now = Clock()


class Stopwatch:
    """Exclusive seconds of nested parts, with and without gradient."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, bool], float] = defaultdict(float)
        self._inner: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside under a name."""
        key = (name, torch.is_grad_enabled())
        started = now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = now() - started
            self.seconds[key] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Time every call of a method."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return inner(*arguments, **named)

        setattr(owner, method, timed)


class Step:
    """Training steps of a configuration on a few batches."""

    def __init__(self, overrides: list[str], batches: int) -> None:
        words = ["experiment_name=step", "run_dir=unused", "dataset.loader.num_workers=0"]
        words += ["dataset.loader.persistent_workers=false", *overrides]
        with initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = compose("config", overrides=words)
        torch.manual_seed(1)
        data = instantiate(cfg.dataset)
        self.module = build_module(cfg).train()
        self.module.on_fit_start()
        self.optimizer = self.module._optimizer(self.module)
        data.prepare_data()
        data.setup("fit")
        loader = iter(data.train_dataloader())
        self.batches = [next(loader) for _ in range(batches)]
        self.clip = cfg.trainer.gradient_clip_val
        self.watch = Stopwatch()
        model, criterion = self.module.model, self.module.criterion
        for name, part in model.named_children():
            self.watch.wrap(part, "forward", name)
        if hasattr(model, "proposals"):
            self.watch.wrap(model.proposals, "select", "proposals, choice")
        for name in ("matcher", "identity"):
            if getattr(criterion, name, None) is not None:
                method = "match_padded" if name == "matcher" else "forward"
                self.watch.wrap(getattr(criterion, name), method, f"loss, {name}")
        self.watch.wrap(criterion, "forward", "loss, the rest")
        self.watch.wrap(model, "forward", "model, the rest")

    def __call__(self, index: int) -> float:
        """Make one step and return its seconds."""
        batch = self.batches[index % len(self.batches)]
        torch.manual_seed(index)  # the frames that train are drawn at random
        started = now()
        with self.watch.part("module, the rest"):
            total = self.module.losses(batch, denoise=True)[1]["total"]
        with self.watch.part("gradients"):
            total.backward()
        with self.watch.part("clipping, optimiser"):
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return now() - started


def print_parts(step: Step, steps: int) -> None:
    """Print the mean time of each part."""
    step.watch.seconds.clear()
    for index in range(steps):
        step(index)
    seconds = {key: value / steps for key, value in step.watch.seconds.items()}
    total = sum(seconds.values())
    print(f"\n{'part':<24}{'ms':>10}{'ms without gradient':>22}{'share':>8}")
    rows = {n: [seconds.get((n, kind), 0.0) for kind in (True, False)] for n, _ in seconds}
    for name, (grad, free) in sorted(rows.items(), key=lambda row: -sum(row[1])):
        print(f"{name:<24}{1e3 * grad:>10.1f}{1e3 * free:>22.1f}{(grad + free) / total:>8.1%}")


def print_kinds(step: Step, steps: int) -> None:
    """Print the time of each kind of operation, by PyTorch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for index in range(steps):
            step(index)
    times: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in profile.key_averages():
        if event.key.startswith("aten::"):
            found = (kind for kind, marks in _KINDS.items() if any(m in event.key for m in marks))
            kind = next(found, "all other operations")
            times[kind] += event.self_cpu_time_total / 1e3 / steps
            calls[kind] += event.count // steps
    total = sum(times.values())
    print(f"\n{'operations':<24}{'ms':>10}{'calls':>10}{'share':>8}")
    for kind in sorted(times, key=lambda k: -times[k]):
        print(f"{kind:<24}{times[kind]:>10.1f}{calls[kind]:>10,}{times[kind] / total:>8.1%}")


def seconds_elsewhere(checkout: Path, words: list[str]) -> Iterator[float]:
    """Seconds of one step after the other, made by the code of another checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", *words]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        while True:
            child.stdin.write("\n")
            child.stdin.flush()
            yield float(child.stdout.readline())


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description="Time of a training step, by part.")
    parser.add_argument("overrides", nargs="*", default=[], help="of the run")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    overrides = ["trainer.precision=32-true", *options.overrides]
    torch.set_num_threads(options.threads[0])
    now.of_the_wall = max(options.threads) > 1
    step = Step(overrides, batches=4)
    step(0)
    if options.serve:
        for index, _ in enumerate(sys.stdin):
            print(step(index), flush=True)
        return
    load = os.getloadavg()[0]
    print(f"float32, {os.cpu_count()} cores, load {load:.1f}, {options.threads[0]} thread(s)")
    times: dict[str, list[float]] = defaultdict(list)
    words = ["--threads", str(options.threads[0]), *options.overrides]
    others = None if options.against is None else seconds_elsewhere(options.against, words)
    if others is not None:
        next(others)
    for index in range(options.steps):
        for threads in options.threads:
            torch.set_num_threads(threads)
            times[f"{threads} thread(s)"].append(step(index))
        if others is not None:
            times[str(options.against)].append(next(others))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first, *rest = medians
    for name, median in medians.items():
        print(f"{name:<32}{median:8.3f} s a step")
    for name in rest:
        print(f"ratio: a step, {name} to {first}: {medians[name] / medians[first]:.2f}")
    torch.set_num_threads(options.threads[0])
    print_parts(step, options.steps)
    print_kinds(step, 4)


if __name__ == "__main__":
    main()
