"""A tennis court as a broadcast camera sees it: the background and the net of a rally.

One game has one court, painted once, larger than an image. A frame is a piece of it, moved, turned
and zoomed a little (camera shake and pan). The same movement is applied to everything that is drawn
on top and to the ground truth, so images and labels agree.

Coordinates: court pixels and image pixels are continuous, 0 at the edge of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scene_track.synthetic.drawing import Array, Colour, hsv, to_image
from scene_track.synthetic.tennis_rally import (
    FENCE,
    HALF_LENGTH,
    HALF_WIDTH,
    NET_HEIGHT,
    SERVICE,
    SIDE_FENCE,
    SINGLES,
)

Point3 = tuple[float, float, float]

_FINE = 2  # painting size over image size
_MARGIN = 0.06  # of the width, painted around the image for the camera to move in
BALL_RADIUS = 0.095  # metres; nearly three times the real one, as glare and blur make it on film

_SURFACES: tuple[tuple[Colour, Colour], ...] = (  # court, surround
    ((52, 96, 158), (70, 128, 92)),
    ((58, 104, 172), (40, 74, 128)),
    ((62, 118, 86), (44, 88, 70)),
    ((186, 104, 66), (176, 96, 62)),
    ((108, 148, 76), (96, 136, 70)),
    ((94, 84, 150), (60, 110, 100)),
    ((92, 104, 112), (60, 92, 74)),
)


@dataclass(frozen=True)
class Camera:
    """A fixed pinhole camera behind the near base line.

    Attributes:
        width: image width in pixels.
        height: image height in pixels.
        focal: focal length in pixels.
        position: ``[3]`` metres.
        rotation: ``[3, 3]`` rows right, down, ahead.
    """

    width: int
    height: int
    focal: float
    position: Array
    rotation: Array

    @classmethod
    def broadcast(cls, rng: np.random.Generator, width: int, height: int) -> Camera:
        """High behind the court, on the whole of it; every game a little different."""
        position = np.array(
            (rng.uniform(-1.0, 1.0), rng.uniform(8.0, 10.5), -HALF_LENGTH - rng.uniform(12.0, 15.0))
        )
        ahead = np.array((rng.uniform(-0.4, 0.4), 0.0, rng.uniform(-1.5, 0.5))) - position
        ahead /= np.linalg.norm(ahead)
        right = np.cross((0.0, 1.0, 0.0), ahead)
        right /= np.linalg.norm(right)
        rotation = np.stack((right, np.cross(ahead, right) * -1, ahead))
        # The near base line takes this part of the width.
        near = float((np.array((0, 0, -HALF_LENGTH)) - position) @ ahead)
        focal = width * rng.uniform(0.62, 0.74) * near / (2 * HALF_WIDTH)
        return cls(width, height, focal, position, rotation)

    def depth(self, points: Array) -> Array:
        """``[...]`` metres ahead of the camera of points ``[..., 3]``."""
        return (points - self.position) @ self.rotation[2]

    def project(self, points: Array) -> Array:
        """World points ``[..., 3]`` (metres) to court pixels ``[..., 2]``."""
        seen = (points - self.position) @ self.rotation.T
        flat = seen[..., :2] / np.maximum(seen[..., 2:], 0.5)
        return self.focal * flat + (self.width / 2, self.height / 2)


@dataclass(frozen=True)
class Movement:
    """How a frame lies on the court: image = linear (court - c) + c + move.

    Attributes:
        linear: ``[2, 2]``.
        centre: ``[2]`` court pixels c.
        move: ``[2]`` pixels.
    """

    linear: Array
    centre: Array
    move: Array

    def __call__(self, points: Array) -> Array:
        """Court pixels ``[..., 2]`` to image pixels."""
        return (points - self.centre) @ self.linear.T + self.centre + self.move

    @property
    def scale(self) -> float:
        """Image pixels per court pixel."""
        return float(np.sqrt(np.linalg.det(self.linear)))

    def cut(self, image: Image.Image, margin: int, box: tuple[int, int, int, int]) -> Image.Image:
        """The part of a court-sized image that lies in a box of the frame.

        Args:
            image: court pixels, with ``margin`` more on every side.
            margin: pixels.
            box: left, top, right, bottom in image pixels.
        """
        inverse = np.linalg.inv(self.linear)
        origin = np.array(box[:2], dtype=np.float64)
        offset = inverse @ (origin - self.centre - self.move) + self.centre + margin
        (a, b), (d, e) = inverse
        return image.transform(
            (box[2] - box[0], box[3] - box[1]),
            Image.Transform.AFFINE,
            (a, b, offset[0], d, e, offset[1]),
            resample=Image.Resampling.BILINEAR,
        )


@dataclass(frozen=True)
class Court:
    """The painted court of one game.

    Attributes:
        camera: where it is seen from.
        ground: RGB image of court, walls and stands, with ``margin`` pixels more on every side.
        net: RGBA image of the net alone, of the same size.
        post: RGBA image of a fence post before the camera, of the same size; None = no fence.
        post_at: ``[2, 2]`` court pixels of its upper and lower end.
        margin: pixels.
        flashes: ``[K, 2]`` court pixels in the stands where cameras may flash.
        ball: colour of the balls.
        light: factor of the shade that balls and players throw, 0-1.
    """

    camera: Camera
    ground: Image.Image
    net: Image.Image
    post: Image.Image | None
    post_at: Array
    margin: int
    flashes: Array
    ball: Colour
    light: float


class _Painter:
    """Paints in world coordinates."""

    def __init__(self, camera: Camera, mode: str, background: Colour | tuple[int, ...]) -> None:
        self.camera = camera
        self.margin = round(_MARGIN * camera.width)
        size = (camera.width + 2 * self.margin, camera.height + 2 * self.margin)
        self.size = size
        self.image = Image.new(mode, (size[0] * _FINE, size[1] * _FINE), background)
        self.draw = ImageDraw.Draw(self.image)

    def pixels(self, points: Array) -> list[tuple[float, float]]:
        flat = (self.camera.project(np.asarray(points, dtype=np.float64)) + self.margin) * _FINE
        return [(float(x), float(y)) for x, y in flat]

    def area(self, points: list[Point3], colour: tuple[int, ...]) -> None:
        self.draw.polygon(self.pixels(np.array(points)), fill=colour)

    def wall(
        self, x: tuple[float, float], y: tuple[float, float], z: float, colour: tuple[int, ...]
    ) -> None:
        """An upright rectangle across the court."""
        self.area([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], colour)

    def floor(self, x: tuple[float, float], z: tuple[float, float], colour: Colour) -> None:
        """A rectangle on the ground."""
        self.area([(x[0], 0, z[0]), (x[1], 0, z[0]), (x[1], 0, z[1]), (x[0], 0, z[1])], colour)

    def line(self, start: Point3, end: Point3, colour: tuple[int, ...]) -> None:
        """A line one painting pixel wide."""
        self.draw.line(self.pixels(np.array((start, end))), fill=colour, width=1)

    def ball(self, place: Array, radius: float, colour: Colour) -> None:
        """A ball of ``radius`` metres around a place."""
        ((u, v),) = self.pixels(place[None])
        r = _FINE * self.camera.focal * radius / float(self.camera.depth(place))
        self.draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)

    def finished(self) -> Image.Image:
        return self.image.resize(self.size, Image.Resampling.BOX)


def paint_court(rng: np.random.Generator, camera: Camera) -> Court:
    """The court of one game."""
    court, surround = _SURFACES[rng.integers(len(_SURFACES))]
    court, surround = (_vary(rng, colour) for colour in (court, surround))
    ball = hsv(rng.uniform(0.155, 0.2), rng.uniform(0.5, 0.72), rng.uniform(0.9, 1.0))
    painter = _Painter(camera, "RGB", hsv(rng.random(), 0.15, 0.25))
    flashes = _stands(rng, painter)
    far, near = FENCE, -FENCE - 6
    painter.area(
        [(-14, 0, near), (14, 0, near), (SIDE_FENCE, 0, far), (-SIDE_FENCE, 0, far)], surround
    )
    _walls(rng, painter)
    _lines(rng, painter, court)
    _furniture(rng, painter)
    _lost_balls(rng, painter, ball)
    ground = painter.finished()
    shading = rng.normal(0, 5, (ground.height // 6, ground.width // 6, 1)).repeat(3, 2)
    soft = to_image(shading + 128).resize(ground.size)
    ground = to_image(np.asarray(ground, np.int16) + np.asarray(soft, np.int16) - 128)
    ground = ground.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    net = _paint_net(rng, camera)
    ground.paste(net, (0, 0), net)
    post, post_at = _paint_post(rng, camera, painter.margin)
    light = rng.uniform(0.55, 0.8)
    return Court(camera, ground, net, post, post_at, painter.margin, flashes, ball, light)


def _vary(rng: np.random.Generator, colour: Colour) -> Colour:
    r, g, b = (np.array(colour) * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3)).clip(0, 255)
    return int(r), int(g), int(b)


def _stands(rng: np.random.Generator, painter: _Painter) -> Array:
    """People in rows behind the far wall, and at the sides; returns where they sit."""
    heads = []
    for row in range(13, -1, -1):  # from far to near
        z, y = FENCE + 1 + 0.9 * row, 1.7 + 0.8 * row
        seats = hsv(0.6, 0.1, rng.uniform(0.18, 0.32))
        painter.wall((-24, 24), (y - 1.2, y + 0.1), z + 0.3, seats)
        for x in np.arange(-22, 22, 0.75) + rng.normal(0, 0.08, 59):
            if rng.random() < 0.8:
                heads.append(_spectator(rng, painter, np.array((x, y, z))))
    for side in (-1, 1):
        for row in range(11, -1, -1):
            for z in np.arange(FENCE, -FENCE, -1.0) + rng.normal(0, 0.1, 35):
                place = np.array((side * (SIDE_FENCE + 1.0 + 0.9 * row), 1.2 + 0.6 * row, z))
                if rng.random() < 0.7:
                    heads.append(_spectator(rng, painter, place))
    return painter.camera.project(np.array(heads))


def _spectator(rng: np.random.Generator, painter: _Painter, place: Array) -> Array:
    x, y, z = place
    # Muted, as stands are: dark, and far out of focus.
    shirt = hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.15, 0.5))
    painter.wall((x - 0.24, x + 0.24), (y - 0.4, y + 0.3), z, shirt)
    skin = hsv(rng.uniform(0.05, 0.11), rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.6))
    painter.ball(np.array((x, y + 0.45, z)), 0.14, skin)
    return place


def _walls(rng: np.random.Generator, painter: _Painter) -> None:
    """The wall behind the far player, with adverts whose letters and logos look like balls."""
    colour = hsv(rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.45))
    painter.wall((-SIDE_FENCE - 8, SIDE_FENCE + 8), (0, 1.4), FENCE, colour)
    for x in np.arange(-SIDE_FENCE, SIDE_FENCE, 3.1):
        if rng.random() < 0.2:
            continue
        ink = (235, 235, 230) if rng.random() < 0.6 else hsv(rng.uniform(0.1, 0.2), 0.8, 0.95)
        if rng.random() < 0.4:
            painter.ball(np.array((x + 0.3, 0.75, FENCE)), rng.uniform(0.1, 0.22), ink)
        for letter in range(int(rng.integers(4, 9))):
            left = x + 0.6 + 0.22 * letter
            low, high = 0.5, 0.5 + rng.choice((0.3, 0.45))
            painter.wall((left, left + rng.uniform(0.08, 0.16)), (low, high), FENCE, ink)


def _lines(rng: np.random.Generator, painter: _Painter, court: Colour) -> None:
    sides = (-HALF_WIDTH, HALF_WIDTH)
    painter.floor(sides, (-HALF_LENGTH, HALF_LENGTH), court)
    if rng.random() < 0.3:  # worn stripes
        for z in np.arange(-HALF_LENGTH, HALF_LENGTH, 3.4):
            painter.floor(sides, (z, min(z + 1.7, HALF_LENGTH)), _vary(rng, court))
    white, w = (228, 230, 226), 0.05
    for x in (-HALF_WIDTH, -SINGLES, SINGLES, HALF_WIDTH):
        painter.floor((x - w, x + w), (-HALF_LENGTH, HALF_LENGTH), white)
    painter.floor((-w, w), (-SERVICE, SERVICE), white)
    for side in (-1, 1):
        service, base = side * SERVICE, side * HALF_LENGTH
        painter.floor((-SINGLES, SINGLES), (service - w, service + w), white)
        painter.floor((-HALF_WIDTH, HALF_WIDTH), (base - 0.07, base + 0.07), white)
        painter.floor((-w, w), (side * (HALF_LENGTH - 0.25), base), white)


def _furniture(rng: np.random.Generator, painter: _Painter) -> None:
    """The umpire's chair, benches, and ball boys who do not move."""
    side = 1 if rng.random() < 0.5 else -1
    x = side * (HALF_WIDTH + 1.6)
    painter.wall((x - 0.45, x + 0.45), (0, 1.5), 0.2, (70, 74, 80))
    painter.wall((x - 0.3, x + 0.3), (1.5, 2.4), 0.2, hsv(rng.random(), 0.5, 0.5))
    for _ in range(int(rng.integers(2, 5))):
        x = (1 if rng.random() < 0.5 else -1) * rng.uniform(HALF_WIDTH + 1.2, SIDE_FENCE - 0.4)
        z = rng.choice((0.3, FENCE - 0.5, -8.0, 8.0))
        painter.wall((x - 0.2, x + 0.2), (0.0, 0.7), z, hsv(rng.random(), 0.6, 0.6))
        painter.ball(np.array((x, 0.85, z)), 0.14, (176, 132, 104))


def _lost_balls(rng: np.random.Generator, painter: _Painter, colour: Colour) -> None:
    """Balls at rest, exactly like the one in play: only movement tells them apart."""
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(-SIDE_FENCE, SIDE_FENCE), rng.choice((0.4, FENCE - 0.3, 14.0))
        place = np.array((x, BALL_RADIUS, z))
        if rng.random() < 0.3:
            place[2] = -rng.uniform(12.5, 15.0)
        shade = place + (0.4 * BALL_RADIUS, -0.8 * BALL_RADIUS, 0)
        painter.ball(shade, BALL_RADIUS, (40, 50, 45))
        painter.ball(place, BALL_RADIUS, colour)


def _paint_net(rng: np.random.Generator, camera: Camera) -> Image.Image:
    painter = _Painter(camera, "RGBA", (255, 255, 255, 0))
    half = HALF_WIDTH + 0.9
    painter.wall((-half, half), (0, 1.0), 0, (18, 20, 22, int(rng.uniform(90, 130))))
    rope = (12, 14, 16, 190)
    for x in np.arange(-half, half, 0.16):
        painter.line((x, 0, 0), (x, 1.0, 0), rope)
    for y in np.arange(0, 0.95, 0.16):
        painter.line((-half, y, 0), (half, y, 0), rope)
    low, high = NET_HEIGHT - 0.02, NET_HEIGHT + 0.09
    upper = [(-half, high + 0.1, 0), (0, high, 0), (half, high + 0.1, 0)]
    lower = [(half, low + 0.1, 0), (0, low, 0), (-half, low + 0.1, 0)]
    painter.area([*upper, *lower], (236, 236, 232, 255))
    for x in (-half, half):
        painter.wall((x - 0.06, x + 0.06), (0, 1.15), 0, (60, 66, 62, 255))
    return painter.finished()


def _paint_post(
    rng: np.random.Generator, camera: Camera, margin: int
) -> tuple[Image.Image | None, Array]:
    """A post of the fence through which a camera of amateurs looks, out of focus."""
    shape = (camera.height + 2 * margin, camera.width + 2 * margin)
    x = rng.uniform(0.25, 0.75) * camera.width
    half = rng.uniform(0.004, 0.008) * camera.width
    grey = rng.uniform(40, 110)
    if rng.random() < 0.6:
        return None, np.zeros((2, 2))
    away = np.abs(np.arange(shape[1]) + 0.5 - margin - x)
    alpha = ((half - away) / 2.5 + 0.5).clip(0, 1)
    pixels = np.full((*shape, 4), grey)
    pixels[..., :3] += 25 * (1 - away / half).clip(0, 1)[None, :, None]  # round: lighter inside
    pixels[..., 3] = 255 * alpha
    ends = np.array(((x, -margin), (x, camera.height + margin)), dtype=np.float64)
    return Image.fromarray(pixels.astype(np.uint8)), ends
