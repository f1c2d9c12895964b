"""Frames of any video, one by one: a file, images, a sequence folder, a camera, a stream, arrays.

Frames are as a player shows them: turned as the file says, with square pixels, 8 bits of RGB. Times
are the file's, counted from its first frame. What is broken in the middle of a video is left out,
with a warning that names the frame; what is no video at all is one line.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import ArrayLike, NDArray

from scene_track.data.images import EXTENSIONS as IMAGES
from scene_track.data.images import FrameError, images_among, read_image, what_is_there
from scene_track.data.seqinfo import read_seqinfo
from scene_track.data.video import list_images

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts")
"""Endings that a message names; what is in the file decides, not its name."""

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
        length: number of frames as far as it is known beforehand; a file may lie.
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


def open_footage(
    source: str | int | Path | Iterable[ArrayLike], fps: float | None = None
) -> Footage:
    """Open a video and decode its first frame.

    Args:
        source: a video file, a folder or a glob of images, an image, a sequence folder with
            ``seqinfo.ini``, the number of a camera, the address of a stream, or RGB arrays
            ``[H, W, 3]`` uint8.
        fps: frames per second, in place of the times that the source states; must be given for
            images and arrays, which state none.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: it is no video, or nothing in it can be decoded.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps}: expected a number of frames per second above 0")
    if isinstance(source, str | int | Path):
        text = str(source)
        if text.isdecimal():
            return _Container(_camera(int(text)), f"camera {text}", camera=int(text)).open(fps)
        if "://" in text:
            return _Container(text, text).open(fps)
        path = Path(text).expanduser()
        if path.is_file() and path.suffix.lower() not in IMAGES:
            return _Container(str(path), str(path)).open(fps)
        return _open_images(path, fps)
    return _open_arrays(source, fps)


def _open_arrays(source: Iterable[ArrayLike], fps: float | None) -> Footage:
    if fps is None:
        raise ValueError("arrays have no times: give fps=FRAMES_PER_SECOND")
    iterator = iter(source)
    try:
        first = _checked(next(iterator), 1)
    except StopIteration:
        raise ValueError("the source has no frames") from None

    def frames() -> Iterator[FootageFrame]:
        for number, array in enumerate(itertools.chain([first], iterator), start=1):
            image = _checked(array, number)
            if image.shape != first.shape:
                raise ValueError(
                    f"frame {number} is {_size(image)} pixels and the first is {_size(first)}:"
                    " expected frames of one size"
                )
            yield FootageFrame(image, number, (number - 1) / fps)

    length = len(source) if hasattr(source, "__len__") else None  # type: ignore[arg-type]
    height, width = first.shape[:2]
    return Footage("frames", fps, height, width, length, False, frames())


def _checked(array: ArrayLike, number: int) -> NDArray[np.uint8]:
    image = np.asarray(array)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"frame {number} is an array {list(image.shape)} of {image.dtype}: expected"
            " [H, W, 3] uint8, red first"
        )
    return image


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _open_images(path: Path, fps: float | None) -> Footage:
    """A sequence folder, a folder or glob of images, or a single image."""
    name = path.stem or path.parent.name
    if (path / "seqinfo.ini").is_file():
        info = read_seqinfo(path)
        numbered = sorted(list_images(path / info.image_dir).items())
        files = {number: path / info.image_dir / file for number, file in numbered}
        if not files:
            raise ValueError(f"{path / info.image_dir}: {what_is_there(path / info.image_dir)}")
        if missing := max(files) - min(files) + 1 - len(files):
            log.warning("%s: %d frames have no image file and are left out", path, missing)
        name, fps = info.name, fps or info.frame_rate
    elif path.is_dir():
        files = images_among(path.iterdir())
        if not files:
            raise ValueError(
                f"{path}: a folder without images ({', '.join(IMAGES)}) and without seqinfo.ini;"
                " type source=FOLDER_OF_IMAGES, or a video file in it"
            )
        name = path.name
    elif path.is_file():
        files = {1: path}
    else:
        files = images_among(_glob(path))
        if not files:
            raise FileNotFoundError(
                f"{path}: no such file, folder or glob of images; type source=VIDEO, such as"
                f" video{VIDEOS[0]}, a folder of images, a glob in quotes, a camera's number, or an"
                " address with ://"
            )
        name = path.parent.name
    if len(files) == 1:
        fps = fps or 1.0  # a single image has one time, whatever the rate
    if fps is None:
        raise ValueError(f"{path}: {len(files)} images have no times, type fps=FRAMES_PER_SECOND")
    decoded = _decode_images(files, fps)
    first = next(decoded, None)
    if first is None:
        raise ValueError(f"{path}: none of its {len(files)} images can be decoded")
    frames = _rejoin(first, decoded)
    height, width = first.image.shape[:2]
    return Footage(name, fps, height, width, len(files), False, frames)


def _decode_images(files: dict[int, Path], fps: float) -> Iterator[FootageFrame]:
    origin, shape = next(iter(files), 1), None
    for number, file in files.items():
        try:
            image = read_rgb(file)
        except FrameError as error:
            log.warning("frame %d is left out: %s", number, error)
            continue
        if shape is not None and image.shape != shape:
            raise ValueError(
                f"{file}: the image is {_size(image)} pixels and the first is"
                f" {shape[1]}x{shape[0]}: expected frames of one size"
            )
        shape = image.shape
        yield FootageFrame(image, number, (number - origin) / fps)


def read_rgb(file: Path | str) -> NDArray[np.uint8]:
    """``[H, W, 3]`` uint8 RGB of an image file.

    Raises:
        FrameError: it is missing, or cannot be decoded.
    """
    return read_image(Path(file)).permute(1, 2, 0).contiguous().numpy()


def _glob(path: Path) -> Iterator[Path]:
    pattern = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    return pattern.glob(str(Path(*parts))) if parts else iter(())


def _rejoin(first: FootageFrame, others: Iterator[FootageFrame]) -> Iterator[FootageFrame]:
    """One generator again, after its first item was taken; closing it closes the rest."""
    try:
        yield first
        yield from others
    finally:
        close = getattr(others, "close", None)
        if close is not None:
            close()


def _camera(number: int) -> str:
    names = {"darwin": f"{number}:none", "win32": f"video={number}"}
    return names.get(sys.platform, f"/dev/video{number}")


class _Container:
    """A file, camera or stream that FFmpeg reads."""

    def __init__(self, address: str, shown: str, camera: int | None = None) -> None:
        self._address, self._shown, self._camera = address, shown, camera

    def open(self, fps: float | None) -> Footage:
        try:
            container = av.open(self._address, format=self._format(), metadata_errors="ignore")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._shown}: there is no such {self._kind()}") from None
        except (FFmpegError, OSError, ValueError) as error:
            raise ValueError(f"{self._shown}: {self._why(error)}") from None
        try:
            stream = next(
                (s for s in container.streams.video if not _is_cover(s)),
                None,
            )
            if stream is None:
                found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
                raise ValueError(f"{self._shown}: no video stream in it (found: {found})")
            stream.thread_type = "AUTO"
            live = self._camera is not None or (
                "://" in self._address and container.duration is None
            )
            decoded = self._frames(container, stream, fps)
            first = next(decoded, None)
            if first is None:
                raise ValueError(f"{self._shown}: not a single frame of it can be decoded")
            height, width = first.image.shape[:2]
            stem = Path(self._address.partition("?")[0]).stem
            name = f"camera{self._camera}" if self._camera is not None else stem or "stream"
            rate = fps or float(_rate(stream))
            frames = _rejoin(first, decoded)
            return Footage(name, rate, height, width, stream.frames or None, live, frames)
        except BaseException:
            container.close()
            raise

    def _format(self) -> str | None:
        if self._camera is None:
            return None
        return {"darwin": "avfoundation", "win32": "dshow"}.get(sys.platform, "v4l2")

    def _kind(self) -> str:
        return f"camera ({self._address})" if self._camera is not None else "file or stream"

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
        reason = getattr(error, "strerror", None) or str(error)
        return (
            f"cannot be opened as a video ({reason}): expected a file such as"
            f" {', '.join(VIDEOS[:4])}"
        )

    def _frames(
        self, container: InputContainer, stream: av.VideoStream, fps: float | None
    ) -> Iterator[FootageFrame]:
        """Every frame that can be decoded, with its time."""
        size: tuple[int, int] | None = None
        period = 1 / (fps or float(_rate(stream)))
        start, last, number = 0.0, 0.0, 0
        reformatter = VideoReformatter()  # one for all frames: each frame's own is made anew
        try:
            for frame in self._decode(container, stream):
                if size is None:
                    size = _shown_size(frame, stream)
                number += 1
                time = frame.time if fps is None else (number - 1) / fps
                if number == 1:
                    start = time or 0.0
                seconds = last + period if time is None else time - start
                if number == 1:
                    seconds = 0.0
                elif seconds <= last:
                    if seconds < last - _RESET_S:  # a stream that was begun anew
                        start -= last + period - seconds
                        seconds = last + period
                    else:
                        seconds = last + period / 100
                last = seconds
                height, width = size
                shown = reformatter.reformat(frame, width, height, "rgb24", threads=1)
                image = np.asarray(shown.to_ndarray(), dtype=np.uint8)
                yield FootageFrame(_upright(frame, image), number, seconds)
            if self._camera is None:
                self._compare_with_header(container, stream, number, start + last + period)
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

    def _decode(self, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """Frames in the order in which they are shown; a packet that is broken is left out."""
        number, broken, damaged, ended = 0, 0, 0, None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
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
                    if broken == 1:
                        log.warning(
                            "%s: broken after frame %d (%s); what cannot be decoded is left out",
                            *(self._shown, number, error.strerror),
                        )
            for frame in frames:
                number += 1
                damaged += frame.is_corrupt
                if frame.is_corrupt and damaged == 1:
                    log.warning(
                        "%s: frame %d is damaged; what can be decoded of it is shown",
                        *(self._shown, number),
                    )
                yield frame
            if ended is not None:
                reason = getattr(ended, "strerror", None) or str(ended)
                log.warning("%s: breaks off after frame %d: %s", self._shown, number, reason)
                return
        if broken > 1 or damaged > 1:
            log.warning(
                "%s: %d packets could not be decoded, %d frames are damaged",
                *(self._shown, broken, damaged),
            )


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


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether it is the cover picture of a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)


def _rate(stream: av.VideoStream) -> Fraction:
    """Frames per second: of a variable rate the mean over the file, as far as the file says."""
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    # Matroska with a late start has its time base, 1000, for a rate.
    return min(rates, default=Fraction(25))


def _shown_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """(height, width) before it is turned, with square pixels."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return frame.height, max(1, round(frame.width * aspect))


def _upright(frame: av.VideoFrame, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image turned as the file says."""
    turns = round(frame.rotation / 90)  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image
