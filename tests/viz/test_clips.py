"""Clips: what comes back when the file is read again."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from scene_track.viz.clips import write_clip


def frames(count: int = 6, height: int = 24, width: int = 40):
    """A white square that moves right by four pixels a frame."""
    for n in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[8:16, 4 * n : 4 * n + 8] = 255
        yield frame


def read_gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Frames, and milliseconds for which each is shown."""
    with Image.open(path) as clip:
        shown = [
            (np.asarray(frame.convert("RGB")).astype(int), int(frame.info["duration"]))
            for frame in ImageSequence.Iterator(clip)
        ]
    return [frame for frame, _ in shown], [duration for _, duration in shown]


def test_gif_round_trip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "new" / "clip.gif", frames(), fps=30)
    with Image.open(path) as clip:
        assert clip.info["loop"] == 0
    found, durations = read_gif(path)
    assert sum(durations) == 200 and set(durations) == {30, 40}  # 6 frames at 30 fps
    for frame, expected in zip(found, frames(), strict=True):
        assert np.abs(frame - expected).max() <= 2
    assert list(path.parent.iterdir()) == [path]  # no half file beside it


def test_equal_frames_of_a_gif_keep_their_time(tmp_path: Path) -> None:
    still = [np.full((20, 30, 3), 50, np.uint8)] * 3
    moved = [np.full((20, 30, 3), 90, np.uint8)]
    found, durations = read_gif(write_clip(tmp_path / "clip.gif", still + moved, fps=10))
    assert durations == [300, 100] and (found[0] == 50).all() and (found[1] == 90).all()


@pytest.mark.parametrize("colours", [2, 5, 300])
def test_gif_of_few_and_of_many_colours(tmp_path: Path, colours: int) -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    for n in range(colours):
        frame[n % 20, n // 20] = (n % 256, 0, 255 * (n > 255))
    both = [frame, frame[::-1].copy()]
    found, _ = read_gif(write_clip(tmp_path / "clip.gif", both, fps=10))
    tolerance = 0 if colours < 256 else 40
    for one, expected in zip(found, both, strict=True):
        assert np.abs(one - expected).max() <= tolerance


def test_mp4_round_trip(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_clip(tmp_path / "clip.mp4", frames(height=65, width=97), fps=29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(29.97, rel=1e-3)
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in found] == [(64, 96, 3)] * 6
    for n, frame in enumerate(found):
        columns = np.nonzero(frame[12, :, 0] > 128)[0]
        assert abs(columns.mean() - (4 * n + 3.5)) < 1.5


def test_mp4_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    real = importlib.import_module

    def missing(name: str, *arguments):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'scene_track\[video\]'"):
        write_clip(tmp_path / "clip.mp4", frames(), fps=20)


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [("clip.avi", 20, ".gif or .mp4"), ("clip.gif", 60, "0-50"), ("clip.gif", 0, "0-50")],
)
def test_bad_options_are_named(tmp_path: Path, name: str, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / name, frames(), fps=fps)
    assert not list(tmp_path.iterdir())


def test_bad_frames_are_named_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_clip(tmp_path / "a.gif", [], fps=20)
    two_sizes = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]
    with pytest.raises(ValueError, match="frame 1 is 4x6, the ones before are 4x4"):
        write_clip(tmp_path / "a.gif", two_sizes, fps=20)
    assert not list(tmp_path.iterdir())
