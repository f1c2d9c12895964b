"""Switches and losses: those that the metrics count, the costly ones first, shown and explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from scene_track.config.shipped import build_option
from scene_track.data.mot_files import BoxTable
from scene_track.data.noise import EXACT, Noise
from scene_track.data.video import Video
from scene_track.metrics.tracking import tracking_metrics
from scene_track.tracking.fault_report import ORACLE, FaultReport
from scene_track.tracking.faults import Partners, find_faults, lost_frames, response
from scene_track.tracking.inference import SequenceTracks, associate
from scene_track.tracking.noisy_truth import truth_as_detections
from scene_track.tracking.truth import Truth
from tests.tracking.stories import VIDEO, walk


def far_apart() -> Video:
    """Three people for 40 frames who never touch."""
    video = walk(people=3)
    boxes = video.table.boxes.copy()
    boxes[:, :2] = np.stack((100.0 * video.table.ids, 50 + video.table.frames), axis=1)
    return replace(video, table=replace(video.table, boxes=boxes))


def tracks_of(truth: BoxTable) -> BoxTable:
    """Person 1 becomes 11 in frame 31; person 2 is missing in 11-15 and from 36 on."""
    ids, frames = truth.ids.copy(), truth.frames
    ids[(ids == 1) & (frames > 30)] = 11
    gone = (truth.ids == 2) & (((frames > 10) & (frames <= 15)) | (frames > 35))
    return replace(truth, ids=ids).select(~gone)


def test_each_fault_is_found_with_what_it_costs() -> None:
    video = far_apart()
    truth = Truth.of(video, "dancetrack")
    partners = Partners.of(truth, tracks_of(video.table))
    found = find_faults(video.name, partners)
    assert [(f.kind, f.person, f.cost, f.frames, f.gap, f.track_ids) for f in found] == [
        ("switch", 1, 10, (30, 31, 40), 0, (1, 11)),
        ("loss", 2, 5, (10, 13, 16), 5, (2, 2)),
        ("loss", 2, 5, (35, 38, 40), 5, (2, -1)),
    ]
    perfect = Partners.of(truth, video.table)
    for fault in found:
        answer = response(fault, perfect)
        assert answer.did == "kept" and answer.found == answer.of
    assert response(found[0], partners).did == "switched"
    assert response(found[2], partners).did == "lost"
    assert lost_frames(found, perfect) == (10, 10) and lost_frames(found, partners) == (10, 0)


def test_switches_are_those_that_the_metrics_count() -> None:
    video = walk(people=8, frames=60, seed=3)
    frames = truth_as_detections([video], Noise(misses=0.2, jitter=0.1), seed=0)
    (tracks,) = associate(frames, build_option("tracker", "sort"), None)
    truth = Truth.of(video, "dancetrack")
    found = find_faults(video.name, Partners.of(truth, tracks.table))
    switches = tracking_metrics(truth.count(tracks.table))["IDSW"]
    assert sum(fault.kind == "switch" for fault in found) == switches > 0


def test_the_page_shows_the_costliest_without_an_image(tmp_path: Path) -> None:
    video = far_apart()
    trackers = {name: build_option("tracker", name) for name in ("oracle", "bytetrack")}
    others = {ORACLE: trackers["oracle"], "ByteTrack": trackers["bytetrack"]}
    report = FaultReport("dancetrack", others)
    for info, detections in truth_as_detections([video], EXACT, seed=0):
        report.watch(info, detections)
    tracks = SequenceTracks(VIDEO, tracks_of(video.table), video.frames, 1.0)
    report.count(video, replace(tracks, video=replace(VIDEO, name=video.name)))
    report.write(tmp_path, 2, "title <1>")
    folder = tmp_path / "faults"
    data = json.loads((folder / "faults.json").read_text())
    assert data["summary"]["count"] == {"switch": 1, "loss": 2}
    assert data["summary"]["lost_frames"] == data["summary"]["lost_but_detected"] == 10
    switch, loss = data["faults"]
    assert switch["kind"] == "switch" and switch["overlap"] == 0
    assert switch["others"][ORACLE]["did"] == switch["others"]["ByteTrack"]["did"] == "kept"
    assert loss["others"][ORACLE] == {"did": "kept", "found": 5, "of": 5}
    page = (folder / "page.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "title &lt;1&gt;" in page
    with Image.open(folder / "001.png") as strip:
        colours = np.unique(np.asarray(strip).reshape(-1, 3), axis=0)
    assert len(colours) > 5  # boxes and labels on a blank canvas
