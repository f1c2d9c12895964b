"""Video files that tests write: squares that move, with the times and the faults that are asked."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def squares(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """RGB frames: a red square moves right by four pixels a frame, a green one stays."""
    frames = []
    for n in range(count):
        frame = np.full((height, width, 3), 90, np.uint8)
        frame[8:24, 4 * n % (width - 16) :][:, :16] = (220, 30, 30)
        frame[height - 20 : height - 8, 8:20] = (30, 200, 30)
        frames.append(frame)
    return frames


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    turned: int = 0,
    aspect: Fraction | None = None,
    full_range: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes frames at 20 per second, or at their times.

    Args:
        path: its ending chooses the container.
        frames: ``[H, W, 3]`` uint8.
        times: seconds; None = 0, 0.05, ...
        codec: of FFmpeg.
        pix_fmt: of FFmpeg.
        turned: degrees by which a player turns it counterclockwise.
        aspect: width of a pixel over its height.
        full_range: 0-255 in the file in place of 16-235.
        options: of the codec.
    """
    times = [n / 20 for n in range(len(frames))] if times is None else times
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=20)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = options or ({"crf": "10"} if codec == "libx264" else {})
        if turned:
            stream.set_display_rotation(turned)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if full_range:
            stream.codec_context.color_range = 2
        for frame, seconds in zip(frames, times, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown = shown.reformat(format=pix_fmt, dst_color_range=2 if full_range else 1)
            shown.pts, shown.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path
