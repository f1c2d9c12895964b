"""``seqinfo.ini`` of the MOTChallenge layout."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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

    def relative(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Left, top, width, height in pixels ``[n, 4]`` as cxcywh, 0-1 of the image."""
        corner = boxes / np.array((self.width, self.height) * 2, dtype=np.float64)
        return np.concatenate((corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]), axis=1)


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
    """Read only the number of frames (``seqLength``) of ``seqinfo.ini``; other keys may be missing.

    Args:
        path: the file, or the sequence folder that holds it.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if ``seqLength`` is missing or not a whole number >= 1.
    """
    file, section = _seqinfo_section(path)
    return _positive_int(file, section, "seqLength")


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
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ValueError(f"{file}: {key}={text}, expected a number > 0")
    return value


def _positive_int(file: Path, section: configparser.SectionProxy, key: str) -> int:
    value = _positive(file, section, key)
    if not value.is_integer():
        raise ValueError(f"{file}: {key}={section.get(key)}, expected a whole number >= 1")
    return int(value)
