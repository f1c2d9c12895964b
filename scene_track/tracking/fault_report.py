"""The worst faults of an evaluation as strips of images and one page of HTML.

``faults/page.html`` needs no other file; the strips also lie beside it as PNG.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scene_track.data.video import Video
from scene_track.io.atomic import write_atomic
from scene_track.metrics.benchmark import Benchmark
from scene_track.tracking.faults import (
    Fault,
    Partners,
    Response,
    find_faults,
    largest_overlap,
    lost_frames,
    response,
)
from scene_track.tracking.inference import SequenceTracks, associate
from scene_track.tracking.scene_report import read_image
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
from scene_track.tracking.truth import Truth
from scene_track.viz.clips import write_png
from scene_track.viz.strips import Moment, draw_strip, window_around

WRITES = ("faults/*.png", "faults/page.html", "faults/faults.json")
ORACLE = "oracle"
_OURS, _TRUTH = "ours", "truth"
_TEMPLATE = Path(__file__).with_name("fault_page.html")


@dataclass
class _Case:
    """A video with its faults, by the trackers that saw its detections."""

    footage: Video
    ours: Partners
    others: dict[str, Partners]
    faults: list[Fault] = field(default_factory=list)


class FaultReport:
    """Collects the detections of each video, runs other trackers on them, and shows the faults."""

    def __init__(self, benchmark: Benchmark, others: Mapping[str, Tracker]) -> None:
        """Collect nothing yet.

        Args:
            benchmark: whose rules hold.
            others: trackers that are given the same detections, by name; ``ORACLE`` among them.
        """
        self._benchmark: Benchmark = benchmark
        self._others = dict(others)
        self._seen: dict[str, list[tuple[VideoInfo, Detections]]] = {}
        self._cases: dict[str, _Case] = {}

    def watch(self, video: VideoInfo, detections: Detections) -> None:
        """Keep a frame's detections for the other trackers, which need no tokens."""
        frames = self._seen.setdefault(video.name, [])
        frames.append((video, replace(detections, tokens=None)))

    def count(self, footage: Video, tracks: SequenceTracks) -> None:
        """Find the faults of a labelled video whose last frame was watched."""
        frames = self._seen.pop(footage.name)
        truth = Truth.of(footage, self._benchmark)
        others = {}
        for name, tracker in self._others.items():
            (found,) = associate(frames, tracker, None)
            others[name] = Partners.of(truth, found.table)
        case = _Case(footage, Partners.of(truth, tracks.table), others)
        case.faults = find_faults(footage.name, case.ours)
        self._cases[footage.name] = case

    def write(self, folder: Path, count: int, title: str) -> dict[str, Any]:
        """Write the strips of the ``count`` costliest faults, the page, and ``faults.json``.

        All go to ``faults/`` in the folder of the evaluation. Returns what ``faults.json`` holds.
        """
        every = [(fault, case) for case in self._cases.values() for fault in case.faults]
        every.sort(key=lambda pair: (-pair[0].cost, pair[0].video, pair[0].frames))
        shown = []
        for number, (fault, case) in enumerate(every[:count], start=1):
            path = folder / "faults" / f"{number:03d}.png"
            write_png(path, _strip(fault, case))
            shown.append(_record(fault, case) | {"image": path.name})
        data = {"title": title, "summary": self._summary(), "faults": shown}
        target = folder / "faults"
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / "faults.json", json.dumps(data, indent=1) + "\n")
        write_atomic(target / "page.html", "".join(_page(data, target)))
        return data

    def _summary(self) -> dict[str, Any]:
        """How many faults there are, what they cost, and how many the detector is to blame for."""
        cases = list(self._cases.values())
        faults = [fault for case in cases for fault in case.faults]
        lost = [lost_frames(case.faults, case.others[ORACLE]) for case in cases]
        kinds = ("switch", "loss")
        return {
            "count": {kind: sum(fault.kind == kind for fault in faults) for kind in kinds},
            "frames": {kind: sum(f.cost for f in faults if f.kind == kind) for kind in kinds},
            "lost_frames": sum(total for total, _ in lost),
            "lost_but_detected": sum(detected for _, detected in lost),
        }


def _record(fault: Fault, case: _Case) -> dict[str, Any]:
    """A fault as plain data."""
    answers = {name: asdict(response(fault, other)) for name, other in case.others.items()}
    return asdict(fault) | {"overlap": largest_overlap(fault, case.ours.truth), "others": answers}


def _strip(fault: Fault, case: _Case) -> np.ndarray:
    """Before, at and after a fault; a row each for our tracks, the truth and other trackers."""
    footage, ours = case.footage, case.ours
    size = footage.info.size
    positions = np.searchsorted(footage.frames, fault.frames).tolist()
    images = [read_image(footage, position, size) for position in positions]
    rows = {
        _OURS: _moments(fault, ours, set(fault.track_ids)),
        _TRUTH: [_moment(ours.truth.at(frame), {fault.person}) for frame in fault.frames],
    }
    for name, other in case.others.items():
        if name != ORACLE:
            rows[name] = _moments(fault, other, {int(other.ids[row]) for row in fault.rows})
    watched = [moment.boxes[moment.watched] for name in (_OURS, _TRUTH) for moment in rows[name]]
    # The person decides what is seen; our tracks may have gone elsewhere.
    person = ours.truth.boxes[list(fault.rows)]
    near = np.concatenate([person, *(box for box in watched if len(box))])
    window = window_around(near if _compact(near, person) else person, size)
    names = ("before", "at", "after")
    captions = [f"{name}: frame {f}" for name, f in zip(names, fault.frames, strict=True)]
    return draw_strip(images, rows, window, captions=captions, header=_headline(fault))


def _compact(boxes: np.ndarray, person: np.ndarray) -> bool:
    """Whether all boxes lie within a few sizes of the person."""
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return bool(((high - low) <= 4 * person[:, 2:].max(axis=0)).all())


def _moments(fault: Fault, partners: Partners, ids: set[int]) -> list[Moment]:
    return [_moment(partners.tracks.at(frame), ids) for frame in fault.frames]


def _moment(table: Any, ids: set[int]) -> Moment:
    return Moment(table.boxes, table.ids, np.isin(table.ids, sorted(ids)))


def _headline(fault: Fault) -> str:
    before, after = fault.track_ids
    if fault.kind == "switch":
        return f"{fault.video}: person {fault.person}, track {before} becomes {after}"
    return f"{fault.video}: person {fault.person}, track {before}, lost for {fault.cost} frames"


_DID = {
    "kept": "kept the identity",
    "switched": "switched it too",
    "lost": "did not find the person before or after",
}


def _words(answer: Mapping[str, Any]) -> str:
    """What another tracker did, in words."""
    did = Response(**answer)
    between = f"; found in {did.found} of {did.of} frames between" if did.of else ""
    return _DID[did.did] + between


def _page(data: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The page, section by section."""
    start, end = _TEMPLATE.read_text(encoding="utf-8").split("<!--CONTENT-->")
    summary = data["summary"]
    yield start.replace("<!--TITLE-->", html.escape(data["title"]))
    tiles = (
        (summary["count"]["switch"], "identity switches"),
        (summary["frames"]["switch"], "frames that they spoil"),
        (summary["count"]["loss"], "losses"),
        (summary["lost_frames"], "frames lost"),
        (summary["lost_but_detected"], "of them with a detection"),
    )
    yield '<div class="tiles">'
    yield from (f'<div class="tile"><b>{n}</b><span>{what}</span></div>' for n, what in tiles)
    yield '</div><div class="faults">'
    for number, fault in enumerate(data["faults"], start=1):
        content = io.BytesIO()  # as JPEG a fifth of its size as PNG
        Image.open(folder / fault["image"]).save(content, format="JPEG", quality=88)
        image = base64.b64encode(content.getvalue()).decode()
        facts = {
            "costs": f"{fault['cost']} frames",
            "gap": f"{fault['gap']} frames",
            "overlap": f"{fault['overlap']:.2f} IoU with somebody else at most",
            **{name: _words(answer) for name, answer in fault["others"].items()},
        }
        terms = "".join(f"<dt>{html.escape(k)}</dt><dd>{v}</dd>" for k, v in facts.items())
        head = html.escape(_headline(_fault(fault)))
        yield (
            f'<section><h2>{number}. {fault["kind"]}: {head}</h2><dl class="kv">{terms}</dl>'
            f'<figure><img src="data:image/jpeg;base64,{image}" alt="{head}"></figure></section>'
        )
    yield "</div>" + end


def _fault(record: Mapping[str, Any]) -> Fault:
    return Fault(**{k: v for k, v in record.items() if k not in ("overlap", "others", "image")})
