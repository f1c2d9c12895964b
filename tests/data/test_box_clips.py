"""Clips of boxes: one draw for boxes and detections, repeatable; several folders by weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scene_track.data.box_clips import BoxClips, BoxStream
from scene_track.data.collate import collate
from scene_track.data.detections import BoxVideo
from scene_track.data.noise import EXACT, Noise
from scene_track.data.parts import MixedClips
from scene_track.data.samples import Sample
from tests.compose import shipped
from tests.tracking.stories import walk


def clips(noise: Noise = EXACT, *, frames: int = 50, seed: int = 0, **augment: float) -> BoxClips:
    off = {"flip": 0.0, "reverse": 0.0, "scale": 0.0, "shift": 0.0} | augment
    return BoxClips(
        [BoxVideo.of(walk(people=3, frames=frames), noise)],
        length=8,
        stride=4,
        max_interval=2,
        augment=shipped("dataset.augment", **off),
        seed=seed,
    )


def detections(sample: Sample) -> list[torch.Tensor]:
    assert sample.detections is not None
    return sample.detections


def test_exact_detections_stay_on_the_boxes_whatever_the_transform() -> None:
    dataset = clips(flip=0.5, scale=0.5, shift=0.3)
    mirrored = 0
    for index in range(len(dataset)):
        sample, plain = dataset[(0, index)], clips()[(0, index)]
        for boxes, found in zip(sample.boxes, detections(sample), strict=True):
            torch.testing.assert_close(boxes, found[:, :4])
        before, after = torch.stack(plain.boxes), torch.stack(sample.boxes)
        zoom = float(after[0, 0, 2] / before[0, 0, 2])
        steps = (after[1:] - after[:-1])[..., :2] / (before[1:] - before[:-1])[..., :2]
        assert 0.6 < zoom < 1.7
        torch.testing.assert_close(steps.abs(), torch.full_like(steps, zoom), rtol=0.01, atol=0)
        mirrored += int((steps[..., 0] < 0).all())
    assert 0 < mirrored < len(dataset)


def test_a_moving_camera_is_taken_off_where_enough_people_show_it() -> None:
    """Five people stand still before a camera that moves by 3 pixels a frame to the right."""
    video = walk(people=5, frames=40)
    video.table.boxes[:, 0] = np.tile(40.0 * np.arange(5), 40) - 3.0 * video.table.frames + 200
    video.table.boxes[:, 1] = 50
    boxes = [BoxVideo.of(video, EXACT)]
    off = {"flip": 0.0, "reverse": 0.0, "scale": 0.0, "shift": 0.0}
    augment = shipped("dataset.augment", **off)
    for pairs, moved in ((0, -3 / 400), (5, 0.0), (6, -3 / 400)):
        dataset = BoxClips(
            boxes, length=8, stride=8, max_interval=1, augment=augment, seed=0, camera_pairs=pairs
        )
        clip = torch.stack(dataset[(0, 1)].boxes)
        steps = (clip[1:] - clip[:-1])[..., 0]
        torch.testing.assert_close(steps, torch.full_like(steps, moved), rtol=0, atol=1e-6)


def test_a_clip_may_run_backwards() -> None:
    forward, back = clips()[(0, 0)], clips(reverse=1.0)[(0, 0)]
    assert (forward.frame_indices.diff() > 0).all() and (back.frame_indices.diff() < 0).all()


def test_a_sample_follows_from_seed_epoch_and_index() -> None:
    first, again = clips(Noise(), scale=0.3)[(2, 3)], clips(Noise(), scale=0.3)[(2, 3)]
    other = clips(Noise(), scale=0.3)[(3, 3)]
    for a, b in zip(detections(first), detections(again), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.boxes[0], other.boxes[0])


def test_a_batch_is_padded_with_a_score_below_0() -> None:
    dataset = clips(Noise(misses=0.5))
    batch = collate([dataset[(0, 0)], dataset[(0, 1)]], 10)
    assert batch.detections is not None and batch.seen is batch.detections
    counts = (batch.detections[..., 4] >= 0).sum(-1)
    assert counts[0, :8].tolist() == [len(d) for d in detections(dataset[(0, 0)])]
    assert (counts[:, 8:] == 0).all() and batch.padding_mask[:, 8:].all()


def test_a_stream_is_whole_and_the_same_every_time() -> None:
    video = BoxVideo.of(walk(people=3, frames=50), Noise())
    chunks = [BoxStream([video], length=16)[index] for index in range(4)]
    assert torch.cat([c.frame_indices for c in chunks]).tolist() == video.video.frames.tolist()
    drawn = [box for chunk in chunks for box in detections(chunk)]
    whole = detections(BoxStream([video], length=50)[0])  # however it is cut into chunks
    assert all(torch.equal(a, b) for a, b in zip(drawn, whole, strict=True))
    assert not torch.equal(drawn[0][:, :4], drawn[1][:, :4])


def test_folders_have_their_share_of_an_epoch_and_all_clips_come() -> None:
    long, short = clips(frames=80), clips(frames=24, seed=1)
    mixed = MixedClips([long, short], [0.5, 2.0], seed=0)
    assert len(mixed) == round(len(long) * 0.5) + 2 * len(short)
    asked: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for number, part in enumerate((long, short)):
        part.__class__ = type("Spy", (BoxClips,), {
            "__getitem__": lambda self, key, number=number: asked[number].append(key)
        })  # fmt: skip
    for epoch in range(2):
        for index in range(len(mixed)):
            mixed[(epoch, index)]
    assert {index for _, index in asked[0]} == set(range(len(long)))  # half in each epoch
    assert all(len(set(keys)) == len(keys) for keys in asked.values())  # no clip twice


def test_clips_to_learn_by_heart_are_the_same_in_every_epoch() -> None:
    parts = [clips(frames=80), clips(frames=24, seed=1)]
    for same in (True, False):
        mixed = MixedClips(parts, [0.5, 1.0], seed=0, same_every_epoch=same)
        starts = [[int(mixed[(e, i)].frame_indices[0]) for i in range(len(mixed))] for e in (0, 1)]
        assert (starts[0] == starts[1]) == same


def test_further_folders_must_give_what_the_first_gives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.further"):
        module = shipped(
            "dataset", "dataset=mot", f"dataset.root={tmp_path}", "dataset.train=[a]",
            "dataset.val=[b]", "dataset.detections=noise",
            f"dataset.further=[{{root: {tmp_path}}}]",
        )  # fmt: skip
        module._sequences["train"] = [walk()]
        module._training_clips(False)
