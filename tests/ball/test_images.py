"""Images of a ball: rings lie on the ball, whatever the shape of the image."""

from __future__ import annotations

import numpy as np
import pytest

from scene_track.ball.images import FOUND, TRUE, WRONG, BallVisualiser, draw_ball, draw_flight

ORIGINAL = (360, 640)


def centre_of(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """x, y of the middle of what has this colour."""
    rows, columns = np.nonzero((image == np.array(colour)).all(-1))
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


@pytest.mark.parametrize("size", [(180, 320), (192, 320), (180, 400)])
def test_rings_lie_on_the_ball(size: tuple[int, int]) -> None:
    """Also where the model's image is squeezed: each axis has its own scale."""
    ball = np.array([300.0, 310.0, 1.0])
    black = np.zeros((*size, 3), np.uint8)
    panel = draw_ball(black, None, ball, ball, ORIGINAL, width=size[1], around=32)[:, : size[1]]
    (frame,) = draw_flight([(0, black, ball)], ORIGINAL, name="a", every=1)
    for x, y in (centre_of(panel, TRUE), centre_of(frame, FOUND)):
        assert abs(x - 300.5 / 640 * size[1]) < 1.1
        assert abs(y - 310.5 / 360 * size[0]) < 1.1


def test_far_off_is_red_and_heat_is_warm() -> None:
    truth, wrong = np.array([100.0, 100.0, 1.0]), np.array([130.0, 100.0, 1.0])
    black = np.zeros((180, 320, 3), np.uint8)
    heat = np.zeros((90, 160))
    heat[22:28, 22:28] = 1.0
    panel = draw_ball(black, heat, wrong, truth, ORIGINAL, width=320, around=32)
    assert (panel == np.array(WRONG)).all(-1).any()
    assert not (panel == np.array(FOUND)).all(-1).any()
    red, _, blue = panel[:, 320:].reshape(-1, 3).astype(int).T
    assert ((red > 100) & (blue == 0)).any()


def test_the_sheet_says_how_far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sheet = BallVisualiser(max_frames=4, columns=2, panel_width=448, around=32)
    with pytest.raises(ValueError, match="no frames"):
        sheet.picture()
    nothing, ball = np.array([np.nan, np.nan, 0.0]), np.array([10.0, 10.0, 1.0])
    unknown = np.array([np.nan, np.nan, -1.0])
    for predicted, truth in ((nothing, nothing), (nothing, unknown), (ball, ball)):
        assert sheet.wanted()
        sheet.add_frame(np.zeros((36, 64, 3), np.uint8), None, predicted, truth, (36, 64), "f")
    assert len(sheet) == 3 and sheet.picture().shape[2] == 3

    def spy(frames, columns, captions, header):
        said.extend(captions)
        return frames[0]

    monkeypatch.setattr("scene_track.viz.sheet.contact_sheet", spy)
    sheet.picture()
    assert said == ["f   |   no ball", "f   |   not annotated", "f   |   0.0 px"]
