"""A synthetic tennis set: written to disk as a TrackNet folder on first use, read like a real one.

``python -m scene_track.synthetic.tennis root=data/synthetic_tennis`` writes the default set.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scene_track.ball.tracknet import TrackNetFolder
from scene_track.data.video import OnError, Video
from scene_track.data.visibility import Visibility
from scene_track.synthetic.folder import SPLITS, DrawnFolder, Job, by_hand, work

if TYPE_CHECKING:
    from scene_track.synthetic.tennis_court import Camera, Movement

VERSION = 2  # increase whenever the pictures or the ground truth of the same parameters change

_MODULE = "scene_track.synthetic.tennis"  # __name__ is "__main__" when run as a script
_HEADER = "file name,visibility,x-coordinate,y-coordinate,status\n"
_FLYING, _HIT, _BOUNCE = 0, 1, 2  # TrackNet's status
_INSTANTS = 13  # of an exposure; odd, so that there is a middle


@dataclass(frozen=True)
class _Spec:
    """Everything that the pictures depend on."""

    version: int
    seed: int
    train_games: int
    val_games: int
    test_games: int
    clips_per_game: int
    frames: int
    width: int
    height: int
    frame_rate: int
    shake: float

    def jobs(self) -> list[Job]:
        """(split, number) of every clip."""
        games = (self.train_games, self.val_games, self.test_games)
        return [
            (split, number)
            for split, count in zip(SPLITS, games, strict=True)
            for number in range(count * self.clips_per_game)
        ]

    def place(self, job: Job) -> str:
        """Path of a clip in the data set's folder."""
        game, clip = divmod(job[1], self.clips_per_game)
        return f"{job[0]}/game{game + 1}/Clip{clip + 1}"


class SyntheticTennis:
    """Rallies on courts seen by a broadcast camera, in TrackNet's folder layout.

    Files: ``<root>/v<version>-<fingerprint>/{train,val,test}/gameN/ClipN/{0000.jpg, Label.csv}``
    and ``manifest.json``. ``Label.csv`` has TrackNet's columns; x and y are the ball's centre at
    the middle of the exposure, in tenths of a pixel, an integer being the centre of a pixel.
    ``visibility`` is 0 where the ball is outside the picture or nobody has one, 3 where three
    quarters of it are behind a player, the net or a fence post, 2 where half is or where it hardly
    changes the picture, else 1. ``status`` is 1 in the frame of a stroke, 2 of a bounce, else 0. A
    game is a court, a camera and two players; the games of the splits are different ones.
    """

    class_names = ("ball",)

    def __init__(
        self,
        *,
        root: str,
        seed: Annotated[int, Field(ge=0)] = 0,
        train_games: Annotated[int, Field(ge=1, le=10_000)] = 20,
        val_games: Annotated[int, Field(ge=1, le=10_000)] = 4,
        test_games: Annotated[int, Field(ge=0, le=10_000)] = 1,
        clips_per_game: Annotated[int, Field(ge=1, le=1000)] = 2,
        frames: Annotated[int, Field(ge=2, le=10_000)] = 60,
        width: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 640,
        height: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 360,
        frame_rate: Annotated[int, Field(ge=1, le=240)] = 30,
        shake: Annotated[float, Field(ge=0, le=1)] = 0.5,
        workers: Annotated[int, Field(ge=1, le=256)] | None = None,
    ) -> None:
        """Describes the data set; nothing is written before :meth:`prepare`.

        Args:
            root: folder that holds the data set's own folder.
            seed: other seed, other pictures.
            train_games: games of the training split.
            val_games: games of the validation split.
            test_games: games of the test split.
            clips_per_game: clips of each game.
            frames: frames per clip.
            width: picture width in pixels.
            height: picture height in pixels.
            frame_rate: frames per second; movement per frame shrinks when it grows.
            shake: camera shake, 0 = a tripod, 1 = about 6 pixels of 640.
            workers: processes that draw; None = one per core that this process may use.
        """
        self.root = Path(root)
        self.workers = workers
        self.frame_rate = frame_rate
        self.spec = _Spec(
            version=VERSION,
            seed=seed,
            train_games=train_games,
            val_games=val_games,
            test_games=test_games,
            clips_per_game=clips_per_game,
            frames=frames,
            width=width,
            height=height,
            frame_rate=frame_rate,
            shake=float(shake),
        )

    @property
    def drawn(self) -> DrawnFolder:
        """Where and how it is drawn."""
        return DrawnFolder(
            root=self.root,
            spec=self.spec,
            videos={job: self.spec.place(job) for job in self.spec.jobs()},
            module=_MODULE,
            what="synthetic tennis clips",
            workers=self.workers,
        )

    @property
    def folder(self) -> Path:
        """The TrackNet folder of exactly these parameters."""
        return self.drawn.folder

    def prepare(self) -> Path:
        """Writes the data set unless it is there; safe to call from several processes at once.

        Returns:
            The folder of the splits.

        Raises:
            RuntimeError: if drawing failed; what the drawing process printed is part of the
                message.
        """
        return self.drawn.prepare()

    def sequences(
        self,
        split: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        cache_dir: Path | None = None,
    ) -> list[Video]:
        """The clips of a split, read by :class:`scene_track.ball.tracknet.TrackNetFolder`.

        Raises:
            FileNotFoundError: if :meth:`prepare` has not been called, or the split is unknown.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: not drawn yet, call prepare() first")
        reader = TrackNetFolder(
            root=self.folder, class_name=self.class_names[0], frame_rate=self.frame_rate
        )
        return reader.sequences(split, on_error=on_error, cache_dir=cache_dir)


def write_clip(spec: _Spec, folder: Path, split: str, number: int) -> None:
    """Draws one clip into ``folder/split/gameN/ClipN``."""
    # Here, not above: listing and reading a data set must not wait for the painter.
    from scene_track.synthetic.tennis_court import Camera, paint_court
    from scene_track.synthetic.tennis_drawing import Outfit, Stage, draw_grain
    from scene_track.synthetic.tennis_rally import play, run

    game, clip = divmod(number, spec.clips_per_game)
    rng = np.random.default_rng((spec.seed, SPLITS.index(split), game))
    camera = Camera.broadcast(rng, spec.width, spec.height)
    court = paint_court(rng, camera)
    outfits = (Outfit.draw(rng), Outfit.draw(rng))

    rng = np.random.default_rng((spec.seed, SPLITS.index(split), game, clip))
    exposure = rng.uniform(0.25, 0.6)  # of the frame interval
    quality = int(rng.integers(75, 92))
    times = np.arange(spec.frames) / spec.frame_rate
    offsets = np.linspace(-0.5, 0.5, _INSTANTS) * exposure / spec.frame_rate
    rally = play(rng, float(times[-1]) + 0.1)
    trail = rally.ball((times[:, None] + offsets).ravel()).reshape(spec.frames, _INSTANTS, 3)
    players = (run(rng, rally, -1, times), run(rng, rally, 1, times))
    movements = shake(rng, camera, trail[:, _INSTANTS // 2], spec.shake)
    stage = Stage(court, players, outfits, draw_grain(rng, camera))

    target = folder / spec.place((split, number))
    target.mkdir(parents=True)
    rows = [_HEADER]
    status = _status(spec, [s.time for s in rally.strokes], rally.bounces)
    for frame, movement in enumerate(movements):
        image, seen = stage.frame(rng, frame, movement, trail[frame])
        name = f"{frame:04d}.jpg"
        image.save(target / name, quality=quality)
        if seen.visibility is Visibility.ABSENT:
            rows.append(f"{name},0,,,{_FLYING}\n")
        else:
            x, y = tenths(seen.position[0], spec.width), tenths(seen.position[1], spec.height)
            rows.append(f"{name},{int(seen.visibility)},{x},{y},{status[frame]}\n")
    (target / "Label.csv").write_text("".join(rows))


def tenths(value: float, length: int) -> str:
    """A coordinate as it is written: rounded to tenths of a pixel, but not out of the picture.

    Args:
        value: pixels, -0.5 to ``length`` - 0.5 (excluded).
        length: of the picture along this axis, pixels.
    """
    return f"{min(float(f'{value:.1f}'), length - 0.6):.1f}"


def shake(
    rng: np.random.Generator, camera: Camera, ball: NDArray[np.float64], strength: float
) -> list[Movement]:
    """How the camera moves: it follows the ball a little, trembles, turns and zooms.

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


def _status(spec: _Spec, hits: list[float], bounces: list[float]) -> NDArray[np.int64]:
    """``[F]`` TrackNet's status of every frame: of the frame nearest to a stroke or bounce."""
    status = np.full(spec.frames, _FLYING)
    for value, times in ((_BOUNCE, bounces), (_HIT, hits)):
        frames = np.rint(np.array(times) * spec.frame_rate).astype(int)
        status[frames[(frames >= 0) & (frames < spec.frames)]] = value
    return status


def _write(spec: dict[str, Any], folder: Path, split: str, number: int) -> None:
    write_clip(_Spec(**spec), folder, split, number)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work(_write)
    else:
        by_hand(
            sys.argv[1:], lambda root: SyntheticTennis(root=root).prepare(), "data/synthetic_tennis"
        )
