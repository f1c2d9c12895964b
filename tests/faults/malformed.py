"""Files as strangers bring them: damaged, cut off, or with cells that nobody expects.

Whatever is in a file, its reader gives a result or one line for the user that names the file.
"""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scene_track.ball.point_files import PointRules, read_points
from scene_track.data.images import FrameError, read_image
from scene_track.data.mot_files import read_boxes
from scene_track.data.seqinfo import read_seqinfo
from scene_track.data.video import read_sequence
from scene_track.models.weights import load_state_dict_file
from scene_track.training.checkpointing import load_checkpoint

# Cells that were seen in the wild, or break what is careless with numbers.
CELLS = (
    *("", " ", "nan", "inf", "-inf", "-1", "0", "-0", "1e309", "1e18", "99999999999999999999"),
    *(
        "1,5",
        "1;5",
        "1 5",
        "1_000",
        "0x10",
        "１２",
        "\ufeff1",
        "\x00",
        '"',
        "'",
        "\\",
        "#",
        "%(x)s",
    ),
    *("None", "true", "-", ".", "1.2.3", "٣", "é", "${oc.env:HOME}", "\r", "\n", "=", "[", "]"),
)
SEQINFO = (
    "[Sequence]\nname=A\nimDir=img1\nframeRate=20\nseqLength=4\nimWidth=48\nimHeight=32\n"
    "imExt=.png\n"
)
TRUTH = "".join(f"{n},{k},{2.5 * n},4,8,10,1,1,0.75\n" for n in range(1, 5) for k in (1, 2))
RESULT = "".join(f"{n},{k},{2.5 * n},4,8,10,0.9,-1,-1,-1\n" for n in range(1, 5) for k in (1, 2))
XYZ = "".join(f"{n},{k},0.5,1.5,{3 + n}\n" for n in range(1, 5) for k in (1, 2))
LABELS = "file name,visibility,x-coordinate,y-coordinate,status\n" + "".join(
    f"{n:04d}.jpg,1,{10 + n},{5.5 + n},0\n" for n in range(6)
)


def damaged(raw: bytes, seed: int) -> bytes:
    """A file with a bit flipped, bytes changed, a part cut off, or a part filled with zeros."""
    rng = np.random.default_rng(seed)
    data = bytearray(raw)
    start = int(rng.integers(len(data)))
    match seed % 4:
        case 0:
            data[start] ^= 1 << int(rng.integers(8))
        case 1:
            data[start : start + 8] = rng.bytes(len(data[start : start + 8]))
        case 2:
            del data[start:]
        case _:
            data[start : start + 512] = bytes(len(data[start : start + 512]))
    return bytes(data)


def rewritten(raw: bytes, seed: int) -> bytes:
    """A text file in which one to three cells were replaced, or a line repeated or dropped."""
    rng = np.random.default_rng(seed)
    lines = raw.decode().splitlines()
    for _ in range(int(rng.integers(1, 4))):
        row = int(rng.integers(len(lines)))
        separator = "=" if "=" in lines[row] else "," if "," in lines[row] else ":"
        cells = lines[row].split(separator)
        cells[int(rng.integers(len(cells)))] = CELLS[int(rng.integers(len(CELLS)))]
        lines[row] = separator.join(cells)
    action, row = rng.integers(4), int(rng.integers(len(lines)))
    if action == 0:
        lines.insert(row, lines[row])
    elif action == 1 and len(lines) > 1:
        del lines[row]
    return ("\n".join(lines) + "\n").encode()


def _state() -> bytes:
    written = io.BytesIO()
    state = {"layer.weight": torch.arange(64.0), "layer.bias": torch.ones(8)}
    torch.save(state, written)
    return written.getvalue()


def _safetensors() -> bytes:
    from safetensors.torch import save

    return save({"layer.weight": torch.arange(64.0), "layer.bias": torch.ones(8)})


def _picture(extension: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).resize((50, 30)).save(written, extension)
    return written.getvalue()


def _sequence(file: Path) -> object:
    """A whole sequence folder around ``gt.txt`` or ``seqinfo.ini``."""
    folder = file.parent.parent if file.parent.name == "gt" else file.parent
    (folder / "img1").mkdir(exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    for name, text in (("seqinfo.ini", SEQINFO), ("gt/gt.txt", TRUTH), ("gt/xyz.txt", XYZ)):
        if folder / name != file:
            (folder / name).write_text(text)
    if not (folder / "img1" / "000001.png").exists():
        for number in range(1, 5):
            Image.new("RGB", (48, 32)).save(folder / "img1" / f"{number:06d}.png")
    return read_sequence(folder, classes={1: "person"})


Kind = tuple[str, Callable[[], bytes], Callable[[Path], object]]
KINDS: dict[str, Kind] = {
    "seqinfo": ("seqinfo.ini", SEQINFO.encode, read_seqinfo),
    "sequence": ("seqinfo.ini", SEQINFO.encode, _sequence),
    "truth": ("gt/gt.txt", TRUTH.encode, _sequence),
    "xyz": ("gt/xyz.txt", XYZ.encode, _sequence),
    "result": ("A.txt", RESULT.encode, lambda file: read_boxes(file, kind="result", length=4)),
    "label": ("Label.csv", LABELS.encode, lambda file: read_points(file, PointRules(range(6)))),
    "checkpoint": ("last.ckpt", _state, load_checkpoint),
    "weights": ("a.pth", _state, load_state_dict_file),
    "safetensors": ("a.safetensors", _safetensors, load_state_dict_file),
    "jpeg": ("a.jpg", lambda: _picture("jpeg"), read_image),
    "png": ("a.png", lambda: _picture("png"), read_image),
}
_TEXT = ("seqinfo", "sequence", "truth", "xyz", "result", "label")


def attempt(kind: str, folder: Path, seed: int) -> str:
    """Reads one malformed file: ``read``, or ``refused``.

    Raises:
        AssertionError: the message is not one line with the file's name.
        Exception: what is not for the user.
    """
    name, content, read = KINDS[kind]
    file = folder / name
    file.parent.mkdir(exist_ok=True, parents=True)
    change = rewritten if kind in _TEXT and seed % 3 else damaged
    file.write_bytes(change(content(), seed))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(file)
    except (ValueError, OSError) as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1000, text
        assert str(folder) in text, f"which file? {text}"
        return "refused"
    return "read"


def campaign(kind: str, folder: Path, count: int) -> str:
    """Reads many malformed files; how many were refused, read, or answered in another way."""
    found: Counter[str] = Counter()
    for seed in range(count):
        try:
            found[attempt(kind, folder / kind, seed)] += 1
        except Exception as error:
            found["WRONG"] += 1
            print(f"{kind}, seed {seed}: {type(error).__name__}: {error}", flush=True)
    return ", ".join(f"{count} {answer}" for answer, count in sorted(found.items()))


def damaged_images(folder: Path, kind: str, count: int) -> str:
    """Decodes damaged images, each in a process that may crash; what became of them."""
    name, content, _ = KINDS[kind]
    file, raw = folder / name, content()
    file.write_bytes(raw)
    whole = read_image(file)
    found: Counter[str] = Counter()
    for seed in range(count):
        file.write_bytes(damaged(raw, seed))
        child = os.fork()
        if not child:
            code = 4
            try:
                code = 0 if torch.equal(read_image(file, (30, 50)), whole) else 1
            except FrameError:
                code = 2
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers = ("the same image", "another image", "refused")
        found[answers[status] if 0 <= status < 3 else f"CRASHED {status}"] += 1
    listed = ", ".join(f"{count} {answer}" for answer, count in sorted(found.items()))
    return f"{kind} {count} damaged: {listed}"
