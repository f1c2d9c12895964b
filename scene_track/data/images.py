"""The one reader of image files: what a decoder returns is checked, and every error names the file.

A JPEG is decoded by torchvision (libjpeg, which reports damage and stops), a PNG by Pillow after
the checksums of all its chunks have been compared: torchvision's PNG decoder ends the process on
some damaged files. JPEG data have no checksum: a flipped bit can change blocks unseen.

Orientation of EXIF is applied, as viewers do; 16 bits per channel become their upper 8. No torch
before an image is decoded: scoring reads sizes alone.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

EXTENSIONS = (".jpg", ".jpeg", ".png")
"""Of the files that are read, lower case."""

# At most 15 digits: exact in int64 and float64.
_NUMBERED = re.compile(r"^(?P<prefix>.*?)(?P<number>[0-9]{1,15})$")
_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("JPEG", "PNG")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16", "I;16B")
_SIXTEEN_BITS = ("I", "I;16", "I;16B")
_ORIENTATION = 0x0112  # tag of EXIF
# Orientation: whether rows and columns are exchanged first, then the axes of [3, H, W] to flip.
_TURNS = {
    1: (False, ()),
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


def refuse_bytes(path: Path) -> None:
    """Refuses a name that is no text: it cannot be written into a table, a log or a JSON file.

    Raises:
        ValueError: naming it.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise ValueError(f"{shown}: these bytes are not UTF-8: rename it") from None


class FrameError(ValueError):
    """An image that cannot be used: missing, damaged, or not of the stated size."""


def read_image(file: Path, size: tuple[int, int] | None = None, whose: str = "expected") -> Tensor:
    """Decodes an image.

    Args:
        file: JPEG or PNG, grey, palette or colour, 8 or 16 bits per channel.
        size: (height, width) in pixels that it must have, as a viewer shows it; None = any.
        whose: where ``size`` comes from, for the error.

    Returns:
        ``[3, h, w]`` uint8 RGB. Transparency is dropped.

    Raises:
        FrameError: naming the file.
    """
    raw = _bytes_of(file)
    try:
        image = _open(raw)
        turn = _turn_of(image)
        found = _turned_size(image, turn)
        if size is not None and found != tuple(size):
            note = f", EXIF orientation {turn} applied" if turn != 1 else ""
            raise FrameError(
                f"{file}: the frame is {found[1]}x{found[0]} pixels{note}, {whose}"
                f" {size[1]}x{size[0]}"
            )
        pixels = _decode(image, raw)
        if tuple(pixels.shape) != (3, image.height, image.width):
            raise ValueError(f"decoded to {list(pixels.shape)}, stated {image.size}")
    except FrameError:
        raise
    except Exception as error:  # damaged data lead a decoder to almost any exception
        raise FrameError(f"{file}: the frame cannot be decoded: {_reason(error)}") from None
    exchange, axes = _TURNS[turn]
    if exchange:
        pixels = pixels.transpose(1, 2)
    return pixels.flip(axes) if axes else pixels


def image_size(file: Path) -> tuple[int, int]:
    """(height, width) in pixels of an image as a viewer shows it, read from its header.

    Raises:
        FrameError: naming the file.
    """
    raw = _bytes_of(file)
    try:
        image = _open(raw)
        return _turned_size(image, _turn_of(image))
    except Exception as error:  # as above
        raise FrameError(f"{file}: the size cannot be read: {_reason(error)}") from None


def list_images(folder: Path) -> dict[int, str]:
    """Frame number to file name, by number.

    A name is the number with any number of digits, or one prefix and the number (``img00001.jpg``),
    and ends in one of ``EXTENSIONS``. Hidden files are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: two files are of one frame, or the numbers have several prefixes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected the frames of the sequence")
    numbered: dict[str, dict[int, str]] = {}
    for name in sorted(entry.name for entry in os.scandir(folder)):
        stem, extension = os.path.splitext(name)
        match = _NUMBERED.match(stem)
        if match is None or extension.lower() not in EXTENSIONS or name.startswith("."):
            continue
        refuse_bytes(folder / name)
        files, number = numbered.setdefault(match["prefix"], {}), int(match["number"])
        other = files.setdefault(number, name)
        if other != name:
            raise ValueError(f"{folder}: frame {number} is there twice: {other}, {name}")
    if "" not in numbered and len(numbered) > 1:
        names = [next(iter(files.values())) for files in numbered.values()]
        raise ValueError(
            f"{folder}: its images are numbered in {len(numbered)} ways, such as {names[0]} and"
            f" {names[1]}: leave one of them in this folder"
        )
    files = numbered.get("") or next(iter(numbered.values()), {})
    return dict(sorted(files.items()))


def images_among(paths: Iterable[Path]) -> dict[int, Path]:
    """The images among some files by their place, from 1: frame2 before frame10, no hidden ones.

    Raises:
        ValueError: two differ in their ending alone: a frame would be there twice.
    """
    found = [
        p for p in paths if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and p.is_file()
    ]
    found.sort(key=lambda path: natural(path.name))
    for one, other in itertools.pairwise(found):
        if one.with_suffix("") == other.with_suffix(""):
            raise ValueError(f"{one}: the frame is there twice, also as {other.name}: remove one")
    return dict(enumerate(found, start=1))


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key in which numbers count as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def what_is_there(folder: Path) -> str:
    """A folder without numbered images in a few words: what it holds, and what was expected."""
    names = sorted(e.name for e in os.scandir(folder) if e.is_file() and e.name[0] != ".")
    expected = "expected 000001.jpg and so on (jpg, jpeg or png)"
    if not names:
        return f"the folder is empty, {expected}"
    count = "1 file" if len(names) == 1 else f"{len(names)} files"
    found = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
    return f"no image in it that is called by its number; it holds {count}, {found}, {expected}"


def _bytes_of(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise FrameError(f"{file}: the image file is missing") from None
    except OSError as error:
        raise FrameError(f"{file}: the image cannot be read: {error.strerror}") from None
    if not raw:
        raise FrameError(f"{file}: the frame cannot be decoded: the file is empty")
    return raw


def _open(raw: bytes) -> Image.Image:
    if raw.startswith(_PNG):
        _check_png(raw)
    image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    if image.mode not in _MODES:
        raise ValueError(f"its pixels are {image.mode}, expected grey, palette, RGB or CMYK")
    return image


def _check_png(raw: bytes) -> None:
    """Compares the checksum of every chunk.

    Raises:
        ValueError: one is wrong, or the last chunk is missing.
    """
    view, start, kind = memoryview(raw), len(_PNG), b""
    while kind != b"IEND":
        if start + 12 > len(raw):
            raise ValueError(f"the file ends after {len(raw)} bytes, within its data")
        length, kind = struct.unpack_from(">I4s", raw, start)
        end = start + 8 + length
        if end + 4 > len(raw):
            raise ValueError(f"the file ends after {len(raw)} bytes, within its data")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"the checksum of the data from byte {start} on is wrong")
        start = end + 4


def _decode(image: Image.Image, raw: bytes) -> Tensor:
    """``[3, H, W]`` uint8 RGB, not turned yet."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    if image.format != "PNG" and image.mode in ("L", "RGB"):
        data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        pixels = decode_jpeg(data, mode=ImageReadMode.RGB)
        assert isinstance(pixels, torch.Tensor)  # a list only for a list of files
        return pixels
    if image.mode in _SIXTEEN_BITS:  # Pillow takes the upper half of colours by itself
        grey = (np.array(image).astype(np.int64) >> 8).astype(np.uint8)
        return torch.from_numpy(grey).expand(3, *grey.shape)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _turn_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is missing or none of these."""
    turn = image.getexif().get(_ORIENTATION, 1)
    return turn if turn in _TURNS else 1


def _turned_size(image: Image.Image, turn: int) -> tuple[int, int]:
    exchange, _ = _TURNS[turn]
    return (image.width, image.height) if exchange else (image.height, image.width)


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify image file" in text:
        return "it is neither a JPEG nor a PNG file"
    return text
