"""Resized frames and their cache: same pixels, stale files, several processes, faults."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene_track.data import frame_store
from scene_track.data.frame_store import FrameStore, read_frame
from scene_track.data.images import FrameError
from scene_track.data.video import Video, read_sequence
from scene_track.io.slots import SlotFile

SIZE = (24, 40)


@pytest.fixture
def noisy(make_sequence) -> Video:
    folder = make_sequence(length=5, size=(48, 64), extension="jpg")
    rng = np.random.default_rng(0)
    for file in (folder / "img1").iterdir():
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file)
    return read_sequence(folder, classes={1: "person"})


def test_cached_frames_equal_decoded_ones(
    noisy: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [FrameStore(noisy, SIZE, None).read(i) for i in range(5)]
    assert plain[0].shape == (3, *SIZE)
    assert plain[0].dtype == torch.uint8
    assert not torch.equal(plain[0], plain[1])
    filling = FrameStore(noisy, SIZE, tmp_path)
    for i in (3, 0, 4, 1, 2):
        assert torch.equal(filling.read(i), plain[i])
    monkeypatch.setattr(frame_store, "read_image", lambda *_, **__: pytest.fail("decoded again"))
    for store in (filling, FrameStore(noisy, SIZE, tmp_path)):
        for i in range(5):
            assert torch.equal(store.read(i), plain[i])


def test_a_returned_frame_may_be_written_to(noisy: Video, tmp_path: Path) -> None:
    store = FrameStore(noisy, SIZE, tmp_path)
    expected = store.read(0).clone()
    store.read(0).zero_()
    assert torch.equal(store.read(0), expected)


def test_a_changed_image_makes_a_new_cache(noisy: Video, tmp_path: Path) -> None:
    store = FrameStore(noisy, SIZE, tmp_path)
    old, path = store.read(1), store.path
    Image.new("RGB", (64, 48), (200, 10, 10)).save(noisy.files[1])
    store = FrameStore(noisy, SIZE, tmp_path)
    assert not torch.equal(store.read(1), old)
    assert torch.equal(store.read(1), read_frame(noisy, 1, SIZE))
    assert not path.exists()
    assert len(list(tmp_path.glob("*.frames"))) == 1


def test_sizes_do_not_share_a_cache(noisy: Video, tmp_path: Path) -> None:
    small, large = FrameStore(noisy, (8, 8), tmp_path), FrameStore(noisy, (16, 16), tmp_path)
    assert small.read(0).shape == (3, 8, 8)
    assert large.read(0).shape == (3, 16, 16)
    assert small.read(0).shape == (3, 8, 8)


def _fill(store: FrameStore, start: int) -> None:
    torch.set_num_threads(1)
    for step in range(5):
        store.read((start + step) % 5)
    os._exit(0)


def test_processes_fill_one_cache_together(noisy: Video, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    store = FrameStore(noisy, SIZE, tmp_path / "cache")
    workers = [context.Process(target=_fill, args=(store, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    for i in range(5):
        assert torch.equal(store.read(i), read_frame(noisy, i, SIZE))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no temporary file is left


def test_frames_that_cannot_be_used(noisy: Video, tmp_path: Path) -> None:
    content = noisy.files[0].read_bytes()
    noisy.files[0].write_bytes(content[: len(content) // 2])
    noisy.files[1].write_bytes(b"not a picture")
    noisy.files[2].unlink()
    Image.new("RGB", (64, 50)).save(noisy.files[3])
    for cache in (None, tmp_path):
        store = FrameStore(noisy, SIZE, cache)
        for position, reason in (
            (0, "cannot be decoded"),
            (1, "cannot be decoded"),
            (2, "missing"),
            (3, "64x50 pixels, the sequence.s are 64x48"),
        ):
            for _ in range(2):  # a fault is not cached as a black frame
                with pytest.raises(FrameError, match=reason) as caught:
                    store.read(position)
                assert str(noisy.files[position]) in str(caught.value)
        assert torch.equal(store.read(4), read_frame(noisy, 4, SIZE))


def test_a_full_disk_ends_the_caching_not_the_run(
    noisy: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FrameStore(noisy, SIZE, tmp_path)
    kept = store.read(0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(store.path))

    monkeypatch.setattr(SlotFile, "write", full)
    with caplog.at_level(logging.WARNING):
        for position in (1, 2, 0):
            assert torch.equal(store.read(position), read_frame(noisy, position, SIZE))
    assert torch.equal(store.read(0), kept)
    assert caplog.text.count(str(store.path)) == 1, "said once, and of which file"
    monkeypatch.setattr(SlotFile, "create", full)
    other = FrameStore(noisy, (8, 8), tmp_path)
    assert torch.equal(other.read(3), read_frame(noisy, 3, (8, 8)))


def test_other_errors_of_the_disk_are_raised_with_the_file(
    noisy: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    store = FrameStore(noisy, SIZE, tmp_path)
    with pytest.raises(OSError) as caught:
        store.read(0)
    assert caught.value.filename == str(store.path)
