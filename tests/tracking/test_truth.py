"""What tracks are counted against: the same rules, and the same figures, as ``score``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scene_track.data.mot_files import BoxTable, read_boxes
from scene_track.data.seqinfo import read_seqinfo
from scene_track.data.video import Video
from scene_track.score import score_folders
from scene_track.tracking.inference import SequenceTracks
from scene_track.tracking.scene_report import SceneReport
from scene_track.tracking.tracker import VideoInfo
from scene_track.tracking.truth import choose_benchmark
from tests.tracking.stories import walk


def video_of(folder: Path) -> Video:
    """A video as a model learns from it: pedestrians with flag 1, no images."""
    info = read_seqinfo(folder)
    table, _ = read_boxes(folder / "gt" / "gt.txt", length=info.length)
    table = table.select((table.confidence != 0) & (table.classes == 1))
    return replace(
        walk(folder.name),
        folder=folder,
        info=info,
        frames=np.arange(1, info.length + 1),
        files=(Path("none.jpg"),) * info.length,
        table=table,
        labels=np.zeros(len(table), dtype=np.int64),
    )


def tracks_of(video: Video, table: BoxTable) -> SequenceTracks:
    info = VideoInfo(video.name, video.info.frame_rate, video.info.height, video.info.width)
    return SequenceTracks(info, table, video.frames, 1.0)


@pytest.mark.parametrize("benchmark", ["auto", "mot20", "mot15"])
def test_evaluation_counts_mot17_as_score_and_trackeval_do(shared: Path, benchmark: str) -> None:
    golden = shared / "golden" / "mot17_preprocessing"
    truths = shared / "data" / "association" / "mot17_train_half" / "gt"
    videos = [video_of(folder) for folder in sorted(truths.iterdir())]
    report = SceneReport(videos, benchmark)
    for video in videos:
        found, _ = read_boxes(golden / "pred" / f"{video.name}.txt", kind="result")
        report.count(video, tracks_of(video, found))
    counted = report.scores()
    assert counted is not None
    assert report.benchmark == ("mot17" if benchmark == "auto" else benchmark)
    expected = json.loads((golden / "expected.json").read_text())[report.benchmark]
    for key in ("IDF1", "MOTA"):
        assert counted[0][key] == pytest.approx(expected["combined"][key], abs=1e-9)
    # The reference compares overlaps in float32, where some tie a threshold.
    assert counted[0]["HOTA"] == pytest.approx(expected["combined"]["HOTA"], abs=1e-5)
    if benchmark == "auto":
        scored = score_folders(truths, golden / "pred")
        assert scored["benchmark"] == report.benchmark
        assert counted == (scored["combined"], scored["sequences"])


def labelled(folder: Path, rows: str) -> Video:
    (folder / "gt").mkdir(parents=True)
    (folder / "gt" / "gt.txt").write_text(rows)
    video = walk(folder.name, people=1, frames=4)
    return replace(video, folder=folder)


_ROWS = "1,1,0,0,10,10,1,1,1\n1,2,30,0,10,10,0,8,1\n4,1,0,0,10,10,1,1,1\n4,2,30,0,10,10,0,8,1\n"


def test_a_part_of_a_sequence_is_preprocessed_as_the_whole(tmp_path: Path) -> None:
    whole = labelled(tmp_path / "yard", _ROWS)
    part = replace(whole.between(3, 4), table=BoxTable.empty())
    for video, frames in ((whole, (1, 4)), (part, (4,))):
        report = SceneReport([video], "auto")
        assert report.benchmark == "mot17"  # distractors in the file tell
        boxes = np.array([(0, 0, 10, 10), (30, 0, 10, 10)] * len(frames), dtype=float)
        ids = np.tile((1, 2), len(frames))
        found = BoxTable.from_arrays(np.repeat(frames, 2), ids, boxes)
        report.count(video, tracks_of(video, found))
        counted = report.scores()
        assert counted is not None
        # What lies on the distractor is no false positive.
        assert counted[0]["FP"] == 0 and counted[0]["FN"] == 0 and counted[0]["MOTA"] == 1


def test_other_classes_than_pedestrians_are_of_no_benchmark(tmp_path: Path) -> None:
    video = labelled(tmp_path / "farm", _ROWS)
    flies = replace(video.table, classes=np.full(len(video.table), 3))
    assert choose_benchmark([replace(video, table=flies)], "auto") == "dancetrack"
    with pytest.raises(ValueError, match="expected auto"):
        choose_benchmark([video], "mot99")
