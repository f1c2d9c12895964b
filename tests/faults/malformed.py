"""Files as strangers bring them: damaged, cut off, or with cells that nobody expects.

Whatever is in a file, its reader gives a result or one line for the user that names the file.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image

from scene_track.ball.point_files import PointRules, read_points
from scene_track.config.cli import run_main
from scene_track.data import container
from scene_track.data.coco import CocoFolder
from scene_track.data.crowdhuman import CrowdHumanFolder
from scene_track.data.detections import read_detections
from scene_track.data.footage import open_footage
from scene_track.data.images import FrameError, read_image
from scene_track.data.mot_files import read_boxes
from scene_track.data.seqinfo import SequenceInfo, read_seqinfo
from scene_track.data.video import read_sequence
from scene_track.models.weights import load_state_dict_file
from scene_track.training.checkpointing import load_checkpoint
from tests.data.still_folders import coco_content, draw
from tests.faults.kills import end, start
from tests.videos import squares, write_video

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

# Values that a JSON file may have in any place.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, -0.0, 1e308, 10**30, float("nan"), float("inf"), 44, 3),
    *("", " ", "1,5", "person", "a\nb", "\x00", "../x.png", "/", "é", [], {}, [0], {"a": 1}, [[]]),
)
YAML = """# @package _global_
defaults:
  - override /optimizer: adamw
  - override /tracker: identity
optimizer:
  lr: 0.0002
dataset:
  size: [64, 96]
  batch_size: 2
  window:
    length: 4
trainer:
  max_epochs: 3
seed: 7
"""
WORDS = """dataset=synthetic_dance
optimizer.lr=1e-4
dataset.size=[64,96]
seed=3
dataset.batch_size=2
trainer.max_epochs=1
tracker.max_gap=0.5
monitor.metric=val/hota
model/backbone=hybrid_nano
trainer.log_every_n_steps=5
"""


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


def reshaped(raw: bytes, seed: int) -> bytes:
    """JSON, or JSON by line, in which one to three values were replaced, repeated or dropped."""
    rng = np.random.default_rng(seed)
    by_line = raw.count(b"\n") > 1
    content = [json.loads(line) for line in raw.splitlines()] if by_line else json.loads(raw)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(content))
        node, key = places[int(rng.integers(len(places)))]
        action = rng.integers(5)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, list):
            node.append(node[key])
        else:
            node[key] = VALUES[int(rng.integers(len(VALUES)))]
        if not content:
            break
    rows = content if by_line else [content]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of a JSON tree as its container and key."""
    if not isinstance(node, dict | list):
        return
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        yield from _places(value)


def retyped(raw: bytes, seed: int) -> bytes:
    """Command-line words, one a line, in which a key or a value of one to three was replaced."""
    rng = np.random.default_rng(seed)
    words = raw.decode().splitlines()
    for _ in range(int(rng.integers(1, 4))):
        place, cell = int(rng.integers(len(words))), CELLS[int(rng.integers(len(CELLS)))]
        key, _, value = words[place].partition("=")
        match int(rng.integers(6)):
            case 0:
                words[place] = cell
            case 1:
                words[place] = f"{key[:-1]}={value}"
            case 2:
                words[place] = f"{key}={value}{cell}"
            case _:
                words[place] = f"{key}={cell}"
    return "\n".join(word.replace("\n", " ").replace("\x00", "") for word in words).encode()


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


def _stills(file: Path) -> object:
    """A folder of images around a COCO or CrowdHuman file."""
    for n in range(4):
        for image in (file.parent / "train" / f"{n}.png", file.parent / "Images" / f"{n}.jpg"):
            if not image.exists():
                draw(image, [])
    common = {"root": file.parent, "annotations": file.name}
    if file.suffix == ".json":
        return CocoFolder(**common, images="{split}", classes=["person"]).sequences("train")
    return CrowdHumanFolder(**common, images="Images").sequences("train")


def _crowd() -> bytes:
    person = {
        "tag": "person",
        "fbox": [10, 20, 14, 30],
        "hbox": [10, 20, 4, 4],
        "extra": {"box": 1},
    }
    mask = {**person, "tag": "mask", "extra": {"ignore": 1}}
    rows = [{"ID": str(n), "gtboxes": [person, person, mask]} for n in range(4)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@functools.cache
def _film(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / name, squares(12)).read_bytes()


def _frames(file: Path) -> list[Any]:
    return [frame.image for frame in open_footage(file).frames]


def _footage(file: Path) -> str:
    """What becomes of a damaged video."""
    with mock.patch.object(container.log, "warning") as said:
        found = _frames(file)
    if said.called:
        return "read with a warning"
    whole = file.with_stem("whole")
    if not whole.exists():
        whole.write_bytes(_film(file.name))
    expected = _frames(whole)
    same = len(found) == len(expected) and all(map(np.array_equal, found, expected))
    return "the same" if same else "another image"


def _nothing(cfg: DictConfig) -> None:
    """A job that is composed and checked, and does nothing."""


def _composed(file: Path) -> None:
    """A run's configuration with words, a YAML or a resumed run's folder from a stranger.

    Raises:
        ValueError: it was refused, with what was printed.
    """
    folder, log = file.parent, file.parent.parent / "log"
    if file.name == "words":
        words = file.read_text(errors="surrogateescape").replace("\x00", "").split("\n")
    elif file.name == "mine.yaml":
        words = ["--config-dir", str(folder.parent), "experiment=mine"]
    else:
        folder = folder.parent
        words = [f"resume_from={folder}"]
    log.unlink(missing_ok=True)

    def work() -> None:
        os.chdir(folder)
        sys.argv = ["train", *words, f"hydra.run.dir={folder / 'run'}"]
        run_main("config", _nothing, trials=True)

    code = end(start(work, log), 100)
    text = log.read_text(errors="replace")
    if code == 0:
        return
    assert code == 2 and "Traceback" not in text, f"exit code {code}: {text[-2000:]}"
    lines = text.strip().splitlines()  # one for each fault
    assert 0 < len(lines) < 10 and all(len(line) < 1000 for line in lines), text
    raise ValueError(f"{folder}: {' | '.join(lines)}")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the file.
        content: what is in it before it is spoiled.
        read: reads it.
        change: spoils it as a person does, by content and seed; ``damaged`` is tried as well.
    """

    name: str
    content: Callable[[], bytes]
    read: Callable[[Path], object]
    change: Callable[[bytes, int], bytes] = damaged


_INFO = SequenceInfo("A", "img1", 20.0, 4, 48, 32, ".png")
KINDS: dict[str, Kind] = {
    "seqinfo": Kind("seqinfo.ini", SEQINFO.encode, read_seqinfo, rewritten),
    "sequence": Kind("seqinfo.ini", SEQINFO.encode, _sequence, rewritten),
    "truth": Kind("gt/gt.txt", TRUTH.encode, _sequence, rewritten),
    "xyz": Kind("gt/xyz.txt", XYZ.encode, _sequence, rewritten),
    "result": Kind(
        "A.txt", RESULT.encode, lambda f: read_boxes(f, kind="result", length=4), rewritten
    ),
    "detections": Kind("A.txt", RESULT.encode, lambda f: read_detections(f, _INFO), rewritten),
    "label": Kind(
        "Label.csv", LABELS.encode, lambda f: read_points(f, PointRules(range(6))), rewritten
    ),
    "coco": Kind("a.json", lambda: json.dumps(coco_content()).encode(), _stills, reshaped),
    "crowdhuman": Kind("a.odgt", _crowd, _stills, reshaped),
    "yaml": Kind("experiment/mine.yaml", YAML.encode, _composed, rewritten),
    "words": Kind("words", WORDS.encode, _composed, retyped),
    "resumed": Kind(
        ".hydra/overrides.yaml",
        lambda: "".join(f"- {word}\n" for word in WORDS.splitlines()).encode(),
        _composed,
        rewritten,
    ),
    "mp4": Kind("a.mp4", lambda: _film("a.mp4"), _footage),
    "mkv": Kind("a.mkv", lambda: _film("a.mkv"), _footage),
    "checkpoint": Kind("last.ckpt", _state, load_checkpoint),
    "weights": Kind("a.pth", _state, load_state_dict_file),
    "safetensors": Kind("a.safetensors", _safetensors, load_state_dict_file),
    "jpeg": Kind("a.jpg", lambda: _picture("jpeg"), read_image),
    "png": Kind("a.png", lambda: _picture("png"), read_image),
}


def attempt(name: str, folder: Path, seed: int) -> str:
    """Reads one malformed file: ``read``, or ``refused``; of a video more is said.

    Raises:
        AssertionError: the message is not one line with the file's name.
        Exception: what is not for the user.
    """
    kind = KINDS[name]
    file = folder / kind.name
    file.parent.mkdir(exist_ok=True, parents=True)
    change = kind.change if seed % 3 else damaged
    file.write_bytes(change(kind.content(), seed))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = kind.read(file)
    except (ValueError, OSError) as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1000, text
        assert str(folder) in text, f"which file? {text}"
        return "refused"
    return answer if isinstance(answer, str) else "read"


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
    file, raw = folder / KINDS[kind].name, KINDS[kind].content()
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
