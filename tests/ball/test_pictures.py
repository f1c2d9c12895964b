"""Pictures of a ball: rings lie on the ball, whatever the shape of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.ball.pictures import FOUND, TRUE, WRONG, BallVisualiser, draw_ball, draw_flight

ORIGINAL = (360, 640)


def centre_of(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """x, y of the middle of what has this colour."""
    rows, columns = np.nonzero((picture == np.array(colour)).all(-1))
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


@pytest.mark.parametrize("size", [(180, 320), (192, 320), (180, 400)])
def test_rings_lie_on_the_ball(size: tuple[int, int]) -> None:
    """Also where the model sees the footage squeezed: each axis has its own scale."""
    ball = np.array([300.0, 310.0, 1.0])
    black = np.zeros((*size, 3), np.uint8)
    panel = draw_ball(black, None, ball, ball, ORIGINAL, width=size[1])[:, : size[1]]
    x, y = centre_of(panel, TRUE)
    assert abs(x - 300.5 / 640 * size[1]) < 1.1
    assert abs(y - 310.5 / 360 * size[0]) < 1.1


@pytest.mark.parametrize("size", [(180, 320), (192, 320)])
def test_a_flight_is_drawn_where_the_ball_is(size: tuple[int, int]) -> None:
    ball = np.array([500.0, 40.0, 1.0])
    (frame,) = draw_flight([(0, np.zeros((*size, 3), np.uint8), ball)], ORIGINAL)
    x, y = centre_of(frame, FOUND)
    assert abs(x - 500.5 / 640 * size[1]) < 1.1
    assert abs(y - 40.5 / 360 * size[0]) < 1.1


def test_far_off_is_red_and_heat_is_warm() -> None:
    truth, wrong = np.array([100.0, 100.0, 1.0]), np.array([130.0, 100.0, 1.0])
    black = np.zeros((180, 320, 3), np.uint8)
    heat = np.zeros((90, 160))
    heat[22:28, 22:28] = 1.0
    panel = draw_ball(black, heat, wrong, truth, ORIGINAL, width=320)
    assert (panel == np.array(WRONG)).all(-1).any()
    assert not (panel == np.array(FOUND)).all(-1).any()
    red, _, blue = panel[:, 320:].reshape(-1, 3).astype(int).T
    assert ((red > 100) & (blue == 0)).any()


def test_a_frame_that_nobody_has_looked_at_is_not_called_empty(monkeypatch) -> None:
    said: list[str] = []
    sheet = BallVisualiser(max_frames=4)
    monkeypatch.setattr(sheet._shots, "add", lambda _, caption: said.append(caption))
    nothing = np.array([np.nan, np.nan, 0.0])
    for truth in (0.0, -1.0):
        frame = np.zeros((36, 64, 3), np.uint8)
        sheet.add_frame(frame, None, nothing, np.array([np.nan, np.nan, truth]), (36, 64), "f")
    assert said == ["f   |   no ball", "f   |   not annotated"]


def test_the_sheet_says_how_far_off() -> None:
    sheet = BallVisualiser(max_frames=1)
    with pytest.raises(ValueError, match="no frames"):
        sheet.picture()
    ball = np.array([10.0, 10.0, 1.0])
    assert sheet.wanted()
    sheet.add_frame(np.zeros((36, 64, 3), np.uint8), None, ball, ball, (36, 64), "clip frame 0")
    assert len(sheet) == 1 and sheet.picture().shape[2] == 3
