"""``model=association``: it learns, exchanges heads, and is evaluated from files alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scene_track.config.check import ConfigError, check
from scene_track.config.cli import with_brought
from scene_track.data.batch import SceneBatch
from scene_track.data.box_clips import BoxStream
from scene_track.data.collate import collate
from scene_track.data.detections import BoxVideo
from scene_track.data.noise import EXACT, Noise
from scene_track.models.predictions import ScenePredictions
from scene_track.objectives.association_criterion import match_by_overlap
from scene_track.train import build_module
from scene_track.training.module import TrackingModule
from scene_track.training.transfer import init_from
from tests.compose import TINY, compose_run
from tests.faults import malformed
from tests.tracking.stories import walk

BOXES = ("input=boxes", "model.dim=32", "model.identity.width=32", "model.identity.heads=2")


def module_of(*overrides: str) -> TrackingModule:
    torch.manual_seed(0)
    return build_module(compose_run([*BOXES, *overrides]))


def window(noise: Noise = EXACT, frames: int = 20, people: int = 4) -> SceneBatch:
    stream = BoxStream([BoxVideo.of(walk(people=people, frames=frames), noise)], length=frames)
    return collate([stream[0]], frames)


def test_the_word_brings_what_goes_with_it_whatever_the_dataset(tmp_path: Path) -> None:
    words = with_brought(["model=association", "dataset=dancetrack", f"dataset.root={tmp_path}"])
    cfg = compose_run(words)
    check(cfg)
    assert cfg.model._target_.endswith("AssociationModel") and "backbone" not in cfg.model
    assert cfg.dataset.detections == "noise" and cfg.dataset.source.classes == {1: "dancer"}
    assert cfg.trainer.precision == "32-true"
    typed = compose_run([*words, f"dataset.detections={tmp_path}", "optimizer.lr=5e-4"])
    assert (typed.dataset.detections, typed.optimizer.lr) == (str(tmp_path), 5e-4)


def test_images_are_refused_before_a_run() -> None:
    with pytest.raises(ConfigError, match="reads detections"):
        check(compose_run([*BOXES, "dataset.detections=null"]))


def test_a_wrong_key_of_a_further_folder_is_named(tmp_path: Path) -> None:
    words = [*BOXES, "dataset=dancetrack", f"dataset.root={tmp_path}"]
    for entry, line in (
        (
            f"{{root: {tmp_path}, wieght: 1}}",
            r"further\[0\]\.wieght: unknown key; .*weight",
        ),
        ("{weight: 1}", r"further\[0\]\.root: is required"),
    ):
        with pytest.raises(ConfigError, match=line):
            check(compose_run([*words, f"dataset.further=[{entry}]"]))


@pytest.mark.parametrize("choice", ["model.identity.content=true", "model.identity.interaction=0"])
def test_every_parameter_learns_from_detections(choice: str) -> None:
    module = module_of(choice).train()
    for batch in (window(Noise()), window(Noise(misses=1, false_positives=0), frames=3)):
        module.zero_grad()
        _, losses, _ = module.losses(batch, denoise=True)
        assert losses["total"].isfinite()
        losses["total"].backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{name} got no gradient: DDP would hang"
            assert parameter.grad.isfinite().all(), name


def test_half_precision_works_and_a_detached_head_is_refused() -> None:
    module, batch = module_of(), window()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.losses(batch, denoise=False)[1]["total"]
    assert loss.isfinite()
    with pytest.raises(InstantiationException, match=r"model\.identity\.detach=true"):
        module_of("model.identity.detach=true")


def test_a_few_steps_lower_the_loss() -> None:
    module, batch = module_of(), window(Noise(0.2, 0.1, 1.0), frames=40, people=6)

    def loss() -> float:
        with torch.no_grad():
            return float(module.eval().losses(batch, denoise=False)[1]["total"])

    before = loss()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        module.train().losses(batch, denoise=True)[1]["total"].backward()
        optimizer.step()
    assert loss() < 0.9 * before


def predictions_of(boxes: list[tuple[float, ...]], batch: SceneBatch) -> ScenePredictions:
    batch.detections = torch.tensor([[[(*box, 0.9) for box in boxes]]])
    batch = batch.between(0, 1)
    return module_of().model(batch.seen, batch.seconds, batch.padding_mask)[0]


def test_detections_go_to_whom_they_overlap_by_half_and_one_each() -> None:
    batch = window(frames=1, people=2)
    batch.boxes[0, 0, 0] = torch.tensor((0.3, 0.5, 0.1, 0.4))
    batch.boxes[0, 0, 1] = torch.tensor((0.7, 0.5, 0.1, 0.4))
    far = (0.75, 0.5, 0.1, 0.4)  # overlaps the second by a third
    near, nearer = (0.31, 0.5, 0.1, 0.4), (0.3, 0.5, 0.1, 0.4)
    found = match_by_overlap(predictions_of([near, far, nearer], batch), batch, 0.5)
    assert found.tolist() == [[[2, -1]]]


def test_the_tracker_sees_every_detection_of_the_file_and_no_padding() -> None:
    module = module_of().eval()
    batch = window(Noise(misses=0.5, false_positives=0))
    with torch.no_grad():
        predictions, _ = module.model(batch.seen, batch.seconds, batch.padding_mask)
    read = list(module.evaluator.read(module.model, predictions, batch))
    assert batch.detections is not None
    for t, seen in read:
        real = batch.detections[0, t, :, 4] >= 0
        assert int((seen.scores > 0).sum()) == int(real.sum())


def test_an_untrained_head_follows_exact_boxes() -> None:
    module = module_of().eval()
    video = walk(people=4, frames=40)
    stream = BoxStream([BoxVideo.of(video, EXACT)], length=16)
    module.evaluator.reset([video])
    state = None
    for index in range(len(stream)):
        batch = collate([stream[index]], 16)
        with torch.no_grad():
            predictions, state = module.model(
                batch.seen, batch.seconds, batch.padding_mask, None, state
            )
        module.evaluator.update(module.model, predictions, batch)
    figures = module.evaluator.compute()
    assert {f"val/{name}" for name in figures} | {"val/loss"} == set(module.evaluator.LOGS)
    assert figures["hota"] > 0.9


@pytest.mark.parametrize("to", ["scene", "association"])
def test_the_head_goes_into_a_scene_model_and_back(tmp_path: Path, to: str) -> None:
    same = ["model.identity.appearance=0", "model.identity.depth=1"]
    modules = {
        "association": module_of(*same),
        "scene": build_module(compose_run([*TINY, *same])),
    }
    target = modules.pop(to)
    (source,) = modules.values()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "head.ckpt")
    report = init_from(target, tmp_path / "head.ckpt", parts=["model.identity"])
    assert report.keys.matched and not report.keys.missing and not report.keys.reshaped
    head, theirs = target.model.identity, source.model.identity
    assert head is not None and theirs is not None
    for name, value in head.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_a_camera_that_moves_changes_nothing_where_it_is_taken_off() -> None:
    module = module_of("tracker.camera=4").eval()

    def tracked(shake: float) -> dict[str, float]:
        video = walk(people=6, frames=60)
        steps = np.random.default_rng(0).uniform(-shake, shake, 61).cumsum()
        video.table.boxes[:, 0] += steps[video.table.frames]
        batch = collate([BoxStream([BoxVideo.of(video, EXACT)], length=60)[0]], 60)
        module.evaluator.reset([video])
        with torch.no_grad():
            predictions, _ = module.model(batch.seen, batch.seconds, batch.padding_mask)
        module.evaluator.update(module.model, predictions, batch)
        return module.evaluator.compute()

    still, moving = tracked(0.0), tracked(10.0)
    assert moving == pytest.approx(still, abs=1e-3) and moving["loca"] > 0.99


def test_what_a_checkpoint_holds_builds_the_model_again() -> None:
    module = module_of()
    cfg = compose_run(BOXES)
    OmegaConf.resolve(cfg)
    again = build_module(cfg)
    again.load_state_dict(module.state_dict())


def test_wrong_detections_are_found_with_the_other_mistakes_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "train" / "A" / "seqinfo.ini"
    file.parent.mkdir(parents=True)
    file.write_text(malformed.SEQINFO)
    malformed.KINDS["sequence"].read(file)
    words = ["dataset=mot", f"dataset.root={tmp_path}", "dataset.train=train", "dataset.val=train"]
    nowhere = f"dataset.detections={tmp_path / 'nowhere'}"
    data = instantiate(compose_run([*BOXES, *words, nowhere]).dataset)
    with pytest.raises(FileNotFoundError, match="dataset.detections="):
        data.setup("fit")
