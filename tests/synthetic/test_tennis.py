"""The synthetic tennis: a TrackNet folder, true labels, and as hard as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from scene_track.data.visibility import Visibility, count_visibility
from scene_track.synthetic.folder import DrawnDataset
from scene_track.synthetic.tennis import shake, tenths
from scene_track.synthetic.tennis_court import BALL_RADIUS, Camera, Movement, paint_court
from scene_track.synthetic.tennis_drawing import Outfit, Stage, draw_grain
from scene_track.synthetic.tennis_rally import NET_HEIGHT, Rally, play, run
from tests.synthetic.conftest import tiny


@pytest.fixture
def tennis(tiny_sets: dict[str, DrawnDataset]) -> DrawnDataset:
    return tiny_sets["synthetic_tennis"]


def test_it_is_a_tracknet_folder(tennis: DrawnDataset) -> None:
    folder = tennis.folder
    clips = sorted(str(p.relative_to(folder)) for p in folder.glob("*/*/*"))
    assert clips == [
        "test/game1/Clip1", "test/game1/Clip2",
        "train/game1/Clip1", "train/game1/Clip2", "train/game2/Clip1", "train/game2/Clip2",
        "val/game1/Clip1", "val/game1/Clip2",
    ]  # fmt: skip
    clip = folder / "train" / "game2" / "Clip2"
    names = [f"{n:04d}.jpg" for n in range(5)]
    assert sorted(f.name for f in clip.iterdir()) == [*names, "Label.csv"]
    rows = (clip / "Label.csv").read_text().splitlines()
    assert rows[0] == "file name,visibility,x-coordinate,y-coordinate,status"
    assert [row.split(",")[0] for row in rows[1:]] == names
    with Image.open(clip / "0004.jpg") as image:
        assert image.size == (160, 88)


def test_the_reader_of_tracknet_reads_it(tennis: DrawnDataset) -> None:
    sequences = tennis.sequences("train")
    assert [s.name for s in sequences][:2] == ["game1_Clip1", "game1_Clip2"]
    assert all(s.labelled and s.info.frame_rate == 30 for s in sequences)
    assert len(tennis.sequences(["val/game1/Clip2:0-2"])[0]) == 3


@given(st.floats(-0.5, 359.5, exclude_max=True))
@example(359.47)  # rounds to the first coordinate outside
def test_a_ball_at_the_border_is_written_inside_the_image(value: float) -> None:
    written = tenths(value, 360)
    assert -0.5 <= float(written) < 359.5 and abs(float(written) - value) < 0.11
    if float(f"{value:.1f}") < 359.5:
        assert written == f"{value:.1f}"


def rallies(count: int, seconds: float = 4.0) -> list[Rally]:
    return [play(np.random.default_rng((5, seed)), seconds) for seed in range(count)]


def test_the_ball_flies_as_balls_do() -> None:
    """It does not jump, stays above the ground, and comes over the net, not through it."""
    times = np.arange(0, 4, 1 / 240)
    crossings = bounces = 0
    for rally in rallies(30):
        ball = rally.ball(times)
        step = np.linalg.norm(np.diff(ball, axis=0), axis=1) * 240
        assert np.nanmax(step) < 60  # metres per second
        assert np.nanmin(ball[:, 1]) > 0
        bounces += len(rally.bounces)
        for before, after in zip(ball[:-1], ball[1:], strict=True):
            if before[2] * after[2] < 0:
                crossings += 1
                assert before[1] > NET_HEIGHT
    assert crossings > 40 and bounces > 60


def test_spin_bends_the_flight() -> None:
    """A piece of a stroke leaves the straight line sideways, and falls faster or slower than g."""
    strokes = [p for r in rallies(30) for p in r.pieces if abs(p.velocity[2]) > 8]
    sideways = np.array([abs(p.acceleration[0]) * (p.end - p.start) ** 2 / 8 for p in strokes])
    falls = np.array([-p.acceleration[1] for p in strokes])
    assert np.median(sideways) > 0.02 and falls.min() < 8 < 12 < falls.max()


def test_players_are_where_they_strike() -> None:
    times = np.arange(0, 4, 1 / 30)
    checked = 0
    for rally in rallies(10):
        for side in (-1, 1):
            player = run(np.random.default_rng(0), rally, side, times)
            for stroke in rally.strokes:
                if stroke.side == side and 0 < stroke.time < 3.9:
                    nearest = int(np.argmin(np.abs(times - stroke.time)))
                    away = player.place[nearest] - stroke.position[[0, 2]]
                    assert np.linalg.norm(away) < 1.3
                    assert not np.isnan(player.swing[nearest])
                    checked += 1
    assert checked > 10


@pytest.fixture(scope="module")
def stage() -> Stage:
    """A court without noise, whose players stand far to the side."""
    rng = np.random.default_rng(3)
    camera = Camera.broadcast(rng, 320, 184)
    court = paint_court(rng, camera)
    times = np.zeros(1)
    players = tuple(run(np.random.default_rng(1), Rally(), side, times) for side in (-1, 1))
    for player in players:
        player.place[:] = (5.0 * player.side, 12.0 * player.side)
    outfit = Outfit.draw(rng)
    return Stage(court, (players[0], players[1]), (outfit, outfit), 0 * draw_grain(rng, camera))


def still(stage: Stage) -> Movement:
    camera = stage.court.camera
    return Movement(np.eye(2), np.array((camera.width, camera.height)) / 2, np.zeros(2))


def draw(stage: Stage, place: tuple[float, float, float] | None, movement: Movement):
    trail = np.full((13, 3), np.nan) if place is None else np.tile(place, (13, 1))
    image, seen = stage.frame(np.random.default_rng(0), 0, movement, trail)
    return np.asarray(image, dtype=np.float64), seen


@pytest.mark.parametrize("moved", [False, True])
def test_the_label_is_where_the_ball_was_painted(stage: Stage, moved: bool) -> None:
    """Also when the camera has moved, turned and zoomed."""
    movement = still(stage)
    if moved:
        rng = np.random.default_rng(8)
        movement = shake(rng, stage.court.camera, np.full((9, 3), np.nan), 1.0)[8]
        assert np.abs(movement.move).max() > 0.2 and movement.scale != 1
    for place in ((1.0, 2.0, -4.0), (-2.0, 1.0, -7.0), (0.5, 3.0, -1.0), (1.5, 2.5, 8.0)):
        without, _ = draw(stage, None, movement)
        image, seen = draw(stage, place, movement)
        assert seen.visibility in (Visibility.VISIBLE, Visibility.HARD)
        x, y = seen.position
        reach = 6
        left, top = round(x) - reach, round(y) - reach
        change = np.abs(image - without).sum(-1)
        change = change[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
        columns, rows = np.meshgrid(np.arange(2 * reach + 1), np.arange(2 * reach + 1))
        centre = np.array([(change * columns).sum(), (change * rows).sum()]) / change.sum()
        np.testing.assert_allclose(centre + (left, top), (x, y), atol=0.25)


def test_what_is_in_front_hides_the_ball(stage: Stage) -> None:
    camera, movement = stage.court.camera, still(stage)
    tape = np.array((1.0, NET_HEIGHT + 0.05, 0.0))
    towards = (tape - camera.position) / (tape - camera.position)[2]
    behind, before = tape + 0.5 * towards, tape - 0.5 * towards
    assert draw(stage, tuple(behind), movement)[1].visibility >= Visibility.HARD
    assert draw(stage, tuple(before), movement)[1].visibility is Visibility.VISIBLE
    near = stage.players[0].place[0]
    chest = np.array((near[0], 1.1, near[1]))
    towards = (chest - camera.position) / (chest - camera.position)[2]
    assert draw(stage, tuple(chest + 0.6 * towards), movement)[1].visibility is Visibility.OCCLUDED
    assert draw(stage, tuple(chest - 1.2 * towards), movement)[1].visibility is Visibility.VISIBLE
    _, gone = draw(stage, (0.0, 30.0, 0.0), movement)  # above the image
    assert gone.visibility is Visibility.ABSENT and np.isnan(gone.position).all()
    assert draw(stage, None, movement)[1].visibility is Visibility.ABSENT


def test_it_is_as_hard_as_it_should_be(tmp_path: Path) -> None:
    """Ball sizes, speeds and visibilities, at the default size of the images."""
    speeds, sizes, times = [], [], np.arange(0, 2, 1 / 30)
    for seed in range(40):
        rng = np.random.default_rng((7, seed))
        camera = Camera.broadcast(rng, 640, 360)
        ball = play(rng, 2.0).ball(times)
        inside = np.isfinite(ball[:, 0])
        place = camera.project(ball[inside])
        seen = ((place >= 0) & (place < (640, 360))).all(axis=1)
        sizes.append(2 * camera.focal * BALL_RADIUS / camera.depth(ball[inside][seen]))
        speeds.append(np.linalg.norm(np.diff(place[seen], axis=0), axis=1))
    low, middle, high = np.percentile(np.concatenate(sizes), (5, 50, 95))
    assert 2.5 < low < 4 < middle < 6 < high < 9
    assert 3 < np.median(np.concatenate(speeds)) < 12
    assert np.percentile(np.concatenate(speeds), 95) > 15
    options = {"train_games": 5, "val_games": 1, "test_games": 0, "clips_per_game": 1, "frames": 60}
    source = tiny("synthetic_tennis", tmp_path, width=320, height=184, workers=1, **options)
    source.prepare()
    levels = [s.points[:, 2] for s in source.sequences("train") if s.points is not None]
    absent, visible, hard, occluded = count_visibility(levels)
    assert 0 < absent < 100 and visible > hard + occluded > 0
