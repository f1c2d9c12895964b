"""Draws frames of a rally on a court: players, the ball with its motion blur, shadows, the net.

The visibility of the ball is measured: the drawing knows which part of the ball is hidden by what
lies in front of it, and how much the image changes where the ball is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scene_track.data.visibility import Visibility
from scene_track.synthetic.drawing import Array, Colour, hsv, to_image
from scene_track.synthetic.tennis_court import BALL_RADIUS, Camera, Court, Movement
from scene_track.synthetic.tennis_rally import Player

Point = tuple[float, float]

_FINE = 3  # painting size over image size, of players
_PATCH = (2.6, 3.0)  # width and height in metres of the layer of a player
_HIDDEN, _HALF_HIDDEN = 0.75, 0.45  # part of the ball behind something: occluded, hard
_FAINT = 95.0  # levels of 255 by which a ball must change the image to be easy to see


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
        """White in two of five cases, as on court."""

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
    """The ball in one image: ``position [2]`` in pixels (an integer = a pixel's centre) or NaN."""

    position: Array
    visibility: Visibility


_ABSENT = Seen(np.full(2, np.nan), Visibility.ABSENT)


@dataclass(frozen=True)
class _Layer:
    """An RGBA image to paste on the frame; ``depth`` is in metres."""

    depth: float
    image: Image.Image
    corner: tuple[int, int]


@dataclass
class Stage:
    """The court, players and noise of one clip; the noise tile is larger than an image."""

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
            The image, and where the ball is at the middle of the exposure.
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
        layers.sort(key=lambda layer: -layer.depth)
        seen, behind, front = _ABSENT, layers, []
        ball = None if np.isnan(trail).any() else _Ball.of(camera, movement, trail)
        if ball is not None:
            behind = [layer for layer in layers if layer.depth >= ball.depth]
            front = layers[len(behind) :]
        _paste(image, behind)
        if ball is not None:
            seen = self._paint_ball(image, movement, ball, front)
        _paste(image, front)
        return self._develop(rng, image), seen

    def _paint_ball(
        self, image: Image.Image, movement: Movement, ball: _Ball, front: list[_Layer]
    ) -> Seen:
        """Paints the ball behind the net; ``front`` is pasted over it later."""
        left, top = np.floor(ball.centre).astype(int)
        if not (0 <= left < image.width and 0 <= top < image.height):
            return _ABSENT
        patch = ball.paint(image.size)
        if patch is None:
            return _ABSENT
        box, coverage = patch
        _shadow(image, ball, self.court.light)
        under = np.asarray(image.crop(box), dtype=np.float64)
        free = coverage
        if ball.beyond_net:
            net = movement.cut(self.court.net, self.court.margin, box)
            free = free * (1 - np.asarray(net, dtype=np.float64)[..., 3] / 255)
        colour = np.array(self.court.ball, dtype=np.float64)
        over = under + free[..., None] * (colour * ball.shade - under)
        image.paste(to_image(over + 0.5), box[:2])
        for layer in front:
            x, y = layer.corner
            cut = layer.image.crop((box[0] - x, box[1] - y, box[2] - x, box[3] - y))
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
        """In some frames the flash of a spectator's camera, as small and bright as a ball."""
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
        return to_image(pixels)


def _paste(image: Image.Image, layers: list[_Layer]) -> None:
    for layer in layers:
        image.paste(layer.image, layer.corner, layer.image)


def draw_grain(rng: np.random.Generator, camera: Camera) -> NDArray[np.int16]:
    """A noise tile from which frames cut their own."""
    shape = (camera.height + 64, camera.width + 64, 3)
    return np.rint(rng.normal(0, rng.uniform(1.5, 4.0), shape)).astype(np.int16)


@dataclass(frozen=True)
class _Ball:
    """The ball during one exposure.

    Attributes:
        path: ``[K, 2]`` image pixels.
        shadow: ``[2]`` image pixels of its shadow on the ground.
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
        """``[2]`` image pixels at the middle of the exposure."""
        return self.path[len(self.path) // 2]

    def paint(self, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], Array] | None:
        """Box in the image and ``[h, w]`` coverage 0-1, averaged over the exposure.

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
    """The shadow under a player."""
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
    """The layer of one player."""
    x, z = player.place[index]
    feet = np.array((x, 0.0, z))
    unit = camera.focal / float(camera.depth(feet)) * movement.scale  # pixels per metre
    foot = movement(camera.project(feet))
    width, height = (int(np.ceil(side * unit)) + 2 for side in _PATCH)
    corner = np.floor(foot - (width / 2, height * 0.9)).astype(int)
    canvas = Image.new("RGBA", (width * _FINE, height * _FINE), (*outfit.shirt, 0))
    pen = _Pen(ImageDraw.Draw(canvas), (foot - corner) * _FINE, unit * _FINE)
    _paint_player(pen, player, outfit, index)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return _Layer(float(camera.depth(feet)), small, (int(corner[0]), int(corner[1])))


@dataclass(frozen=True)
class _Pen:
    """Paints in metres around a player's feet, y upwards; ``unit`` is pixels per metre."""

    draw: ImageDraw.ImageDraw
    origin: Array
    unit: float

    def at(self, point: Point) -> Point:
        """Pixels of a point in metres."""
        x, y = point
        return float(self.origin[0] + x * self.unit), float(self.origin[1] - y * self.unit)

    def disc(self, point: Point, radius: float, **style: Any) -> None:
        x, y = self.at(point)
        r = radius * self.unit
        self.draw.ellipse((x - r, y - r, x + r, y + r), **style)

    def limb(self, start: Point, end: Point, radius: float, colour: Colour) -> None:
        """A capsule."""
        width = max(1, round(2 * radius * self.unit))
        self.draw.line((self.at(start), self.at(end)), fill=(*colour, 255), width=width)
        for point in (start, end):
            self.disc(point, radius, fill=(*colour, 255))


def _paint_player(pen: _Pen, player: Player, outfit: Outfit, index: int) -> None:
    """A body of capsules, facing the net."""
    step = np.sin(player.stride[index])
    reach = float(player.reach[index])
    phase = player.swing[index]
    crouch = 0.08 if np.isnan(phase) else 0.04
    hip, chest = 0.92 - crouch, 1.42 - crouch
    for leg in (-1, 1):
        foot = (leg * (0.2 + 0.16 * abs(step)), 0.06 + 0.14 * max(0.0, leg * step))
        knee = (leg * 0.19 + 0.06 * step, 0.5)
        pen.limb((leg * 0.11, hip), knee, 0.085, outfit.shorts)
        pen.limb(knee, foot, 0.06, outfit.skin)
        pen.limb(foot, (foot[0] + 0.05 * leg, foot[1]), 0.06, outfit.shoes)
    pen.limb((0.0, hip), (0.0, chest - 0.1), 0.17, outfit.shirt)
    pen.limb((-0.14, chest - 0.08), (0.14, chest - 0.08), 0.1, outfit.shirt)
    pen.limb((0.0, hip - 0.04), (0.0, hip), 0.16, outfit.shorts)
    # Arm and racket turn from behind the body, over contact at hand height, to the other shoulder.
    turn = -0.35 if np.isnan(phase) else -1.3 + 2.2 * (phase + 1) / 2
    cos, sin = np.cos(turn), np.sin(turn)
    elbow = (reach * (0.32 + 0.05 * cos), chest - 0.28 + 0.2 * max(0.0, turn))
    hand = (elbow[0] + reach * 0.24 * cos, elbow[1] + 0.24 * sin)
    pen.limb((reach * 0.2, chest - 0.06), elbow, 0.055, outfit.skin)
    pen.limb(elbow, hand, 0.045, outfit.skin)
    pen.limb((-reach * 0.2, chest - 0.06), (-reach * 0.36, chest - 0.36), 0.05, outfit.skin)
    throat = (hand[0] + reach * 0.3 * cos, hand[1] + 0.3 * sin)
    pen.limb(hand, throat, 0.018, outfit.racket)
    centre = (throat[0] + reach * 0.16 * cos, throat[1] + 0.16 * sin)
    frame = max(1, int(0.03 * pen.unit))
    pen.disc(centre, 0.15, outline=(*outfit.racket, 255), width=frame)
    pen.disc(centre, 0.15 * 0.8, fill=(225, 225, 215, 70))
    face = outfit.skin if player.side > 0 else outfit.hair
    pen.limb((0.0, chest + 0.1), (0.0, chest + 0.2), 0.11, face)
    pen.limb((0.0, chest + 0.24), (0.0, chest + 0.26), 0.105, outfit.hair)
