"""Writes videos: H.264 MP4 that browsers play, and GIF.

Frames are encoded while they come, so memory does not grow with the length. ``write_clip`` gives a
file its name when it is complete, so an interrupted job leaves no half clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import numpy as np
from av.container import OutputContainer
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as NothingMore
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import VideoReformatter
from numpy.typing import ArrayLike
from PIL import Image

from scene_track.io.atomic import atomic_path
from scene_track.viz.boxes import Frame, check_frame

GIF_MAX_FPS = 50
"""Players slow down frames shorter than two hundredths of a second."""

Kind = Literal["mp4", "gif"]

_TICKS = {"mp4": 90_000, "gif": 100}  # per second; a GIF knows no finer time
_BT709 = 1  # FFmpeg's number of the colour space of high-definition video, and of limited range
# H.264 quality (lower is better and larger; 23 is the encoder's own) and effort. Beside veryfast
# at 20 this takes half the time, for a file a tenth smaller and 0.8 dB less (40.8, 720x1280).
_CRF, _PRESET = "23", "superfast"


class VideoWriter:
    """Encodes frames with their times, one by one.

    Use it in a ``with`` block, or call ``close``: a file without its end cannot be played.
    """

    def __init__(self, path: Path, kind: Kind, fps: float) -> None:
        """Open nothing yet: the first frame gives the size.

        Args:
            path: file to write; its folder must exist. Not atomic.
            kind: what is written, whatever the file is called.
            fps: frames per second: how long the last frame is shown; the others have times.

        Raises:
            ValueError: ``fps`` is out of range.
        """
        if not 0 < fps < float("inf"):
            raise ValueError(f"frames per second must be above 0, not {fps}")
        self._path, self._kind, self._fps = path, kind, fps
        self._ticks = _TICKS[kind]
        self._container: OutputContainer | None = None
        self._reformatter = VideoReformatter()  # one for all frames: each frame's own is made anew
        self._size = (0, 0)
        self._last = -1
        self.count = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, frame: ArrayLike, seconds: float) -> None:
        """Encode the next frame.

        Odd sides of an MP4 lose their last row or column: the codec halves the colour resolution.
        In a GIF, a frame that comes sooner than two hundredths of a second after the last one is
        left out.

        Args:
            frame: ``[H, W, 3]`` uint8 RGB, all of one size.
            seconds: when it is shown; later than the frame before.

        Raises:
            ValueError: it has another size than the first one, or is too small for MP4.
        """
        array = check_frame(frame)
        if self._container is None:
            self._open(array)
        elif array.shape[:2] != self._size:
            raise ValueError(
                f"{self._path}: frame {self.count} is {array.shape[0]}x{array.shape[1]}, the ones"
                f" before are {self._size[0]}x{self._size[1]}"
            )
        self.count += 1
        tick = round(seconds * self._ticks)
        if self._kind == "gif" and 0 <= self._last > tick - self._ticks // GIF_MAX_FPS:
            return
        self._last = max(tick, self._last + 1)
        height, width = array.shape[:2]
        if self._kind == "mp4":
            array = array[: height // 2 * 2, : width // 2 * 2]
        shown = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(array), format="rgb24")
        if self._kind == "mp4":
            shown = self._reformatter.reformat(
                shown, format="yuv420p", dst_colorspace=_BT709, threads=1
            )
        shown.pts, shown.time_base = self._last, Fraction(1, self._ticks)
        self._encode(shown)

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            self._encode(None)
            for packet in self._stream.encode():
                self._mux(packet)
            self._container.close()
            self._container = None

    def _open(self, first: Frame) -> None:
        height, width = self._size = first.shape[:2]
        rate = Fraction(self._fps).limit_denominator(1001)
        if self._kind == "mp4":
            height, width = height // 2 * 2, width // 2 * 2
            if not height or not width:
                raise ValueError(
                    f"{self._path}: frames of {self._size[0]}x{self._size[1]} are too small for MP4"
                )
        self._container = container = av.open(str(self._path), mode="w", format=self._kind)
        self._stream = container.add_stream("libx264" if self._kind == "mp4" else "gif", rate=rate)
        self._stream.width, self._stream.height = width, height
        context = self._stream.codec_context
        context.time_base = Fraction(1, self._ticks)
        self._graph: Graph | None = None
        if self._kind == "mp4":
            self._stream.pix_fmt = "yuv420p"
            # Without B-frames a packet's time is its frame's: with them and a variable rate, MP4
            # would end before the last frames.
            self._stream.options = {"crf": _CRF, "preset": _PRESET, "bf": "0"}
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = 1  # limited, as from_ndarray and every player have it
        else:
            self._stream.pix_fmt = "pal8"
            self._graph = self._palette(width, height)

    def _palette(self, width: int, height: int) -> Graph:
        """A graph that reduces each frame to the 256 colours that fit it best."""
        graph = Graph()
        source = graph.add_buffer(
            width=width,
            height=height,
            format=VideoFormat("rgb24"),
            time_base=Fraction(1, self._ticks),
        )
        split = graph.add("split")
        colours = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=none")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(colours, 0, 0)
        split.link_to(use, 1, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or, with None, what a filter still holds."""
        if self._graph is None:
            if frame is not None:
                for packet in self._stream.encode(frame):
                    self._mux(packet)
            return
        self._graph.push(frame)
        while True:
            try:
                reduced = self._graph.pull()
            except (NothingYet, NothingMore):
                return
            for packet in self._stream.encode(reduced):  # type: ignore[arg-type]
                self._mux(packet)

    def _mux(self, packet: av.Packet) -> None:
        # Of all but the last frame, the time of the next one decides.
        packet.duration = max(1, round(1 / self._fps / packet.time_base))
        assert self._container is not None
        self._container.mux(packet)


def write_clip(path: str | Path, frames: Iterable[ArrayLike], fps: float) -> Path:
    """Writes a ``.gif`` or ``.mp4`` file, as its name says.

    GIF counts in hundredths of a second, and players slow down frames shorter than two of them:
    above 50 frames per second is an error. Times are rounded, so they add up (30 fps is 3, 4, 3).

    Args:
        path: file to write; its folder is made.
        frames: ``[H, W, 3]`` uint8 RGB each, all of one size, at least one.
        fps: frames per second, > 0.

    Returns:
        The path.

    Raises:
        ValueError: another ending, no frames, frames of different sizes, ``fps`` out of range.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise ValueError(f"a clip ends in .gif or .mp4, not {path.name!r}")
    kind: Kind = "gif" if ending == ".gif" else "mp4"
    if kind == "gif" and not 0 < fps <= GIF_MAX_FPS:
        raise ValueError(
            f"a GIF plays 0-{GIF_MAX_FPS} frames per second, not {fps}: write .mp4, or skip frames"
        )
    with atomic_path(path) as partial:
        with VideoWriter(partial, kind, fps) as writer:
            for number, frame in enumerate(frames):
                writer.write(frame, number / fps)
        if not writer.count:
            raise ValueError(f"{path}: no frames to write")
    return path


def write_png(path: str | Path, image: ArrayLike) -> Path:
    """Writes one image; it appears complete or not at all.

    Args:
        path: file to write; its folder is made.
        image: ``[H, W, 3]`` uint8 RGB.

    Returns:
        The path.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(check_frame(image)).save(temporary, format="PNG")
    return Path(path)
