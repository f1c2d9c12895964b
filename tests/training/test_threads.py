"""Threads of a CPU: the faster number is taken, and a resumed run keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scene_track.training import threads
from scene_track.training.checkpointing import FOLDER, LAST, load_checkpoint


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("busy", "expected"), [(False, 2), (True, 1)])
def test_the_faster_number_is_taken(
    busy: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower = 2 if busy else 1
    monkeypatch.setattr(threads, "_seconds", lambda: 1.0 + (torch.get_num_threads() == slower))
    torch.set_num_threads(2)
    assert threads.fastest(2) == expected
    assert torch.get_num_threads() == 2, "measured, not set"


def test_a_run_keeps_its_number(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "fastest", lambda most: 1)
    torch.set_num_threads(2)
    tiny.fit(tmp_path, threads="auto", max_epochs=1)
    assert torch.get_num_threads() == 1
    saved = load_checkpoint(tmp_path / FOLDER / LAST)["callbacks"]
    assert saved["CpuThreads"] == {"threads": 1}
    monkeypatch.setattr(threads, "fastest", lambda most: 2)  # the machine is idle now
    tiny.fit(tmp_path, threads="auto", max_epochs=2, resume=tmp_path / FOLDER / LAST)
    assert torch.get_num_threads() == 1
    tiny.fit(tmp_path / "typed", threads=2, max_epochs=1)
    assert torch.get_num_threads() == 2
