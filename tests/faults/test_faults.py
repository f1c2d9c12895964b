"""The short version of ``python -m tests.faults.campaign``; the figures are in reliability.md."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scene_track.data.frame_store import FrameStore, read_frame
from scene_track.data.video import read_sequence
from tests.faults import kills, malformed

_FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


_COMPOSED = ("yaml", "words", "resumed")
_READ = [kind for kind in malformed.KINDS if kind not in ("jpeg", "png", *_COMPOSED)]


@pytest.mark.parametrize("kind", _READ)
@_FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_a_malformed_file_is_read_or_one_line_with_its_name(
    tmp_path: Path, kind: str, seed: int
) -> None:
    malformed.attempt(kind, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", _COMPOSED)
def test_a_malformed_configuration_is_composed_or_one_line(tmp_path: Path, kind: str) -> None:
    for seed in range(4):
        malformed.attempt(kind, tmp_path, seed)


def test_a_sum_that_is_wrong_is_found_in_weights_and_checkpoints(tmp_path: Path) -> None:
    for kind in ("weights", "checkpoint"):
        spoiled = malformed.KINDS[kind]
        raw = bytearray(spoiled.content())
        place = raw.index(torch.arange(64.0).numpy().tobytes())
        raw[place + 100] ^= 1
        (tmp_path / spoiled.name).write_bytes(raw)
        with pytest.raises(ValueError, match=spoiled.name):
            spoiled.read(tmp_path / spoiled.name)


def test_killed_processes_leave_a_cache_of_the_right_frames(tmp_path: Path) -> None:
    file = tmp_path / "A" / "seqinfo.ini"
    file.parent.mkdir()
    file.write_text(malformed.SEQINFO)
    malformed.KINDS["sequence"].read(file)
    video = read_sequence(file.parent, classes={1: "person"})
    context = multiprocessing.get_context("fork")
    for pause in (0.0, 0.005, 0.02):
        process = context.Process(target=_fill, args=(video, tmp_path / "cache"))
        process.start()
        process.join(pause)
        while pause and not any((tmp_path / "cache").rglob("*.*")):
            process.join(0.005)  # a kill before anything is written proves nothing
        process.kill()
        process.join()
        store = FrameStore(video, (16, 24), tmp_path / "cache")
        for position in range(len(video)):
            assert torch.equal(store.read(position), read_frame(video, position, (16, 24)))


def _fill(video, folder: Path) -> None:
    while True:
        for position in range(len(video)):
            FrameStore(video, (16, 24), folder).read(position)


@pytest.mark.slow
def test_a_training_that_is_killed_twice_ends_with_the_same_weights(tmp_path: Path) -> None:
    tally = kills.training(tmp_path, kills=2, workers=0, seed=1, epochs=1)
    assert (tally.torn, tally.different) == (0, 0)
