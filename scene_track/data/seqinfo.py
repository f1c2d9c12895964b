"""``seqinfo.ini`` of the MOTChallenge layout."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from scene_track.data.images import image_size, refuse_bytes, what_is_there
from scene_track.io.tables import parse_number

_MOST = 10_000_000  # frames (four days at 30 frames/s), pixels, frames per second


@dataclass(frozen=True)
class SequenceInfo:
    """What ``seqinfo.ini`` says about one sequence.

    Attributes:
        name: sequence name.
        image_dir: folder of the images, relative to the sequence folder (``img1``).
        frame_rate: frames per second, > 0.
        length: number of frames, >= 1; they are numbered on from ``first_frame``.
        width: image width in pixels, >= 1.
        height: image height in pixels, >= 1.
        extension: image file extension with its dot (``.jpg``).
        first_frame: number of the first frame: 1 in the MOTChallenge layout, 0 in TrackNet's.
    """

    name: str
    image_dir: str
    frame_rate: float
    length: int
    width: int
    height: int
    extension: str
    first_frame: int = 1

    @property
    def last_frame(self) -> int:
        """Number of the last frame."""
        return self.first_frame + self.length - 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return self.height, self.width


def read_seqinfo(path: Path | str) -> SequenceInfo:
    """Read ``seqinfo.ini``.

    ``name``, ``imDir`` and ``imExt`` may be missing: they are then the folder's name, ``img1`` and
    ``.jpg``, as the MOTChallenge layout has them. ``frameRate``, ``seqLength``, ``imWidth`` and
    ``imHeight`` must be there.

    Args:
        path: the file, or the sequence folder that holds it.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if a key is missing or has a value out of range.
    """
    file, section = _seqinfo_section(path)
    return SequenceInfo(
        name=section.get("name", file.resolve().parent.name),
        image_dir=section.get("imDir", "img1"),
        frame_rate=_positive(file, section, "frameRate"),
        length=_positive_int(file, section, "seqLength"),
        width=_positive_int(file, section, "imWidth"),
        height=_positive_int(file, section, "imHeight"),
        extension=section.get("imExt", ".jpg"),
    )


def read_length(path: Path | str) -> int:
    """As ``read_seqinfo``, the number of frames (``seqLength``) alone: others may be missing."""
    file, section = _seqinfo_section(path)
    return _positive_int(file, section, "seqLength")


def sequence_folders(parent: Path) -> list[Path]:
    """Folders that look like a sequence of boxes, complete or not, by name; no hidden ones."""
    marks = ("gt", "img1", "seqinfo.ini")
    folders = (f for f in sorted(parent.iterdir()) if f.is_dir() and not f.name.startswith("."))
    found = [folder for folder in folders if any((folder / mark).exists() for mark in marks)]
    for folder in found:
        refuse_bytes(folder)
    return found


def check_frames(folder: Path, info: SequenceInfo, files: dict[int, str]) -> tuple[int, int]:
    """How many frames have no image file, and the first of them (0 if none).

    Raises:
        FileNotFoundError: no frame has one.
        ValueError: the frames are numbered in another way than ``seqinfo.ini`` says.
    """
    if not files:
        raise FileNotFoundError(f"{folder}: {what_is_there(folder)}")
    first, last = min(files), max(files)
    inside = sum(1 <= number <= info.length for number in files)
    missing = info.length - inside
    shown = f"{len(files)} images, {files[first]} … {files[last]}"
    if missing and inside < len(files):
        raise ValueError(
            f"{folder}: it holds {shown}: frames are numbered {first} to {last}, expected 1 to"
            f" {info.length} (seqLength of seqinfo.ini); rename them, and let gt.txt count in the"
            " same way"
        )
    if inside < len(files):
        raise ValueError(
            f"{folder}: it holds {shown}, and seqinfo.ini says seqLength={info.length}: correct it,"
            " or move the other images elsewhere"
        )
    return missing, next((n for n in range(1, info.length + 1) if n not in files), 0)


def check_size(first: Path, info: SequenceInfo) -> None:
    """Compares the size that ``seqinfo.ini`` states with the first frame's.

    Raises:
        FrameError: the frame cannot be read.
        ValueError: the sizes differ.
    """
    height, width = image_size(first)
    if (height, width) != (info.height, info.width):
        raise ValueError(
            f"{first} is {width}x{height} pixels, but seqinfo.ini says imWidth={info.width} and"
            f" imHeight={info.height}: correct the one or the other"
        )


def _seqinfo_section(path: Path | str) -> tuple[Path, configparser.SectionProxy]:
    file = Path(path)
    if file.is_dir():
        file = file / "seqinfo.ini"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file, expected a MOTChallenge seqinfo.ini beside img1/ and gt/"
        )
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"))
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not a readable .ini file: {reason}") from None
    if "Sequence" not in parser:
        found = ", ".join(f"[{name}]" for name in parser.sections()) or "none"
        raise ValueError(f"{file}: expected a section [Sequence], found {found}")
    return file, parser["Sequence"]


def _positive(file: Path, section: configparser.SectionProxy, key: str) -> float:
    text = section.get(key)
    if text is None:
        raise ValueError(f"{file}: key {key} is missing from [Sequence]")
    text = " ".join(text.split())  # of an .ini file a value may have several lines
    try:
        value = parse_number(key, text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST:
        raise ValueError(f"{file}: {key}={text}, expected a number > 0, at most {_MOST:,}")
    return value


def _positive_int(file: Path, section: configparser.SectionProxy, key: str) -> int:
    value = _positive(file, section, key)
    if not value.is_integer():
        raise ValueError(f"{file}: {key}={section.get(key)}, expected a whole number, at least 1")
    return int(value)
