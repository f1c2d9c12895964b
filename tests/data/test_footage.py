"""Frames of any video: as a player shows them, with the file's times; faults are one line."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from scene_track.data.footage import FootageFrame, open_footage
from tests.videos import squares, write_video

FRAMES = squares(6)


def frames_of(source, fps: float | None = None) -> list[FootageFrame]:
    return list(open_footage(source, fps).frames)


def difference(found: list[FootageFrame], expected: list[np.ndarray]) -> float:
    """Mean over the frames of how far the pixels are away, 0-255."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([np.abs(a.image.astype(int) - b).mean() for a, b in pairs]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("plain.avi", {"codec": "mpeg4", "options": {"b": "4000000"}}),
        ("plain.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p", "options": {}}),
        ("plain.mov", {"pix_fmt": "yuv444p"}),
        ("ten_bits.mkv", {"pix_fmt": "yuv420p10le"}),
        ("full_range.mp4", {"full_range": True}),
        ("b_frames.mp4", {"options": {"crf": "10", "bf": "3", "b_strategy": "0"}}),
    ],
)
def test_every_container_and_format_gives_the_frames(tmp_path: Path, name, options) -> None:
    footage = open_footage(write_video(tmp_path / name, FRAMES, **options))
    assert (footage.height, footage.width) == (64, 96) and not footage.live
    assert footage.name == name.split(".")[0]
    assert footage.frame_rate == pytest.approx(20, rel=0.05)
    found = list(footage.frames)
    assert [frame.number for frame in found] == [1, 2, 3, 4, 5, 6]
    assert [frame.seconds for frame in found] == pytest.approx([n / 20 for n in range(6)], abs=2e-3)
    assert difference(found, FRAMES) < 4


def test_gray_and_odd_sizes(tmp_path: Path) -> None:
    odd = squares(4, 65, 97)
    found = frames_of(write_video(tmp_path / "odd.mp4", odd, pix_fmt="yuv444p"))
    assert found[0].image.shape == (65, 97, 3) and difference(found, odd) < 4
    gray = [np.repeat(frame.mean(-1, keepdims=True), 3, -1).astype(np.uint8) for frame in FRAMES]
    found = frames_of(write_video(tmp_path / "gray.mkv", gray, codec="ffv1", pix_fmt="gray"))
    assert difference(found, gray) < 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_are_those_of_the_file_from_its_first_frame(tmp_path: Path, name: str) -> None:
    times = [5.0, 5.04, 5.3, 6.5, 6.52, 9.0]
    file = write_video(tmp_path / name, FRAMES, times)
    expected = [t - 5 for t in times]
    assert [f.seconds for f in frames_of(file)] == pytest.approx(expected, abs=2e-3)
    assert [f.seconds for f in frames_of(file, fps=10)] == pytest.approx(np.arange(6) / 10)


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_a_turned_video_is_turned_back(tmp_path: Path, turned: int) -> None:
    footage = open_footage(write_video(tmp_path / "a.mp4", FRAMES, turned=turned))
    expected = [np.rot90(frame, turned // 90) for frame in FRAMES]
    assert (footage.height, footage.width) == expected[0].shape[:2]
    assert difference(list(footage.frames), expected) < 4


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", FRAMES, aspect=Fraction(3, 2))
    footage = open_footage(file)
    assert (footage.height, footage.width) == (64, 144)
    (first, *_) = footage.frames
    assert first.image.shape == (64, 144, 3)


def test_a_file_that_breaks_off_gives_what_can_be_decoded(tmp_path: Path, caplog) -> None:
    many = squares(60)
    whole = write_video(tmp_path / "a.mkv", many, options={"g": "10", "crf": "10"}).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    found = frames_of(tmp_path / "cut.mkv")
    assert 20 < len(found) < 60 and difference(found[:20], many[:20]) < 4
    assert f"frame {len(found)}" in caplog.text
    caplog.clear()
    whole = write_video(tmp_path / "a.mp4", many, options={"g": "10", "crf": "10"}).read_bytes()
    start, stop = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    hole, tenth = bytearray(whole), (stop - start) // 10
    hole[start + 4 * tenth : start + 5 * tenth] = bytes(tenth)
    (tmp_path / "hole.mp4").write_bytes(hole)
    found = frames_of(tmp_path / "hole.mp4")
    assert len(found) > 30 and difference(found[-5:], many[-5:]) < 4
    assert "broken after frame" in caplog.text
    # Who is left out keeps a number: a file of detections still fits.
    assert len(found) < 60 and [f.number for f in found] == [
        round(20 * f.seconds) + 1 for f in found
    ]


def test_a_header_that_lies_about_the_number_of_frames(tmp_path: Path, caplog) -> None:
    file = write_video(tmp_path / "a.avi", FRAMES, codec="mpeg4", options={})
    content = bytearray(file.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):  # total frames of file and stream
        place = content.index(tag) + offset
        content[place : place + 4] = (500).to_bytes(4, "little")
    file.write_bytes(content)
    footage = open_footage(file)
    assert footage.length == 500
    assert len(list(footage.frames)) == 6
    assert "after frame 6" in caplog.text and "500" in caplog.text


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", FRAMES).read_bytes()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "no_index.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000)
        for n in range(10):
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), "fltp", layout="mono"
            )
            samples.sample_rate, samples.pts = 8000, 1024 * n
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    words = {"text": "expected", "empty": "empty", "no_index": "moov", "sound": "no video stream"}
    for file in ("text.mp4", "empty.mp4", "no_index.mp4", "sound.m4a"):
        with pytest.raises(ValueError, match=words[file.partition(".")[0]]) as caught:
            open_footage(tmp_path / file)
        assert "\n" not in str(caught.value) and file in str(caught.value)
    for missing in ("gone.mp4", "gone/*.jpg"):
        with pytest.raises(FileNotFoundError, match="source="):
            open_footage(tmp_path / missing)


def test_images_of_a_folder_a_glob_and_a_sequence(tmp_path: Path, caplog) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n, frame in enumerate(FRAMES, start=8):  # frame9 comes before frame10
        Image.fromarray(frame).save(folder / f"frame{n}.png")
    for source in (folder, folder / "frame*.png", str(folder / "*.png")):
        found = frames_of(source, fps=10)
        assert difference(found, FRAMES) == 0
        assert [frame.seconds for frame in found] == pytest.approx(np.arange(6) / 10)
    with pytest.raises(ValueError, match="fps="):
        open_footage(folder)
    (folder / "frame10.png").write_bytes(b"no image")
    assert [frame.number for frame in frames_of(folder, fps=10)] == [1, 2, 4, 5, 6]
    assert "frame 3" in caplog.text
    assert len(frames_of(folder / "frame8.png")) == 1

    sequence = tmp_path / "dance0001"
    sequence.mkdir()
    folder.rename(sequence / "img1")
    for n, file in enumerate(sorted((sequence / "img1").glob("*"))):
        file.unlink()
        Image.fromarray(FRAMES[n]).save(sequence / "img1" / f"{n + 1:08d}.jpg")
    (sequence / "seqinfo.ini").write_text(
        "[Sequence]\nname=dance0001\nframeRate=20\nseqLength=6\nimWidth=96\nimHeight=64\n"
    )
    footage = open_footage(sequence)
    assert (footage.name, footage.frame_rate, footage.length) == ("dance0001", 20, 6)
    assert [f.seconds for f in footage.frames] == pytest.approx(np.arange(6) / 20)


def test_arrays_and_what_is_wrong_with_them() -> None:
    assert difference(frames_of(iter(FRAMES), fps=30), FRAMES) == 0
    with pytest.raises(ValueError, match="fps="):
        open_footage(FRAMES)
    with pytest.raises(ValueError, match="no frames"):
        open_footage([], fps=30)
    with pytest.raises(ValueError, match="uint8"):
        open_footage([np.zeros((4, 4, 3))], fps=30)
    with pytest.raises(ValueError, match="one size"):
        frames_of([FRAMES[0], FRAMES[0][:10]], fps=30)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a web server for ``tmp_path``."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_and_a_camera(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mkv", FRAMES)
    footage = open_footage(f"{served}/a.mkv")
    assert footage.name == "a" and len(list(footage.frames)) == 6
    with pytest.raises((ValueError, FileNotFoundError)):
        open_footage(f"{served}/gone.mkv")
    with pytest.raises((ValueError, FileNotFoundError), match="camera 99"):
        open_footage(99)


def test_a_damaged_frame_and_a_file_cut_after_a_frame_are_said(tmp_path: Path, caplog) -> None:
    many = squares(60)
    whole = write_video(tmp_path / "a.mkv", many).read_bytes()
    file, size = tmp_path / "b.mkv", len(whole)
    file.write_bytes(whole[: size * 7 // 10])
    assert len(frames_of(file)) < len(many) and "after frame" in caplog.text
    caplog.clear()
    hole = bytearray(whole)
    hole[size * 7 // 10] ^= 0xFF
    file.write_bytes(hole)
    assert len(frames_of(file)) == len(many) and "is damaged" in caplog.text
