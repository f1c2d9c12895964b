"""Draws frames of a rally on a court: players, the ball with its motion blur, shadows, the net.

Special here: how well the ball can be seen is measured, not guessed: the drawing knows which part
of the ball is hidden by what lies in front of it, and how much the picture changes where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scene_track.data.visibility import Visibility
from scene_track.synthetic.tennis_court import BALL_RADIUS, Camera, Colour, Court, Movement, hsv
from scene_track.synthetic.tennis_rally import Array, Player

_FINE = 3  # painting size over picture size, of players
_PATCH = (2.6, 3.0)  # width and height in metres of what is painted of a player
_INSTANTS = 12  # of an exposure, at which the ball is painted
_HIDDEN, _HALF_HIDDEN = 0.75, 0.45  # part of the ball behind something: occluded, hard
_FAINT = 95.0  # levels of 255 by which a ball must change the picture to be easy to see


@dataclass(frozen=True)
class Outfit:
    """Looks of one player."""

    skin: Colour
    shirt: Colour
    shorts: Colour
    shoes: Colour
    hair: Colour
    racket: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Outfit:
        """White as often as not, as on court."""

        def cloth() -> Colour:
            if rng.random() < 0.4:
                return (236, 236, 234)
            return hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))

        return cls(
            skin=hsv(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.6), rng.uniform(0.45, 0.9)),
            shirt=cloth(),
            shorts=cloth(),
            shoes=(232, 232, 230),
            hair=hsv(0.08, rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.6)),
            racket=hsv(rng.random(), 0.5, rng.uniform(0.2, 0.8)),
        )


@dataclass(frozen=True)
class Seen:
    """The ball in one picture.

    Attributes:
        position: ``[2]`` pixels, an integer is the centre of a pixel; NaN when absent.
        visibility: as labelled.
    """

    position: Array
    visibility: Visibility


@dataclass(frozen=True)
class _Layer:
    """Something painted on the frame, farthest first."""

    depth: float
    image: Image.Image
    corner: tuple[int, int]


@dataclass
class Stage:
    """What one clip is drawn with.

    Attributes:
        court: of the game.
        players: both.
        outfits: of both.
        grain: noise tile, larger than a picture.
    """

    court: Court
    players: tuple[Player, Player]
    outfits: tuple[Outfit, Outfit]
    grain: NDArray[np.int16]

    def frame(
        self, rng: np.random.Generator, index: int, movement: Movement, trail: Array
    ) -> tuple[Image.Image, Seen]:
        """One frame.

        Args:
            rng: of noise and flashes.
            index: instant of the players.
            movement: of the camera.
            trail: ``[K, 3]`` the ball at K instants of the exposure, metres; NaN = absent.

        Returns:
            The picture, and where the ball is at the middle of the exposure.
        """
        court, camera = self.court, self.court.camera
        box = (0, 0, camera.width, camera.height)
        image = movement.cut(court.ground, court.margin, box)
        self._flash(rng, image, movement)
        layers = [
            _player_layer(camera, movement, player, outfit, index)
            for player, outfit in zip(self.players, self.outfits, strict=True)
        ]
        for player in self.players:
            _shade_ground(image, camera, movement, player.place[index], court.light)
        layers += _post_layer(court, movement)
        seen = Seen(np.full(2, np.nan), Visibility.ABSENT)
        layers.sort(key=lambda layer: -layer.depth)
        ball = None if np.isnan(trail).any() else _Ball.of(camera, movement, trail)
        waiting = ball is not None
        for layer in [*layers, None]:
            if waiting and ball is not None and (layer is None or layer.depth < ball.depth):
                front = [other for other in layers if other.depth < ball.depth]
                seen = self._paint_ball(image, movement, ball, front)
                waiting = False
            if layer is not None:
                image.paste(layer.image, layer.corner, layer.image)
        return self._develop(rng, image), seen

    def _paint_ball(
        self, image: Image.Image, movement: Movement, ball: _Ball, front: list[_Layer]
    ) -> Seen:
        """Puts the ball on the frame; what lies in front of it is painted later, or is the net."""
        absent = Seen(np.full(2, np.nan), Visibility.ABSENT)
        left, top = np.floor(ball.centre).astype(int)
        if not (0 <= left < image.width and 0 <= top < image.height):
            return absent
        patch = ball.paint(image.size)
        if patch is None:
            return absent
        box, coverage = patch
        _shadow(image, ball, self.court.light)
        under = np.asarray(image.crop(box), dtype=np.float64)
        free = coverage
        if ball.beyond_net:
            net = movement.cut(self.court.net, self.court.margin, box)
            free = free * (1 - np.asarray(net, dtype=np.float64)[..., 3] / 255)
        colour = np.array(self.court.ball, dtype=np.float64)
        over = under + free[..., None] * (colour * ball.shade - under)
        image.paste(Image.fromarray((over + 0.5).clip(0, 255).astype(np.uint8)), box[:2])
        for layer in front:
            cut = layer.image.crop(
                (
                    box[0] - layer.corner[0],
                    box[1] - layer.corner[1],
                    box[2] - layer.corner[0],
                    box[3] - layer.corner[1],
                )
            )
            free = free * (1 - np.asarray(cut, dtype=np.float64)[..., 3] / 255)
        hidden = 1 - free.sum() / max(coverage.sum(), 1e-9)
        change = float((free * np.abs(colour * ball.shade - under).max(axis=-1)).max())
        if hidden > _HIDDEN:
            visibility = Visibility.OCCLUDED
        elif hidden > _HALF_HIDDEN or change < _FAINT:
            visibility = Visibility.HARD
        else:
            visibility = Visibility.VISIBLE
        return Seen(ball.centre - 0.5, visibility)

    def _flash(self, rng: np.random.Generator, image: Image.Image, movement: Movement) -> None:
        """Now and then a spectator's camera, as small and bright as a ball."""
        if rng.random() < 0.12:
            x, y = movement(self.court.flashes[rng.integers(len(self.court.flashes))])
            r = rng.uniform(0.8, 2.0)
            ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=(250, 250, 235))

    def _develop(self, rng: np.random.Generator, image: Image.Image) -> Image.Image:
        """Light that flickers, and the noise of the sensor."""
        top, left = (int(v) for v in rng.integers(0, 64, 2))
        noise = self.grain[top : top + image.height, left : left + image.width]
        light = np.int16(round(rng.normal(0, 1.5)))
        pixels = np.asarray(image).astype(np.int16)
        pixels += noise + light
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_grain(rng: np.random.Generator, camera: Camera) -> NDArray[np.int16]:
    """A noise tile from which frames cut their own."""
    shape = (camera.height + 64, camera.width + 64, 3)
    return np.rint(rng.normal(0, rng.uniform(1.5, 4.0), shape)).astype(np.int16)


@dataclass(frozen=True)
class _Ball:
    """The ball during one exposure.

    Attributes:
        path: ``[K, 2]`` picture pixels.
        shadow: ``[2]`` picture pixels of its shadow on the ground.
        radius: pixels.
        depth: metres ahead of the camera.
        beyond_net: whether the net is in front of it.
        shade: factor of its colour.
    """

    path: Array
    shadow: Array
    radius: float
    depth: float
    beyond_net: bool
    shade: float

    @classmethod
    def of(cls, camera: Camera, movement: Movement, trail: Array) -> _Ball:
        middle = trail[len(trail) // 2]
        depth = float(camera.depth(middle))
        ground = camera.project(middle * (1, 0, 1))
        return cls(
            path=movement(camera.project(trail)),
            shadow=movement(ground),
            radius=camera.focal * BALL_RADIUS / depth * movement.scale,
            depth=depth,
            beyond_net=bool(middle[2] > 0),
            shade=0.9 if middle[1] > 0.3 else 0.82,
        )

    @property
    def centre(self) -> Array:
        """``[2]`` picture pixels at the middle of the exposure."""
        return self.path[len(self.path) // 2]

    def paint(self, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], Array] | None:
        """Box of the picture and ``[h, w]`` coverage 0-1, averaged over the exposure.

        Anti-aliased: a pixel is covered by how far its centre is inside the disc.
        """
        reach = self.radius + 1.5
        low = np.floor(self.path.min(axis=0) - reach).astype(int).clip(0)
        high = np.ceil(self.path.max(axis=0) + reach).astype(int).clip(max=size)
        if (high <= low).any():
            return None
        x = np.arange(low[0], high[0]) + 0.5
        y = np.arange(low[1], high[1]) + 0.5
        dx = x[None, None, :] - self.path[:, 0, None, None]
        dy = y[None, :, None] - self.path[:, 1, None, None]
        coverage = (self.radius + 0.5 - np.sqrt(dx * dx + dy * dy)).clip(0, 1).mean(axis=0)
        return (int(low[0]), int(low[1]), int(high[0]), int(high[1])), coverage


def _shadow(image: Image.Image, ball: _Ball, light: float) -> None:
    r = ball.radius
    x, y = ball.shadow + (0.4 * r, 0.0)
    _darken(image, (x - r, y - 0.45 * r, x + r, y + 0.45 * r), 0.5 + 0.5 * light)


def _shade_ground(
    image: Image.Image, camera: Camera, movement: Movement, place: Array, light: float
) -> None:
    """The shade under a player."""
    feet = np.array((place[0], 0.0, place[1]))
    x, y = movement(camera.project(feet))
    unit = camera.focal / float(camera.depth(feet))
    _darken(image, (x - 0.45 * unit, y - 0.12 * unit, x + 0.6 * unit, y + 0.14 * unit), light)


def _darken(image: Image.Image, ellipse: tuple[float, float, float, float], factor: float) -> None:
    left, top = int(ellipse[0]) - 1, int(ellipse[1]) - 1
    right, bottom = int(ellipse[2]) + 2, int(ellipse[3]) + 2
    if right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
        return
    mask = Image.new("L", (2 * (right - left), 2 * (bottom - top)), 0)
    moved = [2 * (v - o) for v, o in zip(ellipse, (left, top, left, top), strict=True)]
    ImageDraw.Draw(mask).ellipse(moved, fill=round(255 * (1 - factor)))
    mask = mask.resize((right - left, bottom - top), Image.Resampling.BOX)
    image.paste((0, 0, 0), (left, top), mask)


def _post_layer(court: Court, movement: Movement) -> list[_Layer]:
    """The fence post, nearer than everything; none without a fence."""
    if court.post is None:
        return []
    camera, ends = court.camera, movement(court.post_at)
    room = 0.015 * camera.width
    left = max(0, int(ends[:, 0].min() - room))
    right = min(camera.width, int(ends[:, 0].max() + room) + 1)
    cut = movement.cut(court.post, court.margin, (left, 0, right, camera.height))
    return [_Layer(0.0, cut, (left, 0))]


def _player_layer(
    camera: Camera, movement: Movement, player: Player, outfit: Outfit, index: int
) -> _Layer:
    """A player as a small picture, to be put on the frame."""
    x, z = player.place[index]
    feet = np.array((x, 0.0, z))
    unit = camera.focal / float(camera.depth(feet)) * movement.scale  # pixels per metre
    foot = movement(camera.project(feet))
    width, height = (int(np.ceil(side * unit)) + 2 for side in _PATCH)
    corner = np.floor(foot - (width / 2, height * 0.9)).astype(int)
    canvas = Image.new("RGBA", (width * _FINE, height * _FINE), (*outfit.shirt, 0))
    origin = (foot - corner) * _FINE
    _paint_player(ImageDraw.Draw(canvas), origin, unit * _FINE, player, outfit, index)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return _Layer(float(camera.depth(feet)), small, (int(corner[0]), int(corner[1])))


def _paint_player(
    draw: ImageDraw.ImageDraw,
    origin: Array,
    unit: float,
    player: Player,
    outfit: Outfit,
    index: int,
) -> None:
    """A body of capsules, facing the net; ``unit`` pixels per metre, up is negative."""

    def at(x: float, y: float) -> tuple[float, float]:
        return float(origin[0] + x * unit), float(origin[1] - y * unit)

    def limb(
        start: tuple[float, float], end: tuple[float, float], r: float, colour: Colour
    ) -> None:
        a, b = at(*start), at(*end)
        draw.line((a, b), fill=(*colour, 255), width=max(1, round(2 * r * unit)))
        for x, y in (a, b):
            s = r * unit
            draw.ellipse((x - s, y - s, x + s, y + s), fill=(*colour, 255))

    step = np.sin(player.stride[index])
    reach = float(player.reach[index])
    phase = player.swing[index]
    crouch = 0.08 if np.isnan(phase) else 0.04
    hip, chest = 0.92 - crouch, 1.42 - crouch
    for leg in (-1, 1):
        foot = (leg * (0.2 + 0.16 * abs(step)), 0.06 + 0.14 * max(0.0, leg * step))
        knee = (leg * 0.19 + 0.06 * step, 0.5)
        limb((leg * 0.11, hip), knee, 0.085, outfit.shorts)
        limb(knee, foot, 0.06, outfit.skin)
        limb(foot, (foot[0] + 0.05 * leg, foot[1]), 0.06, outfit.shoes)
    limb((0.0, hip), (0.0, chest - 0.1), 0.17, outfit.shirt)
    limb((-0.14, chest - 0.08), (0.14, chest - 0.08), 0.1, outfit.shirt)
    limb((0.0, hip - 0.04), (0.0, hip), 0.16, outfit.shorts)
    # Arm and racket turn from behind the body, over contact at hand height, to the other shoulder.
    turn = -0.35 if np.isnan(phase) else -1.3 + 2.2 * (phase + 1) / 2
    elbow = (reach * (0.32 + 0.05 * np.cos(turn)), chest - 0.28 + 0.2 * max(0.0, turn))
    hand = (elbow[0] + reach * 0.24 * np.cos(turn), elbow[1] + 0.24 * np.sin(turn))
    limb((reach * 0.2, chest - 0.06), elbow, 0.055, outfit.skin)
    limb(elbow, hand, 0.045, outfit.skin)
    limb((-reach * 0.2, chest - 0.06), (-reach * 0.36, chest - 0.36), 0.05, outfit.skin)
    throat = (hand[0] + reach * 0.3 * np.cos(turn), hand[1] + 0.3 * np.sin(turn))
    limb(hand, throat, 0.018, outfit.racket)
    head = (throat[0] + reach * 0.16 * np.cos(turn), throat[1] + 0.16 * np.sin(turn))
    x, y = at(*head)
    s = 0.15 * unit
    draw.ellipse(
        (x - s, y - s, x + s, y + s), outline=(*outfit.racket, 255), width=max(1, int(0.03 * unit))
    )
    draw.ellipse((x - s * 0.8, y - s * 0.8, x + s * 0.8, y + s * 0.8), fill=(225, 225, 215, 70))
    limb(
        (0.0, chest + 0.1),
        (0.0, chest + 0.2),
        0.11,
        outfit.skin if player.side > 0 else outfit.hair,
    )
    limb((0.0, chest + 0.24), (0.0, chest + 0.26), 0.105, outfit.hair)
