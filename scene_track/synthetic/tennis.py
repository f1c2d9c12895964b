"""A synthetic tennis dataset: drawn into a TrackNet folder on first use, read like a real one.

``python -m scene_track.synthetic.tennis root=data/synthetic_tennis`` draws the default dataset.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scene_track.ball.tracknet import TrackNetFolder
from scene_track.data.visibility import Visibility
from scene_track.synthetic.folder import SPLITS, DrawnDataset, draw_by_hand

if TYPE_CHECKING:
    from scene_track.synthetic.tennis_court import Camera, Movement

_HEADER = "file name,visibility,x-coordinate,y-coordinate,status\n"
_FLYING, _HIT, _BOUNCE = 0, 1, 2  # TrackNet's status
_INSTANTS = 13  # of an exposure; odd, so that there is a middle


@dataclass(frozen=True, kw_only=True)
class SyntheticTennis(DrawnDataset):
    """Rallies on courts seen by a broadcast camera, in TrackNet's folder layout.

    Files: ``<root>/v<version>-<hash>/{train,val,test}/gameN/ClipN/{0000.jpg, Label.csv}`` and
    ``manifest.json``. ``Label.csv`` has TrackNet's columns; x and y are the ball's centre at the
    middle of the exposure, in tenths of a pixel, an integer being the centre of a pixel.
    ``visibility`` is 0 where the ball is outside the image or not in play, 3 where three quarters
    of it are behind a player, the net or a fence post, 2 where half is or where it hardly changes
    the image, else 1. ``status`` is 1 in the frame of a stroke, 2 of a bounce, else 0. A game is a
    court, a camera and two players; the games of the splits are different ones.

    The options are described in ``conf/dataset/synthetic_tennis.yaml``; ``shake=1`` moves the image
    by about 6 pixels of 640.
    """

    VERSION = 2
    class_names = ("ball",)

    seed: Annotated[int, Field(ge=0)]
    train_games: Annotated[int, Field(ge=1, le=10_000)]
    val_games: Annotated[int, Field(ge=1, le=10_000)]
    test_games: Annotated[int, Field(ge=0, le=10_000)]
    clips_per_game: Annotated[int, Field(ge=1, le=1000)]
    frames: Annotated[int, Field(ge=2, le=10_000)]
    width: Annotated[int, Field(ge=64, le=4096, multiple_of=8)]
    height: Annotated[int, Field(ge=64, le=4096, multiple_of=8)]
    frame_rate: Annotated[int, Field(ge=1, le=240)]
    shake: Annotated[float, Field(ge=0, le=1)]

    def __post_init__(self) -> None:
        """1 and 1.0 are one dataset, and must have one hash."""
        object.__setattr__(self, "shake", float(self.shake))

    def videos(self) -> list[tuple[str, int]]:
        """See :meth:`DrawnDataset.videos`."""
        games = (self.train_games, self.val_games, self.test_games)
        return [
            (split, number)
            for split, count in zip(SPLITS, games, strict=True)
            for number in range(count * self.clips_per_game)
        ]

    def place(self, split: str, number: int) -> str:
        """See :meth:`DrawnDataset.place`."""
        game, clip = divmod(number, self.clips_per_game)
        return f"{split}/game{game + 1}/Clip{clip + 1}"

    def reader(self) -> TrackNetFolder:
        """See :meth:`DrawnDataset.reader`."""
        return TrackNetFolder(
            root=self.folder, class_name=self.class_names[0], frame_rate=self.frame_rate
        )

    def draw(self, folder: Path, split: str, number: int) -> None:
        """See :meth:`DrawnDataset.draw`."""
        # Imported here: listing and reading a dataset must not wait for the painter.
        from scene_track.synthetic.tennis_court import Camera, paint_court
        from scene_track.synthetic.tennis_drawing import Outfit, Stage, draw_grain
        from scene_track.synthetic.tennis_rally import play, run

        game, clip = divmod(number, self.clips_per_game)
        rng = np.random.default_rng((self.seed, SPLITS.index(split), game))
        camera = Camera.broadcast(rng, self.width, self.height)
        court = paint_court(rng, camera)
        outfits = (Outfit.draw(rng), Outfit.draw(rng))

        rng = np.random.default_rng((self.seed, SPLITS.index(split), game, clip))
        exposure = rng.uniform(0.25, 0.6)  # of the frame interval
        quality = int(rng.integers(75, 92))
        times = np.arange(self.frames) / self.frame_rate
        offsets = np.linspace(-0.5, 0.5, _INSTANTS) * exposure / self.frame_rate
        rally = play(rng, float(times[-1]) + 0.1)
        trail = rally.ball((times[:, None] + offsets).ravel()).reshape(self.frames, _INSTANTS, 3)
        players = (run(rng, rally, -1, times), run(rng, rally, 1, times))
        movements = shake(rng, camera, trail[:, _INSTANTS // 2], self.shake)
        stage = Stage(court, players, outfits, draw_grain(rng, camera))

        target = folder / self.place(split, number)
        target.mkdir(parents=True)
        rows = [_HEADER]
        status = self._status([stroke.time for stroke in rally.strokes], rally.bounces)
        for frame, movement in enumerate(movements):
            image, seen = stage.frame(rng, frame, movement, trail[frame])
            name = f"{frame:04d}.jpg"
            image.save(target / name, quality=quality)
            if seen.visibility is Visibility.ABSENT:
                rows.append(f"{name},0,,,{_FLYING}\n")
            else:
                x, y = tenths(seen.position[0], self.width), tenths(seen.position[1], self.height)
                rows.append(f"{name},{int(seen.visibility)},{x},{y},{status[frame]}\n")
        (target / "Label.csv").write_text("".join(rows))

    def _status(self, hits: Sequence[float], bounces: Sequence[float]) -> NDArray[np.int64]:
        """``[F]`` TrackNet's status: a stroke or bounce belongs to the nearest frame."""
        status = np.full(self.frames, _FLYING)
        for value, times in ((_BOUNCE, bounces), (_HIT, hits)):
            frames = np.rint(np.array(times) * self.frame_rate).astype(int)
            status[frames[(frames >= 0) & (frames < self.frames)]] = value
        return status


def tenths(value: float, length: int) -> str:
    """Text of a coordinate, rounded to tenths of a pixel but not out of the image.

    Args:
        value: pixels, -0.5 to ``length`` - 0.5 (excluded).
        length: of the image along this axis, pixels.
    """
    return f"{min(float(f'{value:.1f}'), length - 0.6):.1f}"


def shake(
    rng: np.random.Generator, camera: Camera, ball: NDArray[np.float64], strength: float
) -> list[Movement]:
    """Movements of the camera: it follows the ball a little, trembles, turns and zooms.

    Args:
        rng: source of every draw.
        camera: at rest.
        ball: ``[F, 3]`` metres; NaN where there is none.
        strength: 0 = a tripod.

    Returns:
        F movements.
    """
    from scene_track.synthetic.tennis_court import Movement

    count, unit = len(ball), strength * camera.width / 640
    drift = np.zeros((count, 2))
    tremble = rng.normal(0, 1.2, (count, 2)) * unit
    steps = rng.normal(0, 1.2, (count, 2))
    follow = np.where(np.isnan(ball[:, 0]), 0.0, -1.2 * ball[:, 0])
    goal = np.zeros(2)
    for frame in range(count):
        goal = 0.92 * goal + steps[frame]
        before = drift[frame - 1] if frame else np.array((follow[0], 0.0))
        drift[frame] = before + 0.12 * (goal + (follow[frame], 0.0) - before)
    turn = 0.003 * strength * np.cumsum(rng.normal(0, 0.25, count))
    zoom = 1 + 0.02 * strength * np.sin(np.arange(count) * rng.uniform(0.01, 0.05))
    centre = np.array((camera.width, camera.height)) / 2
    limit = 0.04 * camera.width
    movements = []
    for frame in range(count):
        cos, sin = np.cos(turn[frame]), np.sin(turn[frame])
        linear = zoom[frame] * np.array(((cos, -sin), (sin, cos)))
        move = (tremble[frame] + drift[frame] * unit * 2).clip(-limit, limit)
        movements.append(Movement(linear, centre, move))
    return movements


if __name__ == "__main__":
    draw_by_hand("synthetic_tennis", sys.argv[1:])
