"""Windows, training clips, streaming chunks, batches."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scene_track.data.clips import ClipDataset, StreamDataset, window_starts
from scene_track.data.collate import collate
from scene_track.data.images import FrameError
from scene_track.data.resumable_loader import ResumableLoader
from scene_track.data.video import read_sequence
from tests.data.augment import STRONG, augment

SIZE = (32, 48)
PERSON = {1: "person"}


def clips(folders: list[Path], **options: Any) -> ClipDataset:
    settings: dict[str, Any] = {
        "size": SIZE,
        "length": 4,
        "stride": 2,
        "max_interval": 1,
        "augment": augment(),
        "seed": 0,
    }
    on_error = options.get("on_error", "raise")
    sequences = [read_sequence(f, classes=PERSON, on_error=on_error) for f in folders]
    return ClipDataset(sequences, **(settings | options))


def test_window_starts() -> None:
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(10, 4, 4) == [0, 4, 6]  # the last one reaches the end
    assert window_starts(10, 10, 3) == [0]
    assert window_starts(3, 10, 3) == [0]  # short
    assert window_starts(5, 2, 7) == [0, 3]  # stride beyond the length skips frames, not the end


@given(st.integers(1, 200), st.integers(1, 30), st.integers(1, 30))
def test_windows_cover_the_sequence(count: int, length: int, stride: int) -> None:
    starts = window_starts(count, length, stride)
    covered = {f for s in starts for f in range(s, min(s + length, count))}
    assert max(covered) == count - 1
    assert len(set(starts)) == len(starts)
    if stride <= length:
        assert covered == set(range(count))


@pytest.mark.parametrize("reverse", [0, 1])
def test_targets_belong_to_their_frames(make_sequence, walking_gt, reverse: int) -> None:
    options = {"length": 2, "max_interval": 3, "augment": augment(reverse=reverse)}
    dataset = clips([make_sequence(gt=walking_gt)], **options)
    intervals = set()
    for epoch in range(12):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            numbers = sample.frame_indices.tolist()
            intervals.add(numbers[1] - numbers[0])
            for t, number in enumerate(numbers):
                assert (sample.frames[t] == 10 * number).all()  # the frame's grey level
                left = sample.boxes[t][0, 0] - sample.boxes[t][0, 2] / 2
                assert left * 48 == pytest.approx(2 * number, abs=1e-4)
                assert sample.track_ids[t].tolist() == [7]
    assert intervals == ({-1, -2, -3} if reverse else {1, 2, 3})


def test_epochs_reach_every_start(make_sequence) -> None:
    dataset = clips([make_sequence(length=13)], length=3, stride=4)
    starts = {int(dataset[e, i].frame_indices[0]) for e in range(20) for i in range(len(dataset))}
    assert starts == set(range(1, 12))


def test_a_long_interval_gives_way_to_a_short_sequence(make_sequence) -> None:
    dataset = clips([make_sequence(length=6)], length=3, max_interval=50)
    seen = {tuple(dataset[e, 0].frame_indices.tolist()) for e in range(40)}
    steps = {b - a for a, b, _ in seen}
    assert steps == {1, 2}
    assert min(min(n) for n in seen) == 1
    assert max(max(n) for n in seen) == 6


def test_a_sample_is_a_function_of_seed_epoch_and_index(make_sequence, walking_gt) -> None:
    folder = make_sequence(gt=walking_gt)
    first, second = (clips([folder], augment=augment(**STRONG), seed=3) for _ in range(2))
    _ = [second[9, 0], torch.rand(3)]  # what came before does not matter
    a, b = first[4, 1], second[4, 1]
    assert torch.equal(a.frames, b.frames)
    assert all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))
    others = [first[5, 1], first[4, 0], clips([folder], augment=augment(**STRONG), seed=4)[4, 1]]
    assert all(not torch.equal(a.frames, other.frames) for other in others)


def test_workers_change_nothing_over_epochs(make_sequence, walking_gt, tmp_path: Path) -> None:
    folders = [make_sequence(n, gt=walking_gt) for n in "AB"]
    seen = []
    for workers in (0, 2):
        dataset = clips(folders, augment=augment(**STRONG), cache_dir=tmp_path / f"cache{workers}")
        loader = ResumableLoader(
            dataset,
            batch_size=2,
            seed=1,
            num_workers=workers,
            collate_fn=partial(collate, length=4),
        )
        batches = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            batches += list(loader)
        seen.append(batches)
    assert len(seen[0]) == len(seen[1]) == 4
    for a, b in zip(*seen, strict=True):
        assert a.sequence_ids == b.sequence_ids
        for name in ("frames", "boxes", "track_ids", "frame_indices", "padding_mask"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(seen[0][0].frames, seen[0][2].frames)  # epochs differ


def test_a_short_sequence_is_one_padded_sample(make_sequence) -> None:
    folder = make_sequence(length=2, gt="1,3,0,0,24,16,1,1,1\n2,3,0,0,24,16,1,1,1\n")
    dataset = clips([folder])
    assert len(dataset) == 1
    batch = collate([dataset[0, 0]], length=4)
    assert batch.frames.shape == (1, 4, 3, *SIZE)
    assert batch.padding_mask.tolist() == [[False, False, True, True]]
    assert batch.frame_indices.tolist() == [[1, 2, 2, 2]]
    assert batch.frames[0, 2:].max() == 0
    assert batch.track_ids[0, :, 0].tolist() == [3, 3, -1, -1]
    assert batch.boxes[0, 0].tolist() == [[0.25, 0.25, 0.5, 0.5]]
    assert batch.boxes[0, 2:].abs().max() == 0
    assert batch.sequence_length.tolist() == [2]
    assert batch.original_size.tolist() == [list(SIZE)]
    assert batch.frame_rate.tolist() == [20.0]


def test_batches_without_objects_keep_a_column(make_sequence) -> None:
    batch = collate([clips([make_sequence()])[0, 0]] * 2, length=4)
    assert batch.boxes.shape == (2, 4, 1, 4)
    assert not batch.valid.any()
    assert batch.xyz is None


def test_objects_are_padded_to_the_fullest_frame(make_sequence) -> None:
    gt = "1,1,0,0,5,5,1,1,1\n1,2,9,9,5,5,1,1,1\n2,1,0,0,5,5,1,1,1\n"
    batch = collate([clips([make_sequence(length=2, gt=gt)], length=2)[0, 0]], length=2)
    assert batch.track_ids.tolist() == [[[1, 2], [1, -1]]]
    assert batch.confidence.tolist() == [[[1, 1], [1, 0]]]


def test_positions_are_mirrored_with_the_picture(make_sequence) -> None:
    gt = "1,1,0,0,5,5,1,1,1\n1,2,9,9,5,5,1,1,1\n"
    folder = make_sequence(length=1, gt=gt, xyz="1,1,1.5,2,7\n")
    batch = collate([clips([folder], length=1, augment=augment(flip=1))[0, 0]], length=1)
    assert batch.xyz is not None
    assert batch.xyz[0, 0, 0].tolist() == [-1.5, 2, 7]
    assert batch.xyz[0, 0, 1].isnan().all()


def test_training_boxes_are_clipped_and_dropped(make_sequence) -> None:
    gt = "1,1,-8,0,16,32,1,1,1\n1,2,-14,0,16,32,1,1,1\n"
    folder = make_sequence(length=1, gt=gt)
    sample = clips([folder], length=1, augment=augment(min_visible=0.25))[0, 0]
    assert sample.track_ids[0].tolist() == [1]
    torch.testing.assert_close(sample.boxes[0], torch.tensor([[4 / 48, 0.5, 8 / 48, 1.0]]))


def test_streaming_goes_through_whole_sequences_in_order(make_sequence) -> None:
    folders = [make_sequence("A", length=7), make_sequence("B", length=2)]
    sequences = [read_sequence(f, classes=PERSON) for f in folders]
    dataset = StreamDataset(sequences, size=SIZE, length=3)
    batches = [collate([dataset[i]], length=3) for i in range(len(dataset))]
    seen = [(b.sequence_ids[0], b.frame_indices[0, ~b.padding_mask[0]].tolist()) for b in batches]
    assert seen == [("A", [1, 2, 3]), ("A", [4, 5, 6]), ("A", [7]), ("B", [1, 2])]
    assert batches[2].padding_mask.tolist() == [[False, True, True]]
    assert (batches[1].frames[0, 2] == 60).all()


def test_streaming_keeps_boxes_over_the_border(make_sequence) -> None:
    folder = make_sequence(size=(30, 40), length=1, gt="1,1,-20,-3,30,60,1,1,1\n")
    sequence = read_sequence(folder, classes=PERSON)
    sample = StreamDataset([sequence], size=(96, 80), length=1)[0]
    assert sample.frames.shape == (1, 3, 96, 80)
    expected = torch.tensor([[-5 / 40, 27 / 30, 30 / 40, 60 / 30]])
    torch.testing.assert_close(sample.boxes[0], expected)


def test_corrupt_frames(make_sequence, walking_gt, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_sequence(gt=walking_gt)
    broken = folder / "img1" / "000002.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(FrameError, match=r"000002.png.*dataset.on_error=skip"):
        _ = [clips([folder])[0, i] for i in range(2)]

    dataset = clips([folder], stride=1, length=4, on_error="skip")
    with caplog.at_level(logging.WARNING):
        samples = [dataset[0, i] for i in range(len(dataset))]
    assert caplog.text.count("skipped frame") == 1  # told once per file, with a count
    assert "(1 so far)" in caplog.text
    assert "000002.png" in caplog.text
    assert samples[0].frame_indices.tolist() == [1, 3, 4]
    for sample in samples:  # what remains is whole: picture, number and target
        for t, number in enumerate(sample.frame_indices.tolist()):
            assert number != 2
            assert (sample.frames[t] == 10 * number).all()
            assert len(sample.boxes[t]) == 1
    batch = collate(samples, length=4)
    assert batch.padding_mask[0].tolist() == [False, False, False, True]


def test_a_clip_of_corrupt_frames_is_all_padding(make_sequence) -> None:
    folder = make_sequence(length=2)
    for file in (folder / "img1").iterdir():
        file.write_bytes(b"nothing")
    dataset = clips([folder], on_error="skip", augment=augment(**STRONG))
    batch = collate([dataset[0, 0]], length=4)
    assert batch.padding_mask.all()
    assert batch.frames.shape == (1, 4, 3, *SIZE)
    assert not batch.valid.any()


def test_overfitting_sees_the_same_clips_in_every_epoch(
    make_sequence: Any, walking_gt: str
) -> None:
    folder = make_sequence(gt=walking_gt)
    fresh = clips([folder], augment=augment(**STRONG))
    fixed = clips([folder], augment=augment(**STRONG), same_every_epoch=True)
    assert torch.equal(fixed[(5, 1)].frames, fixed[(0, 1)].frames)
    assert any(not torch.equal(fresh[(0, 1)].frames, fresh[(e, 1)].frames) for e in range(1, 6))
