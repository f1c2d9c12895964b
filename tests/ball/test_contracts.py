"""A ball goes through the same contracts: every backbone and every option of the heatmap model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from scene_track.config.check import ConfigError, check
from scene_track.config.paths import config_dir
from scene_track.data.batch import SceneBatch
from scene_track.tracking.tracker import Detections, TrackedFrame, VideoInfo
from tests.compose import OF_A_BALL, TINY_BALL, compose_run, make_ball_batch, without_ball
from tests.test_contracts import gradient_step, options

pytestmark = pytest.mark.slow


def step_of(
    overrides: list[str], batch: SceneBatch | None = None, size: tuple[int, int] = (32, 48)
) -> None:
    absent = tuple(word.removesuffix("=null") for word in overrides if word.endswith("=null"))
    tiny = [word for word in TINY_BALL if not (absent and word.startswith(absent))]
    gradient_step(overrides, batch or make_ball_batch(size=size), tiny)


@pytest.mark.parametrize("name", options("model/backbone"))
def test_every_backbone_trains_a_heatmap_model(
    name: str, tiny_backbone: Callable[[str], list[str]]
) -> None:
    step_of(tiny_backbone(name), size=(32, 64))


@pytest.mark.parametrize("name", options("model/backbone"))
@pytest.mark.parametrize("fuse", ["sum", "concat"])
def test_a_heatmap_has_its_stride_whatever_the_backbone(
    name: str, fuse: str, tiny_backbone: Callable[[str], list[str]]
) -> None:
    cfg = compose_run([*TINY_BALL, *tiny_backbone(name), f"model.fusion.fuse={fuse}"])
    model = instantiate(cfg.model).eval()
    frames = torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8)
    with torch.no_grad():
        predictions, _ = model(frames, torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    assert predictions.heatmap_logits.shape == (1, 2, 1, 32, 32)


def test_a_batch_without_a_ball_trains_every_parameter() -> None:
    step_of([], without_ball(make_ball_batch()))


def test_a_batch_that_nobody_has_looked_at_trains_every_parameter() -> None:
    batch = without_ball(make_ball_batch())
    batch.visibility.fill_(-1)
    step_of([], batch)


@pytest.mark.parametrize(
    "choice",
    [
        "model.detail=null",
        "model.detail.offsets=[]",
        "model.detail.offsets=[-1,-2,1]",
        "model.detail.channels=[8,8]",
        "model.stack=null",
        "model.temporal_encoder=null",
        "model.decoder.upsample=deconv",
        "model.decoder.upsample=pixel_shuffle",
        "model.decoder.blocks_per_stage=2",
        "model.decoder.norm=gn",
        "model.decoder.activation=gelu",
        "model.decoder.use_depthwise=true",
        "model.decoder.use_se=true",
        "model.decoder.dropout=0.2",
        "model.fusion.fuse=concat",
        "head.module.size=[20,12]",
        "head.criterion.loss=mse",
        "head.criterion.loss=focal",
        "head.criterion.weight_coordinate=0.1",
    ],
)
def test_every_switch_of_the_model_trains(choice: str) -> None:
    step_of([choice])


@pytest.mark.parametrize("name", ["tracknet", "synthetic_tennis"])
def test_choosing_a_ball_brings_everything_that_goes_with_it(name: str, tmp_path: Path) -> None:
    cfg = compose_run([f"dataset={name}", f"dataset.root={tmp_path}"])
    check(cfg)
    assert cfg.model._target_.endswith("HeatmapModel")
    assert (cfg.monitor.metric, cfg.monitor.mode) == ("val/pck_5", "max")
    assert cfg == compose_run(
        [f"dataset={name}", "model=heatmap", "head=heatmap", f"dataset.root={tmp_path}"]
    )
    with pytest.raises(ConfigError, match="BallEvaluator does not log it"):
        check(
            compose_run([f"dataset={name}", f"dataset.root={tmp_path}", "monitor.metric=val/hota"])
        )


def test_a_head_that_does_not_go_with_the_model_is_named(tmp_path: Path) -> None:
    for words in (["head=heatmap"], ["dataset=tracknet", f"dataset.root={tmp_path}", "head=bbox"]):
        with pytest.raises(ConfigError, match="choose model= and head= that go together"):
            check(compose_run(words))


def test_a_training_clip_has_a_frame_with_all_neighbours(tmp_path: Path) -> None:
    words = ["dataset=tracknet", f"dataset.root={tmp_path}"]
    check(compose_run([*words, "dataset.window.length=4"]))
    check(compose_run([*words, "dataset.window.length=1", "model.detail=null"]))
    with pytest.raises(ConfigError, match=r"^dataset.window.length=3: .* type 4 or more"):
        check(compose_run([*words, "dataset.window.length=3"]))


@pytest.mark.parametrize("name", options("tracker"))
def test_a_tracker_that_does_not_go_with_the_head_is_named(name: str, tmp_path: Path) -> None:
    people = [f"tracker={name}"]
    ball = ["dataset=tracknet", f"dataset.root={tmp_path}", f"tracker={name}"]
    of_a_ball = name in OF_A_BALL["tracker"]
    check(compose_run(ball if of_a_ball else people))
    named = "identity" if of_a_ball else "peak"
    with pytest.raises(ConfigError, match=rf"^tracker._target_=.*tracker={named}") as caught:
        check(compose_run(people if of_a_ball else ball))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OF_A_BALL["tracker"])
def test_every_tracker_of_a_ball_follows_it(name: str) -> None:
    tracker = instantiate(compose_run([*TINY_BALL, f"tracker={name}"]).tracker)
    for _ in range(2):  # the second time as if nothing had been before
        tracker.start(VideoInfo("small", 30.0, 360, 640), None)
        frames: list[TrackedFrame] = []
        for number in (0, 1, 2, 4, 5):
            place = torch.tensor([(0.1 + 0.02 * number, 0.5, 0, 0), (0.9, 0.9, 0, 0)])
            seen = Detections(
                number,
                number / 30,
                place,
                torch.tensor((0.9, 0.2)),
                torch.zeros(2, dtype=torch.long),
            )
            frames += tracker.update(seen)
        frames += tracker.finish()
        assert [frame.frame for frame in frames] == [0, 1, 2, 4, 5]
        for frame in frames:
            assert frame.ids.tolist() == [1]
            assert frame.boxes[0, 0] == pytest.approx(0.1 + 0.02 * frame.frame)
            assert frame.boxes.dtype == frame.scores.dtype == "float64"


def test_the_ball_goes_through_no_second_trainer() -> None:
    root = Path(config_dir()).parent / "scene_track"
    text = "".join(path.read_text() for path in root.rglob("*.py"))
    assert text.count("(pl.LightningModule)") == 1 and text.count("(LightningDataModule)") == 1
