"""Draws a choreographed dance: capsule bodies over a moving stage, with blur, light, noise.

Frames are painted at twice the size, at several instants of the exposure, then averaged: this gives
anti-aliasing and true motion blur. Bodies are painted from far to near, so occlusion is that of the
scene, and the box of a dancer is the extent of its whole body at mid-exposure, occluded or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scene_track.synthetic.choreography import (
    ANKLES,
    CHEST,
    ELBOWS,
    HANDS,
    HEAD,
    HIPS,
    KNEES,
    NECK,
    PELVIS,
    SHOULDERS,
    TOES,
    Dance,
)
from scene_track.synthetic.dance_stage import PATTERNS, SCALE, Scenery, rgb, shade
from scene_track.synthetic.drawing import Array, Colour, to_image


@dataclass(frozen=True)
class _Limb:
    """A capsule between joints ``a`` and ``b``: radius in metres at ``a``, 0.85 of it at ``b``."""

    a: int
    b: int
    radius: float
    material: str


_LIMBS = (
    *(_Limb(SHOULDERS[i], ELBOWS[i], 0.050, "sleeve") for i in (0, 1)),
    *(_Limb(ELBOWS[i], HANDS[i], 0.040, "skin") for i in (0, 1)),
    *(_Limb(HIPS[i], KNEES[i], 0.078, "trousers") for i in (0, 1)),
    *(_Limb(KNEES[i], ANKLES[i], 0.056, "trousers") for i in (0, 1)),
    *(_Limb(ANKLES[i], TOES[i], 0.042, "shoe") for i in (0, 1)),
    _Limb(NECK, HEAD, 0.045, "skin"),
)
_HEAD_RADIUS = 0.115
_TORSO = (SHOULDERS[0], SHOULDERS[1], HIPS[1], HIPS[0])
_TORSO_RADIUS = 0.055


@dataclass(frozen=True)
class Costume:
    """Colours and cut of one dancer's costume."""

    skin: Colour
    sleeve: Colour
    top: Colour
    trousers: Colour
    shoe: Colour
    hair: Colour
    sash: Colour
    long_hair: bool
    skirt: bool


def draw_costumes(rng: np.random.Generator, count: int) -> list[Costume]:
    """Costumes of one troupe: the same design, a slight individual variation of each colour."""
    hue_top, hue_bottom = rng.random(), rng.random()
    value_top, value_bottom = rng.uniform(0.35, 0.95), rng.uniform(0.2, 0.8)
    saturation = rng.uniform(0.2, 0.9, 2)
    sleeves = rng.random() < 0.5
    skirt = rng.random() < 0.35
    sash = rng.random() < 0.5
    shoe_value = rng.choice((0.12, 0.85))
    costumes = []
    for _ in range(count):
        d = rng.normal(0, 1, 6)
        skin = rgb(0.065 + 0.008 * d[0], 0.45 + 0.06 * d[1], 0.78 + 0.08 * d[2])
        top = rgb(hue_top + 0.012 * d[3], saturation[0] + 0.04 * d[4], value_top + 0.04 * d[5])
        d = rng.normal(0, 1, 4)
        trousers = rgb(
            hue_bottom + 0.012 * d[0], saturation[1] + 0.04 * d[1], value_bottom + 0.04 * d[2]
        )
        costumes.append(
            Costume(
                skin=skin,
                sleeve=shade(top, 0.92) if sleeves else skin,
                top=top,
                trousers=trousers,
                shoe=rgb(0, 0, shoe_value),
                hair=rgb(0.07, 0.5, 0.16 + 0.05 * abs(d[3])),
                sash=rgb(hue_top + 0.45, 0.7, 0.8) if sash else shade(top, 0.8),
                long_hair=bool(rng.random() < 0.5),
                skirt=skirt,
            )
        )
    return costumes


@dataclass(frozen=True)
class _Body:
    """One dancer at one instant, ready to be painted.

    Attributes:
        draw: target.
        points: ``[J, 2]`` painting pixels.
        joints: ``[J, 3]`` camera-frame metres, for the order of the parts.
        unit: painting pixels per metre at the dancer's depth.
        costume: colours.
    """

    draw: ImageDraw.ImageDraw
    points: Array
    joints: Array
    unit: float
    costume: Costume

    def paint(self) -> None:
        """Paints the parts from far to near."""
        chest_depth = float(self.joints[CHEST, 2] + self.joints[PELVIS, 2]) / 2
        # The dancer faces away when the toes point away from the camera.
        toes, ankles = (self.joints[list(pair), 2].mean() for pair in (TOES, ANKLES))
        away = float(toes - ankles) > 0.02
        parts: list[tuple[float, int, Callable[[float], None]]] = []
        for number, limb in enumerate(_LIMBS):
            depth = float(self.joints[limb.a, 2] + self.joints[limb.b, 2]) / 2
            parts.append((depth, number, partial(self._limb, limb)))
        parts.append((chest_depth, len(_LIMBS), self._torso))
        head_depth = float(self.joints[HEAD, 2]) + (0.01 if away else -0.05)
        parts.append((head_depth, len(_LIMBS) + 1, partial(self._head, away)))
        for depth, _, paint in sorted(parts, key=itemgetter(0, 1), reverse=True):
            paint(1.0 - min(max((depth - chest_depth) * 0.9, -0.12), 0.3))

    def _limb(self, limb: _Limb, light: float) -> None:
        colour = shade(getattr(self.costume, limb.material), light)
        r = limb.radius * self.unit
        a, b = self.points[limb.a], self.points[limb.b]
        self._capsule(a, b, r + 1, 0.85 * r + 1, shade(colour, 0.55))
        self._capsule(a, b, r, 0.85 * r, colour)

    def _torso(self, _: float) -> None:
        r = _TORSO_RADIUS * self.unit
        for grow, factor in ((1.0, 0.55), (0.0, 1.0)):
            colour = shade(self.costume.top, factor)
            corners = self.points[list(_TORSO)]
            self.draw.polygon([(float(x), float(y)) for x, y in corners], fill=colour)
            for k in range(4):
                self._capsule(corners[k], corners[(k + 1) % 4], r + grow, r + grow, colour)
        hips, shoulders, knees = (self.points[list(j)] for j in (HIPS, SHOULDERS, KNEES))
        waist = 0.75 * hips + 0.25 * shoulders
        self._capsule(waist[0], waist[1], 0.7 * r, 0.7 * r, self.costume.sash)
        if self.costume.skirt:
            hem = 0.45 * hips + 0.55 * knees
            spread = 0.09 * self.unit
            direction = 1.0 if hem[0, 0] >= hem[1, 0] else -1.0
            outline = [
                tuple(hips[0] + (direction * r, 0)),
                tuple(hem[0] + (direction * spread, 0)),
                tuple(hem[1] - (direction * spread, 0)),
                tuple(hips[1] - (direction * r, 0)),
            ]
            top = self.costume.top
            self.draw.polygon(outline, fill=shade(top, 0.85), outline=shade(top, 0.5))

    def _head(self, away: bool, _: float) -> None:
        draw, points, r = self.draw, self.points, _HEAD_RADIUS * self.unit
        x, y = float(points[HEAD, 0]), float(points[HEAD, 1])
        draw.ellipse((x - 0.88 * r, y - r, x + 0.88 * r, y + r), fill=self.costume.hair)
        if away:
            if self.costume.long_hair:
                nx, ny = float(points[CHEST, 0]), float(points[CHEST, 1])
                end = (x, y, 0.4 * x + 0.6 * nx, 0.4 * y + 0.6 * ny)
                draw.line(end, self.costume.hair, int(1.3 * r))
            return
        turn = float(points[TOES[0], 0] + points[TOES[1], 0])
        turn -= float(points[ANKLES[0], 0] + points[ANKLES[1], 0])
        shift = min(max(turn / (0.26 * self.unit), -1.0), 1.0) * 0.35 * r
        face = (x - 0.66 * r + shift, y - 0.5 * r, x + 0.66 * r + shift, y + 0.95 * r)
        draw.ellipse(face, fill=self.costume.skin)
        for eye in (-0.28, 0.28):
            draw.point((x + (eye * r) + 1.3 * shift, y + 0.1 * r), fill=(30, 20, 20))

    def _capsule(
        self, a: Array, b: Array, radius_a: float, radius_b: float, colour: Colour
    ) -> None:
        width = max(int(round(radius_a + radius_b)), 1)
        self.draw.line((*a.tolist(), *b.tolist()), fill=colour, width=width)
        for (x, y), r in ((a.tolist(), radius_a), (b.tolist(), radius_b)):
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def body_boxes(dance: Dance, instants: NDArray[np.int64]) -> Array:
    """``[len(instants), N, 4]`` corner boxes of whole bodies in pixels, not clipped."""
    joints = dance.joints[instants]
    points = dance.stage.project(joints)
    radius = np.zeros(joints.shape[-2])
    for limb in _LIMBS:
        radius[limb.a] = max(radius[limb.a], limb.radius)
        radius[limb.b] = max(radius[limb.b], 0.85 * limb.radius)
    for j in _TORSO:
        radius[j] = max(radius[j], _TORSO_RADIUS)
    radius[HEAD] = _HEAD_RADIUS
    depth = np.maximum(joints[..., PELVIS : PELVIS + 1, 2:], 0.5)
    extent = np.broadcast_to(dance.stage.focal * radius[:, None] / depth, points.shape)
    use = np.flatnonzero(radius > 0)
    low = (points - extent)[..., use, :].min(axis=-2)
    high = (points + extent)[..., use, :].max(axis=-2)
    return np.concatenate((low, high), axis=-1)


def draw_dancer(
    draw: ImageDraw.ImageDraw, dance: Dance, costume: Costume, instant: int, dancer: int
) -> None:
    """Paints one dancer at one instant, at painting size."""
    joints = dance.joints[instant, dancer]
    points = dance.stage.project(joints) * SCALE
    _Body(draw, points, joints, _unit(dance, joints), costume).paint()


def draw_frame(
    rng: np.random.Generator,
    dance: Dance,
    scenery: Scenery,
    costumes: list[Costume],
    instants: NDArray[np.int64],
    time: float,
) -> Image.Image:
    """Paints one exposed image.

    Args:
        rng: source of the noise.
        dance: the sequence.
        scenery: its stage.
        costumes: one per dancer.
        instants: indices of the exposure's instants in ``dance.joints``.
        time: seconds since the start, for the moving lights.
    """
    stage = dance.stage
    place = time * 1.6
    first, mix = int(place) % PATTERNS, place % 1.0
    layers = scenery.walls[first], scenery.walls[(first + 1) % PATTERNS]
    total = np.zeros((stage.height, stage.width, 3), dtype=np.uint16)
    for instant in instants:
        left = scenery.margin + int(round(SCALE * stage.focal * float(np.tan(dance.pan[instant]))))
        window = (left, 0, left + stage.width * SCALE, stage.height * SCALE)
        canvas = Image.blend(layers[0].crop(window), layers[1].crop(window), mix)
        draw = ImageDraw.Draw(canvas)
        _draw_troupe(draw, dance, costumes, instant, scenery.shadow)
        for prop in scenery.front:
            draw.polygon([(x - left, y) for x, y in prop.outline], fill=prop.colour)
        total += np.asarray(canvas.reduce(SCALE))

    pixels = total.astype(np.float32)
    pixels *= _light(scenery, stage.width, stage.height, time)
    tint = (1 + scenery.tint * np.sin(2 * np.pi * 0.25 * time)) / len(instants)
    pixels *= tint.astype(np.float32)
    dx, dy = rng.integers(0, 64, 2)
    pixels += scenery.grain[dy : dy + stage.height, dx : dx + stage.width]
    return to_image(pixels)


def _unit(dance: Dance, joints: Array) -> float:
    """Painting pixels per metre at the depth of a body's ``joints [J, 3]``."""
    return float(dance.stage.focal * SCALE / np.maximum(joints[PELVIS, 2], 0.5))


def _draw_troupe(
    draw: ImageDraw.ImageDraw, dance: Dance, costumes: list[Costume], instant: int, shadow: Colour
) -> None:
    """All shadows, then all dancers from far to near."""
    stage, pelvis = dance.stage, dance.joints[instant, :, PELVIS]
    order = np.argsort(-pelvis[:, 2])
    for n in order:
        feet = stage.project(np.array((pelvis[n, 0], stage.camera_height, pelvis[n, 2])))
        x, y = feet * SCALE
        r = 0.3 * _unit(dance, dance.joints[instant, n])
        draw.ellipse((x - r, y - 0.2 * r, x + r, y + 0.25 * r), fill=shadow)
    columns = stage.project(pelvis)[:, 0] * SCALE
    for n in order:
        if -200 < columns[n] < stage.width * SCALE + 200:
            draw_dancer(draw, dance, costumes[n], instant, n)


def _light(scenery: Scenery, width: int, height: int, time: float) -> NDArray[np.float32]:
    """``[height, width, 1]`` brightness; smooth, so computed on a small grid and enlarged."""
    rows = (np.arange(height // 8) + 0.5)[:, None] / (height // 8)
    columns = (np.arange(width // 8) + 0.5)[None, :] / (width // 8)
    gain = np.full((height // 8, width // 8), 0.78)
    for column, row, spread, amplitude, rate, phase in scenery.light:
        x = column + 0.3 * np.sin(2 * np.pi * rate * time + phase)
        pulse = amplitude * (0.75 + 0.25 * np.sin(2 * np.pi * 1.7 * rate * time + 2 * phase))
        gain += pulse * np.exp(-((columns - x) ** 2 + (rows - row) ** 2) / (2 * spread**2))
    image = Image.fromarray(gain.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))[..., None]
