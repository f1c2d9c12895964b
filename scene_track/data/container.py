"""Frames of a file, camera or stream that FFmpeg reads, as a player shows them.

A frame that cannot be decoded is left out and keeps its number, so that files about the video still
fit. An address may be a live stream, which comes whether or not anybody is ready for it.
"""

from __future__ import annotations

import heapq
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from scene_track.io.background import close

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts")
"""Endings that a message names; what is in the file decides, not its name."""

_SILENT_S = 10.0  # a stream that gives nothing for longer has ended
# FFmpeg's words for HTTP: a connection that is lost is made anew, at the place that was reached if
# the server can do that. An end that the server announces is the end.
_RECONNECT = {"reconnect": "1", "reconnect_streamed": "1", "reconnect_delay_max": "4"}
_LATE_S = 1.0  # sound may last longer than the video by less
_LATE_FRAMES = 1.5  # of a file without sound: its duration is that of the video
_RESET_S = 1.0  # a clock that goes back by more has been started anew


@dataclass(frozen=True, eq=False)
class FootageFrame:
    """One frame as it is shown.

    Attributes:
        image: ``[H, W, 3]`` uint8 RGB.
        number: of the frame, from 1; in a sequence folder that of the file.
        seconds: since the first frame.
    """

    image: NDArray[np.uint8]
    number: int
    seconds: float


@dataclass(eq=False)
class Footage:
    """A video that is open; its frames can be taken once.

    Attributes:
        name: file or folder name without its ending.
        frame_rate: frames per second, the mean of a variable rate.
        height: pixels, as shown.
        width: pixels, as shown.
        length: number of frames as far as it is known or can be expected; a file may lie.
        live: whether frames come by themselves, whether or not anybody is ready for them.
        frames: the frames; closing this generator closes the file.
    """

    name: str
    frame_rate: float
    height: int
    width: int
    length: int | None
    live: bool
    frames: Iterator[FootageFrame]


def rejoin(first: FootageFrame, others: Iterator[FootageFrame]) -> Iterator[FootageFrame]:
    """One generator again, after its first item was taken; closing it closes the rest."""
    try:
        yield first
        yield from others
    finally:
        close(others)


def open_container(address: str, fps: float | None, *, camera: bool = False) -> Footage:
    """Open what FFmpeg reads, and decode its first frame.

    Args:
        address: a file, the address of a stream, or the number of a camera.
        fps: frames per second, in place of the times that the source states.
        camera: ``address`` is a number.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: it is no video, or nothing in it can be decoded.
    """
    return _Container(address, camera).open(fps)


class _Numbers:
    """Counts frames as the file does.

    A decoder says late that a packet is broken, and may leave out others for it. So from then on
    the packets count that come before a frame in time; before, one without a frame is a part of
    another's, such as a hidden reference.
    """

    def __init__(self) -> None:
        self.last, self.broken = 0, 0
        self._newest: int | None = None
        self._waiting: list[int] = []  # heap of the times of packets

    def sent(self, packet: av.Packet) -> None:
        """The decoder is given a packet."""
        if packet.pts is not None:
            heapq.heappush(self._waiting, packet.pts)

    def count(self, frame: av.VideoFrame, restart: float) -> bool:
        """Count a frame; False = it comes too late, after a later one, and is left out.

        Args:
            frame: is shown next.
            restart: ticks; a clock that goes back by more has been started anew.
        """
        place, before = frame.pts, 0
        if place is not None:
            newest = self._newest
            if self.broken and newest is not None and newest - restart <= place <= newest:
                return False
            while self._waiting and self._waiting[0] <= place:
                before += heapq.heappop(self._waiting) < place
            self._newest = place
        self.last += 1 + (before if self.broken else 0)
        return True


class _Container:
    """A file, camera or stream that FFmpeg reads."""

    def __init__(self, address: str, camera: bool) -> None:
        self._address, self._shown = address, address
        self._camera, self._live = camera, camera
        self._name = Path(address.partition("?")[0]).stem
        if camera:
            self._name, self._shown = f"camera{address}", f"camera {address}"
            of_system = {"darwin": f"{address}:none", "win32": f"video={address}"}
            self._address = of_system.get(sys.platform, f"/dev/video{address}")

    def open(self, fps: float | None) -> Footage:
        """See ``open_container``."""
        stream_address = "://" in self._address
        try:
            container = av.open(
                self._address,
                format=self._format(),
                metadata_errors="ignore",
                options=_RECONNECT if self._address.startswith("http") else {},
                timeout=_SILENT_S if stream_address else None,
            )
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._shown}: there is no such {self._kind()}") from None
        except (FFmpegError, OSError, ValueError) as error:
            raise ValueError(f"{self._shown}: {self._why(error)}") from None
        try:
            # Without the cover picture of a sound file.
            videos = container.streams.video
            cover = Disposition.attached_pic
            stream = next((s for s in videos if not s.disposition & cover), None)
            if stream is None:
                found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
                raise ValueError(f"{self._shown}: no video stream in it (found: {found})")
            self._live |= stream_address and container.duration is None
            # Threads that share frames out would keep as many back.
            stream.thread_type = "SLICE" if self._live else "AUTO"
            decoded = self._frames(container, stream, fps)
            first = next(decoded, None)
            if first is None:
                raise ValueError(f"{self._shown}: not a single frame of it can be decoded")
            height, width = first.image.shape[:2]
            rate = fps or float(_rate(stream))
            frames = rejoin(first, decoded)
            name = self._name or "stream"
            length = stream.frames or _expected(container, stream)
            return Footage(name, rate, height, width, length, self._live, frames)
        except BaseException:
            container.close()
            raise

    def _format(self) -> str | None:
        if not self._camera:
            return None
        return {"darwin": "avfoundation", "win32": "dshow"}.get(sys.platform, "v4l2")

    def _kind(self) -> str:
        return f"camera ({self._address})" if self._camera else "file or stream"

    def _why(self, error: Exception) -> str:
        """Why the file cannot be opened, as far as its first bytes say."""
        path = Path(self._address)
        if path.is_file():
            if path.stat().st_size == 0:
                return "the file is empty; type source=VIDEO with another"
            boxes = _top_boxes(path)
            if boxes[:1] == [b"ftyp"] and b"moov" not in boxes:
                return (
                    "an MP4 without its index (moov), which is written last: the recording or the"
                    " copy was cut off; copy it again"
                )
        if "://" in self._address:
            return f"cannot be opened ({_reason(error)}): type source=ADDRESS of a running stream"
        return (
            f"cannot be opened as a video ({_reason(error)}): expected a file such as"
            f" {', '.join(VIDEOS[:4])}"
        )

    def _frames(
        self, container: InputContainer, stream: av.VideoStream, fps: float | None
    ) -> Iterator[FootageFrame]:
        """Every frame that can be decoded, with its time."""
        size: tuple[int, int] | None = None
        period = 1 / (fps or float(_rate(stream)))
        start: float | None = None
        last, numbers = 0.0, _Numbers()
        reformatter = VideoReformatter()  # one for all frames: each frame's own is made anew
        try:
            for frame in self._decode(container, stream, numbers):
                if size is None:
                    # Before it is turned, with square pixels.
                    aspect = stream.sample_aspect_ratio or Fraction(1)
                    size = frame.height, max(1, round(frame.width * aspect))
                time = frame.time if fps is None else (numbers.last - 1) / fps
                if start is None:
                    start, seconds = time or 0.0, 0.0
                else:
                    seconds = last + period if time is None else time - start
                    if seconds < last - _RESET_S:  # a stream that was begun anew
                        start -= last + period - seconds
                        seconds = last + period
                    elif seconds <= last:
                        seconds = last + period / 100
                last = seconds
                height, width = size
                shown = reformatter.reformat(frame, width, height, "rgb24", threads=1)
                image = np.asarray(shown.to_ndarray(), dtype=np.uint8)
                yield FootageFrame(_upright(frame, image), numbers.last, seconds)
            if not self._live:
                # At a rate that was typed, times are not those of the header.
                end = (start or 0.0) + last + period if fps is None else float("inf")
                self._compare_with_header(container, stream, numbers.last, end)
        finally:
            container.close()

    def _compare_with_header(
        self,
        container: InputContainer,
        stream: av.VideoStream,
        number: int,
        seconds: float,
    ) -> None:
        """Say so where a file ended before its header does: most formats end without an error."""
        if stream.frames:
            if stream.frames > number:
                log.warning(
                    "%s: ends after frame %d, and its header says %d frames",
                    *(self._shown, number, stream.frames),
                )
            return
        alone = len(container.streams) == 1
        late = _LATE_FRAMES / float(_rate(stream)) if alone else _LATE_S
        if container.duration is not None and container.duration / 1e6 > seconds + late:
            log.warning(
                "%s: ends after frame %d, at %.1f s, and its header says %.1f s",
                *(self._shown, number, seconds, container.duration / 1e6),
            )

    def _decode(
        self, container: InputContainer, stream: av.VideoStream, numbers: _Numbers
    ) -> Iterator[av.VideoFrame]:
        """Frames in the order in which they are shown; a packet that is broken is left out."""
        broken, damaged, ended = 0, 0, None
        restart = _RESET_S / float(stream.time_base or 1)
        packets = container.demux(stream)
        while ended is None:
            try:
                packet = next(packets)
                numbers.sent(packet)
            except StopIteration:
                break
            except (FFmpegError, OSError) as error:
                # Nothing more can be read; the decoder still holds frames.
                packet, ended = None, error
            try:
                frames = stream.codec_context.decode(packet) if packet is None else packet.decode()
            except FFmpegError as error:
                frames = []
                if packet is not None:
                    broken += 1
                    # A live stream is entered anywhere: its frames have no numbers.
                    numbers.broken = 0 if self._live else broken
                    if broken == 1:
                        log.warning(
                            "%s: broken after frame %d (%s); what cannot be decoded is left out",
                            *(self._shown, numbers.last, error.strerror),
                        )
            for frame in frames:
                if not numbers.count(frame, restart):
                    continue
                damaged += frame.is_corrupt
                if frame.is_corrupt and damaged == 1:
                    log.warning(
                        "%s: frame %d is damaged; what can be decoded of it is shown",
                        *(self._shown, numbers.last),
                    )
                yield frame
        if broken > 1 or damaged > 1:
            log.warning(
                "%s: %d packets could not be decoded, %d frames are damaged",
                *(self._shown, broken, damaged),
            )
        if ended is not None:
            place = (self._shown, numbers.last, _reason(ended))
            log.warning("%s: breaks off after frame %d: %s", *place)


def _reason(error: Exception) -> str:
    if isinstance(error, ExitError):
        return f"nothing came for {_SILENT_S:.0f} s"
    return getattr(error, "strerror", None) or str(error)


def _top_boxes(path: Path) -> list[bytes]:
    """Names of the outermost parts of an MP4; of another file nothing of use."""
    names: list[bytes] = []
    place, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while place + 8 <= size and len(names) < 64:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a part of more than 4 GiB
                length = int.from_bytes(head[8:16], "big")
            names.append(head[4:8])
            if length < 8:
                break
            place += length
    return names


def _rate(stream: av.VideoStream) -> Fraction:
    """Frames per second: of a variable rate the mean over the file, as far as the file says."""
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    # Matroska with a late start has its time base, 1000, for a rate.
    return min(rates, default=Fraction(25))


def _expected(container: InputContainer, stream: av.VideoStream) -> int | None:
    """Frames of a file whose header has only its duration."""
    if stream.duration and stream.time_base:
        return max(1, round(stream.duration * stream.time_base * _rate(stream)))
    if container.duration is None:
        return None
    seconds = (container.duration - max(container.start_time or 0, 0)) / 1e6
    return max(1, round(seconds * _rate(stream)))


def _upright(frame: av.VideoFrame, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image turned as the file says."""
    turns = round(frame.rotation / 90)  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image
