"""Clips: what comes back when the file is read again."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from scene_track.viz.clips import VideoWriter, write_clip


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
    assert sum(durations) == 400 and durations[-1] == 100
    assert (found[0] == 50).all() and (found[-1] == 90).all()


@pytest.mark.parametrize("colours", [2, 5, 300])
def test_gif_of_few_and_of_many_colours(tmp_path: Path, colours: int) -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    for n in range(colours):
        frame[n % 20, n // 20] = (n % 256, 0, 255 * (n > 255))
    both = [frame, frame[::-1].copy()]
    found, _ = read_gif(write_clip(tmp_path / "clip.gif", both, fps=10))
    tolerance = 2 if colours < 256 else 40
    for one, expected in zip(found, both, strict=True):
        assert np.abs(one - expected).max() <= tolerance


def test_mp4_round_trip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames(height=65, width=97), fps=29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(29.97, rel=1e-3)
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in found] == [(64, 96, 3)] * 6
    for n, frame in enumerate(found):
        columns = np.nonzero(frame[12, :, 0] > 128)[0]
        assert abs(columns.mean() - (4 * n + 3.5)) < 1.5


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


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_frames_keep_their_times_and_the_last_one_its_length(tmp_path: Path, kind) -> None:
    path, times = tmp_path / f"clip.{kind}", [0.0, 0.04, 0.3, 0.34, 1.5, 1.54]
    with VideoWriter(path, kind, fps=25) as writer:
        for frame, seconds in zip(frames(), times, strict=True):
            writer.write(frame, seconds)
    with av.open(str(path)) as container:
        found = [frame.time for frame in container.decode(video=0)]
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(1.58, abs=0.011)
    assert found == pytest.approx(times, abs=1e-4)


def test_a_gif_leaves_out_frames_that_come_too_soon(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    with VideoWriter(path, "gif", fps=100) as writer:
        for number, frame in enumerate(frames()):
            writer.write(frame, number / 100)
    assert len(read_gif(path)[0]) == 3


def test_colours_of_an_mp4_are_those_of_the_frames(tmp_path: Path) -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (230, 230, 230)]
    blocks = np.repeat(np.array(colours, np.uint8)[None], 32, axis=0).repeat(32, axis=1)
    with av.open(str(write_clip(tmp_path / "clip.mp4", [blocks] * 3, fps=5))) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited: stated
        found = frame.to_ndarray(format="rgb24")
    for n, colour in enumerate(colours):
        assert np.abs(found[16, 32 * n + 16].astype(int) - colour).max() <= 4
