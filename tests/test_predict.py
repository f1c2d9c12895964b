"""The command predict and the Python API: files, times, boxes, and what is said when it stops."""

from __future__ import annotations

import doctest
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import scene_track
from scene_track import api
from scene_track.ball.point_files import PointRules, read_points
from scene_track.config.cli import with_brought
from scene_track.config.paths import config_dir
from scene_track.data.footage import FootageFrame, open_footage
from scene_track.data.mot_files import read_boxes
from scene_track.evaluate import evaluate
from scene_track.predict import predict
from scene_track.tracking.inference import to_pixels
from scene_track.tracking.tracker import TrackedFrame
from tests.compose import TINY_BALL, compose_run
from tests.videos import squares, write_video

CONF = Path(config_dir())
SURE = ("tracker=identity", "tracker.exist_conf=0.001", "tracker.birth=0.002")
"""Of a model that has seen two batches, everything is a track."""


@pytest.fixture(scope="module")
def run(run_folder: Path) -> api.Run:
    loaded = scene_track.load(run_folder, device="cpu")
    sure = {"exist_conf": 0.001, "birth": 0.002}
    return loaded.with_tracker(OmegaConf.create({**loaded.tracker, **sure}))


@pytest.mark.parametrize("name", [path.stem for path in CONF.glob("dataset/[!_]*.yaml")])
def test_the_classes_of_a_run_are_known_without_its_data(name: str) -> None:
    wanted = {"dancetrack": "dancer", "synthetic_dance": "dancer", "unlabelled": "region"}
    wanted |= {"synthetic_tennis": "ball", "tracknet": "ball"}
    source = compose_run([f"dataset={name}", "dataset.root=/nowhere"]).dataset.source
    assert api.class_names_of(source) == (wanted.get(name, "person"),)
    if name == "mixed":
        stills = compose_run(["dataset=coco", "dataset.source.classes=[person,dog]"]).dataset
        source.parts.stills = {"source": stills.source}
        assert api.class_names_of(source) == ("person", "dog")


def test_a_sequence_folder_gives_the_tracks_of_evaluate(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    words = (f"checkpoint={run_folder}", *SURE)
    evaluate(composed("evaluate", *words, f"output={tmp_path}/scores"))
    (expected,) = (tmp_path / "scores" / "tracks").iterdir()
    (sequence,) = (run_folder.parent / "dance").rglob(f"val/{expected.stem}")
    predict(composed("predict", *words, f"source={sequence}", f"output={tmp_path}/o", "video=null"))
    assert sorted(file.name for file in (tmp_path / "o").iterdir()) == ["tracks.json", "tracks.txt"]
    found, _ = read_boxes(tmp_path / "o" / "tracks.txt", kind="result")
    table, _ = read_boxes(expected, kind="result")
    assert len(found) > 10
    np.testing.assert_array_equal(found.ids, table.ids)
    np.testing.assert_array_equal(found.boxes, table.boxes)


def test_a_video_becomes_a_folder_with_its_own_times(
    run_folder: Path, tmp_path: Path, composed: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [3.0, 3.04, 3.3, 4.5, 4.52, 5.0, 5.1, 5.2, 5.3, 5.4]
    source = write_video(tmp_path / "a b.mp4", squares(10), times, turned=90)
    words = (f"checkpoint={run_folder}", *SURE, f"source='{source}'", f"output={tmp_path}/o")
    predict(composed("predict", *words))
    folder = tmp_path / "o"
    content = json.loads((folder / "tracks.json").read_text())
    assert content["complete"] and (content["width"], content["height"]) == (64, 96)
    seconds = [frame["seconds"] for frame in content["frames"]]
    assert seconds == pytest.approx([t - 3 for t in times], abs=2e-3)
    table, _ = read_boxes(folder / "tracks.txt", kind="result")
    for frame in content["frames"]:
        rows = table.at(frame["frame"])
        order = np.argsort(frame["ids"])
        boxes = np.array(frame["boxes"]).reshape(-1, 4)[order]
        np.testing.assert_array_equal(np.array(frame["ids"])[order], rows.ids)
        np.testing.assert_allclose(boxes[:, :2], rows.boxes[:, :2], atol=1e-3)
        np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], rows.boxes[:, 2:], atol=2e-3)
    with av.open(str(folder / "video.mp4")) as container:
        drawn = list(container.decode(video=0))
    assert [(frame.height, frame.width) for frame in drawn] == [(96, 64)] * 10
    assert [frame.time for frame in drawn] == pytest.approx(seconds, abs=1e-4)
    said = capsys.readouterr().out
    assert "10 frames" in said and "reading" in said and str(folder) in said

    with pytest.raises(ValueError, match="overwrite=true"):
        predict(composed("predict", *words))
    predict(composed("predict", *words, "overwrite=true", "video=gif", "video_width=64"))
    assert sorted(file.name for file in folder.iterdir()) == [
        "tracks.json",
        "tracks.txt",
        "video.gif",
    ]
    (folder / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"mine\.txt"):
        predict(composed("predict", *words, "overwrite=true"))


def test_times_that_differ_reach_the_model(run: api.Run) -> None:
    """Frames at another pace are other frames for a model that is told seconds."""
    frames = squares(10)
    footage = {fps: open_footage(frames, fps) for fps in (5.0, 60.0)}
    scores = [[f.scores for f in run.follow(footage[fps])] for fps in footage]
    assert any(not np.array_equal(a, b) for a, b in zip(*scores, strict=True))


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    box=st.tuples(*[st.floats(0.001, 1) for _ in range(4)]),
)
def test_boxes_come_back_exactly(height: int, width: int, box: tuple[float, ...]) -> None:
    """A box of the canvas is in the video where it was on the canvas, whatever the two sizes."""
    canvas = np.array([box])
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    tracks = TrackedFrame(1, np.ones(1, int), canvas, np.ones(1), np.zeros(1, int))
    frame = api._result(FootageFrame(image, 1, 0.0), tracks, (height, width))
    cx, cy, w, h = box
    expected = np.array([(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height])
    np.testing.assert_allclose(frame.rectangles[0], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(frame.rectangles, to_pixels(canvas, (height, width)))
    np.testing.assert_allclose(frame.canvas_boxes, canvas, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(frame.points[0] + 0.5, (cx * width, cy * height), atol=1e-9)


def test_the_api_gives_what_the_command_writes(run: api.Run, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", squares(11), codec="ffv1", pix_fmt="bgr0")
    by_file = list(run.track(source))
    by_array = list(run.track((frame for frame in squares(11)), fps=20))
    assert [f.number for f in by_file] == list(range(1, 12)) and len(by_file[-1]) > 0
    for one, other in zip(by_file, by_array, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.1)  # times are of milliseconds
    assert by_file[-1].draw().shape == (64, 96, 3)
    found = by_file[-1].to_supervision()
    np.testing.assert_array_equal(found.tracker_id, by_file[-1].ids)
    np.testing.assert_allclose(found.xyxy, by_file[-1].boxes, rtol=1e-5)


def test_two_videos_at_once_do_not_disturb_each_other(run: api.Run) -> None:
    frames, others = squares(9), squares(9)[::-1]
    alone = list(run.track(frames, fps=20))
    together = [pair[0] for pair in zip(run.track(frames, 20), run.track(others, 20), strict=True)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_detections_of_single_images_know_nothing_of_each_other(
    run: api.Run, tmp_path: Path
) -> None:
    first, last = squares(5)[0], squares(5, 80, 60)[-1]
    alone = next(iter(run.detect([last], score=0.001)))
    _, second = run.detect([first, last], score=0.001)
    np.testing.assert_array_equal(alone.boxes, second.boxes)
    assert len(alone) and (alone.ids == -1).all() and (np.diff(alone.scores) <= 0).all()


def test_what_cannot_be_used_is_refused_before_the_model_is_built(
    run_folder: Path, tmp_path: Path, composed: Callable
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for source in ("text.mp4", "gone.mp4"):
        with pytest.raises((ValueError, FileNotFoundError), match=source):
            predict(composed("predict", f"checkpoint={run_folder}", f"source={tmp_path / source}"))
    run = scene_track.load(run_folder)
    with pytest.raises(ValueError, match="tracker="):
        run.with_tracker("ball")
    with pytest.raises(FileNotFoundError):
        run.with_tracker("no_such_tracker")


def test_the_examples_of_the_docstrings_run(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "dance").symlink_to(run_folder)
    write_video(tmp_path / "video.mp4", squares(10))
    result = doctest.testmod(api)
    assert result.attempted >= 8 and not result.failed


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import scene_track, sys; assert 'torch' not in sys.modules; scene_track.load"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_keeps_what_was_done(run_folder: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "long.mp4", squares(3000))
    words = [f"checkpoint={run_folder}", f"source={source}", f"output={tmp_path}/o"]
    process = subprocess.Popen(
        [sys.executable, "-m", "scene_track.predict", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        partial = list(tmp_path.glob(".o.*/tracks.json"))
        if partial and partial[0].stat().st_size > 4000:
            break
        time.sleep(0.1)
    assert not (tmp_path / "o").exists()
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    content = json.loads((tmp_path / "o" / "tracks.json").read_text())
    done = len(content["frames"])
    assert 0 < done < 3000 and content["complete"] is False and f"frame {done}" in said
    with av.open(str(tmp_path / "o" / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == done
    assert not list(tmp_path.glob(".o.*"))


def checkpoint_of(path: Path, *overrides: str) -> Path:
    """A checkpoint of a model as it starts, without a training."""
    cfg = compose_run(overrides)
    model = instantiate(cfg.model)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    settings = OmegaConf.to_container(cfg, resolve=True)
    torch.save({"hyper_parameters": settings, "state_dict": state}, path)
    return path


def test_a_ball_becomes_a_row_per_frame(tmp_path: Path, composed: Callable) -> None:
    words = [*TINY_BALL, f"dataset.root={tmp_path}", "dataset.size=[32,48]"]
    checkpoint = checkpoint_of(tmp_path / "ball.ckpt", *words)
    source = write_video(tmp_path / "a.mp4", squares(10))
    words = [f"checkpoint={checkpoint}", f"source={source}", f"output={tmp_path}/o"]
    predict(composed("predict", *words, "tracker=peak", "tracker.threshold=0"))
    table, _ = read_points(tmp_path / "o" / "ball.csv", PointRules(frames=range(1, 11)))
    assert table.frames.tolist() == list(range(1, 11)) and (table.visibility == 1).all()
    content = json.loads((tmp_path / "o" / "tracks.json").read_text())
    points = [frame["points"][0] for frame in content["frames"]]
    np.testing.assert_allclose(points, table.xy, atol=1e-3)
    assert (tmp_path / "o" / "video.mp4").is_file()
    with pytest.raises(ValueError, match="tracker="):
        predict(composed("predict", *words, "tracker=identity", "overwrite=true"))


def test_detections_of_a_file_are_told_apart(tmp_path: Path, composed: Callable) -> None:
    """The association model as it starts is a Kalman tracker."""
    words = ["model=association", "dataset=mot", f"dataset.root={tmp_path}"]
    checkpoint = checkpoint_of(
        tmp_path / "boxes.ckpt", *with_brought(words), "dataset.detections=noise"
    )
    source = write_video(tmp_path / "a.mp4", squares(10))
    rows = [
        row
        for n in range(10)
        for row in (f"{n + 1},-1,{4 * n},8,16,16,0.95", f"{n + 1},-1,8,44,12,12,0.9")
    ]
    (tmp_path / "det.txt").write_text("\n".join(rows))
    words = [f"checkpoint={checkpoint}", f"source={source}", f"output={tmp_path}/o"]
    predict(composed("predict", *words, f"detections={tmp_path}/det.txt"))
    table, _ = read_boxes(tmp_path / "o" / "tracks.txt", kind="result")
    assert len(table) == 20 and len(np.unique(table.ids)) == 2
    moving = table.select(table.ids == table.at(1).ids[0])
    np.testing.assert_allclose(moving.boxes[:, 0], 4.0 * np.arange(10), atol=1e-3)
    with pytest.raises(ValueError, match="detections=FILE"):
        predict(composed("predict", *words, "overwrite=true"))


def test_the_oracle_is_refused_where_there_is_no_truth(run: api.Run) -> None:
    frames = [np.zeros((48, 64, 3), np.uint8)]
    with pytest.raises(ValueError, match="needs ground truth.*tracker=identity"):
        next(run.track(frames, fps=10, tracker="oracle"))
