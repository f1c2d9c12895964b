"""The reader of images: what it gives; no damaged file ends the process or passes unseen."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scene_track.data.images import FrameError, image_size, read_image
from tests.faults.malformed import damaged

HEIGHT, WIDTH = 30, 50


@pytest.fixture
def colours() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((WIDTH, HEIGHT))


def _as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("mode", "extension"),
    [(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    + [(mode, "jpg") for mode in ("L", "RGB", "CMYK")],
)
def test_kinds_of_pixels(colours: Image.Image, tmp_path: Path, mode: str, extension: str) -> None:
    file = tmp_path / f"a.{extension}"
    colours.convert(mode).save(file)
    found = read_image(file, (HEIGHT, WIDTH))
    assert found.dtype == torch.uint8
    assert torch.equal(found, _as_tensor(Image.open(file)))
    assert image_size(file) == (HEIGHT, WIDTH)


def _png_of_16_bits(pixels: NDArray[np.uint16]) -> bytes:
    """A PNG file; Pillow writes 16 bits of grey alone."""
    import struct
    import zlib

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    kind = {1: 0, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled(tmp_path: Path, channels: int) -> None:
    ten = np.random.default_rng(0).integers(0, 1024, (9, 11, channels))
    (tmp_path / "a.png").write_bytes(_png_of_16_bits((ten << 6 | ten >> 4).astype(np.uint16)))
    expected = np.broadcast_to(ten[..., :3] >> 2, (9, 11, 3))
    found = read_image(tmp_path / "a.png").permute(1, 2, 0).numpy()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_image_stands_as_viewers_show_it(
    colours: Image.Image, tmp_path: Path, orientation: int, extension: str
) -> None:
    exif, file = Image.Exif(), tmp_path / f"a.{extension}"
    exif[0x0112] = orientation
    colours.save(file, exif=exif)
    shown = _as_tensor(ImageOps.exif_transpose(Image.open(file)))
    assert torch.equal(read_image(file), shown)
    assert image_size(file) == tuple(shown.shape[1:])


def test_a_turned_image_of_another_size_says_that_it_is_turned(
    colours: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(FrameError, match=f"{HEIGHT}x{WIDTH} .*EXIF.* {WIDTH}x{HEIGHT}"):
        read_image(tmp_path / "a.jpg", (HEIGHT, WIDTH))


def test_other_files_are_refused_by_name(colours: Image.Image, tmp_path: Path) -> None:
    colours.save(tmp_path / "gif.jpg", format="GIF")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.jpg").mkdir()
    for name in ("gif.jpg", "empty.png", "folder.jpg", "missing.jpg"):
        for read in (read_image, image_size):
            with pytest.raises(FrameError, match=name):
                read(tmp_path / name)


@pytest.mark.parametrize("extension", ["jpeg", "png"])
def test_damaged_files(colours: Image.Image, tmp_path: Path, extension: str) -> None:
    written, file = io.BytesIO(), tmp_path / f"a.{extension}"
    colours.save(written, extension)
    file.write_bytes(written.getvalue())
    whole, refused = read_image(file), 0
    for seed in range(120):
        file.write_bytes(damaged(written.getvalue(), seed))
        try:
            found = read_image(file, (HEIGHT, WIDTH))
        except FrameError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            refused += 1
            continue
        assert found.shape == whole.shape
        if extension == "png":  # which has checksums; only what they do not cover may be damaged
            assert torch.equal(found, whole)
        elif seed % 4 == 2:
            pytest.fail("a JPEG that was cut off was decoded")
    assert refused > 60
