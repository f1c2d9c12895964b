"""Track whole videos in PyTorch and through onnxruntime: equal scores, what speed?

    python benchmarks/export.py checkpoint=RUN                        # the run's validation videos
    python benchmarks/export.py checkpoint=RUN dataset=mot dataset.root=FOLDER \
        "dataset.train=[A]" "dataset.val=[TUD-Campus]" "dataset.size=[192,256]"

Words are those of ``scene_track.evaluate``. Prints HOTA, IDF1 and frames per second of model and
tracker (one CPU thread if OMP_NUM_THREADS=1) for PyTorch in float32, PyTorch in the run's own
precision, and the exported step with weights in float32 and in float16. Exits with code 1 where
HOTA of the float32 export is more than 0.001 away from PyTorch's in float32.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scene_track.config.paths import config_dir
from scene_track.export import export
from scene_track.models.streaming_step import halve
from scene_track.training.trained_run import TrainedRun, load_model, load_run, track_split

ALLOWED = 1e-3


@dataclass
class Outcome:
    """One row: scores 0-1 and frames per second."""

    name: str
    hota: float
    idf1: float
    speed: float


def configuration(name: str, words: list[str]) -> DictConfig:
    """What the command line would compose."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(name, overrides=words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def score(name: str, run: TrainedRun, cfg: DictConfig, folder: Path) -> Outcome:
    """Track a split and score it."""
    split = cfg.split
    report = run.evaluator.report(run.data.sequences(split), cfg.benchmark)
    frames, seconds = 0, 0.0
    for video, tracks in track_split(run, split, folder / "tracks"):
        frames, seconds = frames + tracks.num_frames, seconds + tracks.compute_s
        report.count(video, tracks)
    counted = report.scores()
    if counted is None:
        sys.exit(f"the {split} split has no ground truth: type split=val")
    scores = counted[0]
    return Outcome(name, float(scores["HOTA"]), float(scores["IDF1"]), frames / seconds)


def main() -> None:
    cfg = configuration("evaluate", sys.argv[1:])
    run = load_run(cfg)
    run.data.prepare_data()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = [score("PyTorch, fp32", replace(run, precision="32-true"), cfg, scratch)]
        if run.precision != "32-true":
            rows.append(score(f"PyTorch, {run.precision}", run, cfg, scratch))
        path = export(
            configuration("export", [f"checkpoint={cfg.checkpoint}", f"output={scratch / 'fp32'}"])
        )
        half = scratch / "fp16"
        shutil.copytree(path.parent, half)
        proto = onnx.load(str(path))
        halve(proto)  # as weights=fp16 does
        (half / path.name).write_bytes(proto.SerializeToString())
        for weights in ("fp32", "fp16"):
            model, _ = load_model(scratch / weights / path.name)
            exported = replace(run, model=model, precision="32-true")
            rows.append(score(f"onnxruntime, weights {weights}", exported, cfg, scratch))
    print(f"\n{'':32} {'HOTA':>7} {'IDF1':>7} {'frames/s':>9} {'HOTA - fp32':>12} {'ratio':>6}")
    for row in rows:
        print(
            f"{row.name:32} {row.hota:7.4f} {row.idf1:7.4f} {row.speed:9.1f}"
            f" {row.hota - rows[0].hota:12.5f} {row.speed / rows[0].speed:6.2f}"
        )
    apart = abs(rows[-2].hota - rows[0].hota)
    sys.exit(0 if apart <= ALLOWED else 1)


if __name__ == "__main__":
    main()
