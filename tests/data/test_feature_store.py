"""Features on disk: shared by processes, bound to an image, limited; torn files: io/test_slots."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from scene_track.data.feature_store import FeatureSource, FeatureStore, FrameKey, frame_key
from scene_track.data.video import Video, read_sequence
from scene_track.io import slots

VALUES = 3000
LENGTH = 6


@pytest.fixture
def sequence(make_sequence) -> Video:
    return read_sequence(make_sequence(length=LENGTH), classes={1: "person"})


def store_at(root: Path, *, writable: bool = True) -> FeatureStore:
    return FeatureStore(root, "net", values=VALUES, limit_bytes=10**9, writable=writable)


def holds(store: FeatureStore, key: FrameKey, value: torch.Tensor) -> bool:
    found = store.read(key)
    return found is not None and torch.equal(found, value)


def record(value: float) -> torch.Tensor:
    """A record that tells by itself when it is torn."""
    return torch.full((VALUES,), value, dtype=torch.float16)


def test_what_was_written_is_read_by_others(sequence: Video, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    keys = [frame_key(sequence, i, mirrored=side) for i in range(LENGTH) for side in (False, True)]
    assert len(set(keys)) == 2 * LENGTH
    assert all(store.read(key) is None for key in keys)
    records = [torch.randn(VALUES).half() for _ in keys]
    for key, value in zip(keys, records, strict=True):
        assert store.write(key, value)
    for other in (store, store_at(tmp_path), pickle.loads(pickle.dumps(store))):
        for key, value in zip(keys, records, strict=True):
            found = other.read(key)
            assert found is not None and torch.equal(found, value)
            found.zero_()  # a copy: the store is not touched
            assert holds(other, key, value)


def test_a_part_of_a_sequence_shares_with_the_whole(sequence: Video) -> None:
    part = sequence.between(3, 5)
    assert frame_key(part, 0, mirrored=False) == frame_key(sequence, 2, mirrored=False)


def test_networks_do_not_share(sequence: Video, tmp_path: Path) -> None:
    key = frame_key(sequence, 0, mirrored=False)
    one = store_at(tmp_path)
    other = FeatureStore(tmp_path, "other", values=VALUES, limit_bytes=10**9)
    one.write(key, record(1))
    assert other.read(key) is None


def test_a_changed_image_is_another_frame(sequence: Video, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.write(frame_key(sequence, 1, mirrored=False), record(1))
    Image.new("RGB", (48, 32), (200, 10, 10)).save(sequence.files[1])
    key = frame_key(sequence, 1, mirrored=False)
    assert store.read(key) is None
    store.write(key, record(2))
    assert holds(store, key, record(2))
    sequence.files[1].unlink()
    gone = frame_key(sequence, 1, mirrored=False)
    assert store.read(gone) is None and not store.write(gone, record(3))


def test_the_limit_holds_and_is_said_once(
    sequence: Video, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = 32 * 1024  # 64 KiB a record: what the file system rounds up to plays no part
    limit = 5 * 64 * 1024
    store = FeatureStore(tmp_path, "net", values=values, limit_bytes=limit)
    kept = [
        store.write(frame_key(sequence, i, mirrored=side), torch.ones(values).half())
        for side in (False, True)
        for i in range(LENGTH)
    ]
    assert 2 <= sum(kept) <= 5 and kept == sorted(kept, reverse=True)
    assert store.used_bytes() <= limit
    assert caplog.text.count("cache_limit_gb") == 1 and str(tmp_path / "net") in caplog.text
    assert store.read(frame_key(sequence, 0, mirrored=False)) is not None, "what is there stays"
    fresh = FeatureStore(tmp_path, "other", values=values, limit_bytes=limit)
    keys = [frame_key(sequence, i, mirrored=False) for i in range(LENGTH)]
    assert not all([fresh.write(key, torch.ones(values).half()) for key in keys]), (
        "the limit is on all stores together"
    )


def test_a_full_disk_ends_the_filling_not_the_run(
    sequence: Video,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_space(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = store_at(tmp_path)
    key = frame_key(sequence, 0, mirrored=False)
    monkeypatch.setattr(slots, "_write_at", no_space)
    assert not store.write(key, record(1)) and not store.write(key, record(1))
    assert caplog.text.count("is full") == 1
    assert store.read(key) is None


def test_a_read_only_store_makes_nothing(sequence: Video, tmp_path: Path) -> None:
    store = store_at(tmp_path / "none", writable=False)
    key = frame_key(sequence, 0, mirrored=False)
    assert store.read(key) is None and not store.write(key, record(1))
    assert not (tmp_path / "none").exists()


def test_a_source_serves_while_the_network_is_frozen(tmp_path: Path) -> None:
    source = FeatureSource()
    assert not source.serves(0)
    source.store = store_at(tmp_path)
    assert source.serves(0) and source.serves(1000)
    source.until = 2
    assert [source.serves(epoch) for epoch in (0, 1, 2)] == [True, True, False]
    assert source.serves()
    source.epoch = 2  # workers outlive epochs and know theirs from the sample; streams ask for now
    assert not source.serves()
