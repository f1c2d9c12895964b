"""``seqinfo.ini``: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from scene_track.data.seqinfo import SequenceInfo, read_length, read_seqinfo

INI = """[Sequence]
name=stage
imDir=img1
frameRate=20
seqLength=30
imWidth=640
imHeight=360
imExt=.png
"""


def test_seqinfo_is_read_from_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "seqinfo.ini").write_text(INI)
    expected = SequenceInfo("stage", "img1", 20.0, 30, 640, 360, ".png")
    assert read_seqinfo(tmp_path) == expected
    assert read_seqinfo(tmp_path / "seqinfo.ini") == expected
    assert read_length(tmp_path) == 30


def test_seqinfo_names_follow_the_layout_where_missing(tmp_path: Path) -> None:
    text = "\n".join(
        line for line in INI.splitlines() if line.split("=")[0] not in ("name", "imDir", "imExt")
    )
    (tmp_path / "seqinfo.ini").write_text(text)
    info = read_seqinfo(tmp_path)
    assert (info.name, info.image_dir, info.extension) == (tmp_path.name, "img1", ".jpg")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seqLength=30\n", "", "key seqLength is missing"),
        ("seqLength=30", "seqLength=thirty", "seqLength=thirty, expected a number > 0"),
        ("seqLength=30", "seqLength=0", "seqLength=0, expected a number > 0"),
        ("imWidth=640", "imWidth=640.5", "imWidth=640.5, expected a whole number"),
        ("frameRate=20", "frameRate=-1", "frameRate=-1, expected a number > 0"),
        ("frameRate=20", "frameRate=nan", "frameRate=nan, expected a number > 0"),
        ("[Sequence]", "[Video]", r"expected a section \[Sequence\], found \[Video\]"),
        ("[Sequence]", "", "not a readable .ini file"),
    ],
)
def test_seqinfo_errors_name_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "seqinfo.ini"
    file.write_text(INI.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        read_seqinfo(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_seqinfo_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="seqinfo.ini"):
        read_seqinfo(tmp_path)
