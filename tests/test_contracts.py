"""Every entry of every config group builds, predicts, learns and survives a round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scene_track.config.check import check
from scene_track.config.paths import config_dir
from scene_track.data.batch import SceneBatch
from scene_track.tracking.tracker import Detections, TrackedFrame, VideoInfo
from scene_track.train import build_module
from tests.compose import OF_A_BALL, OF_BOXES, TINY, compose_run, make_batch, without_objects

pytestmark = pytest.mark.slow

CONF = Path(config_dir())


def options(group: str) -> list[str]:
    """Names of a config group's entries; those of a ball and of boxes have tests of their own."""
    names = sorted(file.stem for file in (CONF / group).glob("[!_]*.yaml"))
    assert names, f"conf/{group} is empty"
    others = (*OF_A_BALL.get(group, ()), *OF_BOXES.get(group, ()))
    return [name for name in names if name not in others]


def gradient_step(
    overrides: list[str], batch: SceneBatch | None = None, tiny: Sequence[str] = TINY
) -> None:
    """One loss and its gradients; every trainable parameter must be touched, by finite numbers."""
    torch.manual_seed(0)
    cfg = compose_run([*tiny, *overrides])
    batch = make_batch() if batch is None else batch
    module = build_module(cfg).train()
    _, losses, _ = module.losses(batch, denoise=True)
    assert losses["total"].isfinite()
    losses["total"].backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} got no gradient: DDP would hang"
            assert parameter.grad.isfinite().all(), name
    again = build_module(cfg)
    again.load_state_dict({name: value.clone() for name, value in module.state_dict().items()})
    with torch.no_grad():
        totals = [m.eval().losses(batch, denoise=False)[1]["total"] for m in (module, again)]
    torch.testing.assert_close(*totals)


@pytest.mark.parametrize("name", options("model/backbone"))
def test_every_backbone_trains_a_scene_model(
    name: str, tiny_backbone: Callable[[str], list[str]]
) -> None:
    gradient_step(tiny_backbone(name), make_batch(size=(32, 64)))


@pytest.mark.parametrize("name", options("model/backbone"))
def test_every_backbone_keeps_the_interface(
    name: str, tiny_backbone: Callable[[str], list[str]]
) -> None:
    cfg = compose_run(tiny_backbone(name))
    check(cfg)
    backbone = instantiate(cfg.model.backbone)
    height, width = 2 * backbone.size_multiple, 3 * backbone.size_multiple
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    with torch.no_grad():
        features = backbone.eval()(frames)
    assert list(backbone.strides) == sorted(backbone.strides)
    shapes = [
        (2, dim, height // stride, width // stride)
        for dim, stride in zip(backbone.dims, backbone.strides, strict=True)
    ]
    assert [tuple(level.shape) for level in features.levels] == shapes
    assert features.cls.shape == (2, backbone.cls_dim)
    staged = [id(p) for stage in backbone.stages() for p in stage.parameters()]
    assert len(staged) == len(set(staged)), "stages share parameters"
    assert set(staged) == {id(p) for p in backbone.parameters()}, "parameters in no stage"
    with pytest.raises(ValueError, match="size_policy=pad"):
        backbone(frames[..., 5:])
    backbone.size_policy = "pad"
    shifted = backbone(frames[..., :-5])
    for stride, level in zip(backbone.strides, shifted.levels, strict=True):
        assert level.shape[-2:] == (height // stride, -(-(width - 5) // stride))


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in ("head", "denoiser") for name in options(group)]
)
def test_every_head_and_denoiser_trains(choice: str) -> None:
    gradient_step([choice])


@pytest.mark.parametrize("head", [name for name in options("head")])
def test_a_batch_without_anybody_trains_every_parameter(head: str) -> None:
    gradient_step([f"head={head}"], without_objects(make_batch()))


@pytest.mark.parametrize(
    "choice",
    [
        "model.decoder.recurrent=false",
        "model.decoder.recurrent=true",
        "model.decoder.temporal_radius=1",
        "model.decoder.tbptt_detach=true",
        "model.temporal_encoder=null",
        "model.absolute_time=false",
        "model.identity.appearance=0",
        "model.identity.content=false",
        "model.detector_frames=2",
        "head.criterion.identity.false_positives=0",
        "model.neck.sample_stride=4",
        "model.decoder.num_layers=1",
        "head.criterion.max_match_distance=null",
    ],
)
def test_every_switch_of_the_model_trains(choice: str) -> None:
    tiny = [o for o in TINY if not o.startswith("model.temporal_encoder") or "null" not in choice]
    gradient_step([choice], tiny=tiny)


@pytest.mark.parametrize("name", options("dataset"))
def test_every_dataset_composes_with_its_own_defaults(name: str, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    cfg = compose_run([f"dataset={name}", f"dataset.root={tmp_path}", *split_of(name)])
    if cfg.model.backbone.get("weights") is not None:
        cfg.model.backbone.weights = None
    check(cfg)
    assert instantiate(cfg.dataset).size == tuple(cfg.dataset.size)


def split_of(dataset: str) -> list[str]:
    """The splits that a dataset of one's own must be told."""
    part = "dataset.source.parts.videos"
    return {
        "mot": ["dataset.train=[a]", "dataset.val=[b]"],
        "mixed": [f"{part}.train=[a]", f"{part}.val=[b]"],
    }.get(dataset, [])


@pytest.mark.parametrize("name", options("tracker"))
def test_every_tracker_tracks_a_small_video(name: str) -> None:
    torch.manual_seed(0)
    cfg = compose_run([*TINY, f"tracker={name}"])
    check(cfg)
    model, evaluator = instantiate(cfg.model).eval(), instantiate(cfg.head.evaluator)
    tracker = evaluator.tracker
    video = VideoInfo(name="small", frame_rate=20.0, height=64, width=96)
    for _ in range(2):  # the second time as if nothing had been before
        tracker.start(video, model.identity)
        frames: list[TrackedFrame] = []
        numbers = (1, 2, 3, 4, 6, 7)  # frame 5 could not be read
        for at, number in enumerate(numbers):
            frames += tracker.update(two_people(number, cfg.model.identity.width))
            assert len(frames) >= at + 1 - tracker.lookahead
        frames += tracker.finish()
        assert tuple(frame.frame for frame in frames) == numbers
        for frame in frames:
            assert len(set(frame.ids.tolist())) == len(frame.ids) == len(frame.boxes)
            assert (frame.ids >= 1).all() and frame.ids.dtype == "int64"
            assert frame.boxes.dtype == frame.scores.dtype == "float64"
            assert frame.boxes.shape == (len(frame.ids), 4)
        assert len(frames[-1].ids) == 2 and frames[-1].ids.max() <= len(numbers) * 2


def two_people(number: int, width: int) -> Detections:
    """Two people who drift to the right, and a doubtful box."""
    x = 0.01 * number
    boxes = torch.tensor([(0.3 + x, 0.5, 0.1, 0.4), (0.6 + x, 0.5, 0.1, 0.4), (0.1, 0.1, 0.1, 0.1)])
    return Detections(
        frame=number,
        seconds=number / 20,
        boxes=boxes,
        scores=torch.tensor((0.95, 0.9, 0.05)),
        labels=torch.zeros(3, dtype=torch.long),
        tokens=torch.randn(3, width),
        true_boxes=boxes[:2].clone(),
        true_ids=torch.tensor((5, 9)),
    )


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_passes_the_check(name: str, tmp_path: Path) -> None:
    cfg = compose_run([f"experiment={name}", f"dataset.root={tmp_path}"])
    if cfg.model.backbone.get("weights") is not None:
        cfg.model.backbone.weights = None
    check(cfg)


def test_every_part_of_the_ablation_changes_the_recipe() -> None:
    listed = OmegaConf.load(Path(config_dir()) / "sweep" / "ablation.yaml")
    names = OmegaConf.select(listed, "hydra.sweeper.params.experiment").split(",")
    assert names[0] == "none" and len(names) > 5
    recipe = compose_run()
    assert all(compose_run([f"experiment={name}"]) != recipe for name in names[1:])


def test_dancetrack_brings_its_own_defaults_and_the_command_line_wins() -> None:
    cfg = compose_run(["dataset=dancetrack", "model.backbone.freeze=true"])
    assert cfg.model.backbone._target_.endswith("DinoV3")
    assert cfg.model.backbone.freeze is True and cfg.model.backbone.unfreeze_after is None
    assert list(cfg.dataset.size) == [448, 800]
    mine = compose_run(["dataset=dancetrack", "model/backbone=hybrid_tiny", "optimizer.lr=3e-4"])
    assert mine.model.backbone._target_.endswith("HybridBackbone")
    assert mine.optimizer.lr == 3e-4
