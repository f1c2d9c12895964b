"""Draws a choreographed dance: capsule bodies over a moving stage, with blur, light, noise.

Frames are painted at twice the size, at several instants of the exposure, then averaged: one
mechanism gives anti-aliasing and true motion blur. Bodies are painted from far to near, so
occlusion is that of the scene, and the box of a dancer is the extent of its whole body at
mid-exposure, occluded or not.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

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
    Array,
    Dance,
)

Colour = tuple[int, int, int]

SCALE = 2  # painting size over picture size
PATTERNS = 4  # looks of the moving light wall that the animation cycles through

# (first joint, second joint, radius in metres at each end, material)
_LIMBS: tuple[tuple[int, int, float, str], ...] = (
    *((SHOULDERS[i], ELBOWS[i], 0.050, "sleeve") for i in (0, 1)),
    *((ELBOWS[i], HANDS[i], 0.040, "skin") for i in (0, 1)),
    *((HIPS[i], KNEES[i], 0.078, "trousers") for i in (0, 1)),
    *((KNEES[i], ANKLES[i], 0.056, "trousers") for i in (0, 1)),
    *((ANKLES[i], TOES[i], 0.042, "shoe") for i in (0, 1)),
    (NECK, HEAD, 0.045, "skin"),
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


@dataclass(frozen=True)
class Scenery:
    """What is painted behind and in front of the dancers.

    Attributes:
        walls: panoramas ``SCALE`` times the picture size plus the pan margin; frames blend two of
            them.
        margin: panorama pixels to the left of the picture at pan 0.
        shadow: colour of shadows on the floor.
        front: foreground props as (camera pan column offset, polygons), in painting pixels.
        light: ``[K, 6]`` moving light spots: column, row, spread, amplitude, rate, phase.
        tint: ``[3]`` amplitude of the slow change of the light's colour.
        grain: noise tile added to pictures, larger than a picture.
    """

    walls: list[Image.Image]
    margin: int
    shadow: Colour
    front: list[tuple[Colour, list[tuple[float, float]]]]
    light: Array
    tint: Array
    grain: NDArray[np.int16]


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return int(255 * r), int(255 * g), int(255 * b)


def _shade(colour: Colour, factor: float) -> Colour:
    return (
        min(int(colour[0] * factor), 255),
        min(int(colour[1] * factor), 255),
        min(int(colour[2] * factor), 255),
    )


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
        skin = _rgb(0.065 + 0.008 * d[0], 0.45 + 0.06 * d[1], 0.78 + 0.08 * d[2])
        top = _rgb(hue_top + 0.012 * d[3], saturation[0] + 0.04 * d[4], value_top + 0.04 * d[5])
        d = rng.normal(0, 1, 4)
        trousers = _rgb(
            hue_bottom + 0.012 * d[0], saturation[1] + 0.04 * d[1], value_bottom + 0.04 * d[2]
        )
        costumes.append(
            Costume(
                skin=skin,
                sleeve=_shade(top, 0.92) if sleeves else skin,
                top=top,
                trousers=trousers,
                shoe=_rgb(0, 0, shoe_value),
                hair=_rgb(0.07, 0.5, 0.16 + 0.05 * abs(d[3])),
                sash=_rgb(hue_top + 0.45, 0.7, 0.8) if sash else _shade(top, 0.8),
                long_hair=bool(rng.random() < 0.5),
                skirt=skirt,
            )
        )
    return costumes


def _noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[int, ...]
) -> NDArray[np.float32]:
    """``[height, width]`` sum of smooth noises in about [-1, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 1.0
    for cell in cells:
        small = rng.random((max(height // cell, 2), max(width // cell, 2))).astype(np.float32)
        image = Image.fromarray(small, mode=None).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * (np.asarray(image) - 0.5)
        weight *= 0.6
    return total.astype(np.float32)


def draw_scenery(rng: np.random.Generator, dance: Dance) -> Scenery:
    """Paints wall, floor and clutter of one stage and draws its lights."""
    stage = dance.stage
    width, height = stage.width * SCALE, stage.height * SCALE
    margin = int(stage.focal * SCALE * (np.abs(dance.pan).max() + 0.02)) + 1
    full = width + 2 * margin
    horizon = int(stage.horizon * SCALE)
    # The wall stands ten to eleven metres away; the floor begins there.
    floor_row = horizon + int(stage.focal * SCALE * stage.camera_height / rng.uniform(10.0, 11.5))

    wall_hue, floor_hue = rng.random(2)
    wall_value = rng.uniform(0.15, 0.6)
    wall = np.array(_rgb(wall_hue, rng.uniform(0.1, 0.7), wall_value), dtype=np.float32)
    ground = np.array(_rgb(floor_hue, rng.uniform(0.05, 0.4), rng.uniform(0.25, 0.65)), np.float32)
    rows = np.arange(height)[:, None]
    columns = np.arange(full)[None, :]
    is_floor = (rows >= floor_row)[..., None]

    texture = _noise(rng, full, height, (128, 48, 16, 6))
    kind = rng.integers(4)
    if kind == 0:  # curtain
        fold = rng.uniform(18, 46)
        texture = 0.7 * texture + 0.35 * np.sin(2 * np.pi * (columns / fold + 0.8 * texture))
    elif kind == 1:  # bricks
        bh, bw = rng.integers(14, 26), rng.integers(34, 60)
        shift = (rows // bh % 2) * (bw // 2)
        joint = ((rows % bh) < 2) | (((columns + shift) % bw) < 2)
        texture = 0.6 * texture + 0.25 * np.sin(
            (rows // bh) * 12.9 + ((columns + shift) // bw) * 78.2
        )
        texture = np.where(joint, texture - 0.5, texture)
    elif kind == 2:  # panels
        pw = rng.integers(40, 120)
        texture = 0.6 * texture + 0.4 * np.sin((columns // pw) * 43.7)
    depth = np.maximum(rows - horizon, 1) / (stage.focal * SCALE)
    plank = np.floor((columns - full / 2) / (depth * 1600.0 * rng.uniform(0.15, 0.4)))
    boards = 0.3 * np.sin(plank * 57.3) + 0.7 * _noise(rng, full, height, (64, 12, 4))
    gloss = 1.0 - 0.35 * (rows - floor_row) / height

    walls: list[Image.Image] = []
    shades = rng.uniform(0.0, 0.5) if kind == 3 else rng.uniform(0.0, 0.2)
    shine = np.array(_rgb(rng.random(), 0.7, 0.9), dtype=np.float32)
    base_floor = ground * (gloss * (1 + 0.5 * boards))[..., None]
    clutter_seed = rng.integers(2**31)
    for _ in range(PATTERNS):
        glow = np.clip(_noise(rng, full, height, (96, 40, 20)) + 0.1, 0, 1)
        screen = wall * (1 + 0.55 * texture)[..., None] + shades * 2 * glow[..., None] * shine
        picture = np.where(is_floor, base_floor, screen)
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        _draw_clutter(np.random.default_rng(clutter_seed), image, floor_row)
        walls.append(image)

    front: list[tuple[Colour, list[tuple[float, float]]]] = []
    for _ in range(rng.integers(0, 3)):  # a stand, a speaker or a plant before the dancers
        colour = _rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.5))
        x = rng.uniform(0, full)
        half = rng.choice((2.5, 4.0, 14.0))
        top = height * (rng.uniform(0.62, 0.75) if half > 10 else rng.uniform(0.3, 0.5))
        front.append(
            (colour, [(x - half, top), (x + half, top), (x + half, height), (x - half, height)])
        )
    for x in np.arange(rng.uniform(0, 60), full, rng.uniform(44, 90)):  # heads of the audience
        if rng.random() < 0.35:
            radius = rng.uniform(13, 20)
            angle = np.linspace(0, 2 * np.pi, 14)
            y = height - rng.uniform(0.0, 0.4) * radius
            outline = [(x + radius * np.cos(a), y + 1.2 * radius * np.sin(a)) for a in angle]
            front.append((_rgb(0.07, 0.3, rng.uniform(0.05, 0.2)), outline))

    spots = rng.integers(2, 5)
    light = np.stack(
        (
            rng.uniform(0.1, 0.9, spots),
            rng.uniform(0.2, 0.9, spots),
            rng.uniform(0.1, 0.3, spots),
            rng.uniform(0.15, 0.55, spots),
            rng.uniform(0.1, 0.6, spots),
            rng.uniform(0, 2 * np.pi, spots),
        ),
        axis=1,
    )
    grain = rng.normal(0, rng.uniform(2.0, 5.0), (stage.height + 64, stage.width + 64, 1))
    shadow = tuple(int(v) for v in ground * 0.45)
    return Scenery(
        walls=walls,
        margin=margin,
        shadow=(shadow[0], shadow[1], shadow[2]),
        front=front,
        light=light,
        tint=rng.uniform(-0.12, 0.12, 3),
        grain=grain.round().astype(np.int16),
    )


def _draw_clutter(rng: np.random.Generator, image: Image.Image, floor_row: int) -> None:
    """Speakers, posters with figures, poles and boxes along the wall."""
    draw = ImageDraw.Draw(image)
    width = image.width
    for _ in range(rng.integers(5, 13)):
        x = rng.uniform(0, width)
        colour = _rgb(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.8))
        kind = rng.integers(4)
        if kind == 0:  # loudspeaker
            w, h = rng.uniform(24, 46), rng.uniform(50, 110)
            dark = _rgb(0, 0, rng.uniform(0.05, 0.2))
            top = floor_row + 8 - h
            draw.rectangle((x, top, x + w, floor_row + 8), fill=dark)
            for y in (top + 0.28 * h, top + 0.7 * h):
                r = 0.32 * w
                draw.ellipse((x + w / 2 - r, y - r, x + w / 2 + r, y + r), fill=_rgb(0, 0, 0.3))
        elif kind == 1:  # poster with a figure: person-like colours that do not dance
            w, h = rng.uniform(40, 80), rng.uniform(60, 110)
            top = rng.uniform(10, max(floor_row - h - 10, 11))
            draw.rectangle((x, top, x + w, top + h), fill=colour)
            other = _rgb(rng.random(), 0.5, 0.7)
            draw.rounded_rectangle(
                (x + 0.35 * w, top + 0.35 * h, x + 0.65 * w, top + h), 6, fill=other
            )
            skin = _rgb(0.065, 0.45, 0.75)
            draw.ellipse((x + 0.38 * w, top + 0.1 * h, x + 0.62 * w, top + 0.35 * h), fill=skin)
        elif kind == 2:  # pole
            w = rng.uniform(3, 9)
            draw.rectangle((x, 0, x + w, floor_row + 5), fill=_shade(colour, 0.6))
        else:  # boxes
            w, h = rng.uniform(20, 70), rng.uniform(15, 40)
            draw.rectangle((x, floor_row + 10 - h, x + w, floor_row + 10), fill=colour)


def _capsule(
    draw: ImageDraw.ImageDraw, a: Array, b: Array, radius_a: float, radius_b: float, colour: Colour
) -> None:
    ax, ay, bx, by = float(a[0]), float(a[1]), float(b[0]), float(b[1])
    draw.line((ax, ay, bx, by), fill=colour, width=max(int(round(radius_a + radius_b)), 1))
    draw.ellipse((ax - radius_a, ay - radius_a, ax + radius_a, ay + radius_a), fill=colour)
    draw.ellipse((bx - radius_b, by - radius_b, bx + radius_b, by + radius_b), fill=colour)


def _draw_dancer(
    draw: ImageDraw.ImageDraw, points: Array, joints: Array, unit: float, costume: Costume
) -> None:
    """One body.

    Args:
        draw: target.
        points: ``[J, 2]`` painting pixels.
        joints: ``[J, 3]`` camera-frame metres, for the order of the parts.
        unit: painting pixels per metre at the dancer's depth.
        costume: colours.
    """
    chest_depth = float(joints[CHEST, 2] + joints[PELVIS, 2]) / 2
    # Facing away when the toes point away from the camera.
    away = float(joints[list(TOES), 2].mean() - joints[list(ANKLES), 2].mean()) > 0.02
    parts: list[tuple[float, int]] = [
        (float(joints[a, 2] + joints[b, 2]) / 2, number)
        for number, (a, b, _, _) in enumerate(_LIMBS)
    ]
    parts.append((chest_depth, len(_LIMBS)))
    parts.append((float(joints[HEAD, 2]) - (0.05 if not away else -0.01), len(_LIMBS) + 1))
    parts.sort(reverse=True)
    for depth, number in parts:
        light = 1.0 - min(max((depth - chest_depth) * 0.9, -0.12), 0.3)
        if number < len(_LIMBS):
            a, b, radius, material = _LIMBS[number]
            colour = _shade(getattr(costume, material), light)
            r = radius * unit
            _capsule(draw, points[a], points[b], r + 1, 0.85 * r + 1, _shade(colour, 0.55))
            _capsule(draw, points[a], points[b], r, 0.85 * r, colour)
        elif number == len(_LIMBS):
            r = _TORSO_RADIUS * unit
            for grow, factor in ((1.0, 0.55), (0.0, 1.0)):
                colour = _shade(costume.top, factor)
                corners = [(float(points[j, 0]), float(points[j, 1])) for j in _TORSO]
                draw.polygon(corners, fill=colour)
                for k in range(4):
                    start, stop = points[_TORSO[k]], points[_TORSO[(k + 1) % 4]]
                    _capsule(draw, start, stop, r + grow, r + grow, colour)
            waist = 0.75 * points[list(HIPS)] + 0.25 * points[list(SHOULDERS)]
            _capsule(draw, waist[0], waist[1], 0.7 * r, 0.7 * r, costume.sash)
            if costume.skirt:
                hem = 0.45 * points[list(HIPS)] + 0.55 * points[list(KNEES)]
                spread = 0.09 * unit
                direction = 1.0 if hem[0, 0] >= hem[1, 0] else -1.0
                outline = [
                    tuple(points[HIPS[0]] + (direction * r, 0)),
                    tuple(hem[0] + (direction * spread, 0)),
                    tuple(hem[1] - (direction * spread, 0)),
                    tuple(points[HIPS[1]] - (direction * r, 0)),
                ]
                draw.polygon(
                    outline, fill=_shade(costume.top, 0.85), outline=_shade(costume.top, 0.5)
                )
        else:
            r = _HEAD_RADIUS * unit
            x, y = float(points[HEAD, 0]), float(points[HEAD, 1])
            hair, face = costume.hair, costume.skin
            draw.ellipse((x - 0.88 * r, y - r, x + 0.88 * r, y + r), fill=hair)
            if costume.long_hair:
                nx, ny = float(points[CHEST, 0]), float(points[CHEST, 1])
                if away:
                    draw.line((x, y, 0.4 * x + 0.6 * nx, 0.4 * y + 0.6 * ny), hair, int(1.3 * r))
            if not away:
                turn = float(points[TOES[0], 0] + points[TOES[1], 0])
                turn -= float(points[ANKLES[0], 0] + points[ANKLES[1], 0])
                shift = min(max(turn / (0.26 * unit), -1.0), 1.0) * 0.35 * r
                draw.ellipse(
                    (x - 0.66 * r + shift, y - 0.5 * r, x + 0.66 * r + shift, y + 0.95 * r),
                    fill=face,
                )
                for eye in (-0.28, 0.28):
                    ex = x + (eye * r) + 1.3 * shift
                    draw.point((ex, y + 0.1 * r), fill=(30, 20, 20))


def body_boxes(dance: Dance, instants: NDArray[np.int64]) -> Array:
    """``[len(instants), N, 4]`` corner boxes of whole bodies in pixels, not clipped."""
    joints = dance.joints[instants]
    points = dance.stage.project(joints)
    radius = np.zeros(joints.shape[-2])
    for a, b, r, _ in _LIMBS:
        radius[a] = max(radius[a], r)
        radius[b] = max(radius[b], 0.85 * r)
    for j in _TORSO:
        radius[j] = max(radius[j], _TORSO_RADIUS)
    radius[HEAD] = _HEAD_RADIUS
    extent = (
        dance.stage.focal * radius[:, None] / np.maximum(joints[..., PELVIS : PELVIS + 1, 2:], 0.5)
    )
    extent = np.broadcast_to(extent, points.shape)
    use = [j for j in range(joints.shape[-2]) if radius[j] > 0]
    low = (points - extent)[..., use, :].min(axis=-2)
    high = (points + extent)[..., use, :].max(axis=-2)
    return np.concatenate((low, high), axis=-1)


def draw_frame(
    dance: Dance,
    scenery: Scenery,
    costumes: list[Costume],
    instants: NDArray[np.int64],
    time: float,
    shift: tuple[int, int],
) -> Image.Image:
    """Paints one exposed picture.

    Args:
        dance: the sequence.
        scenery: its stage.
        costumes: one per dancer.
        instants: indices of the exposure's instants in ``dance.joints``.
        time: seconds since the start, for the moving lights.
        shift: offset into the grain tile, 0-63 each.
    """
    stage = dance.stage
    width, height = stage.width * SCALE, stage.height * SCALE
    place = time * 1.6
    first, mix = int(place) % PATTERNS, place % 1.0
    layers = scenery.walls[first], scenery.walls[(first + 1) % PATTERNS]
    total = np.zeros((stage.height, stage.width, 3), dtype=np.uint16)
    for instant in instants:
        left = scenery.margin + int(round(SCALE * stage.focal * float(np.tan(dance.pan[instant]))))
        window = (left, 0, left + width, height)
        canvas = Image.blend(layers[0].crop(window), layers[1].crop(window), mix)
        draw = ImageDraw.Draw(canvas)
        joints = dance.joints[instant]
        points = stage.project(joints) * SCALE
        unit = stage.focal * SCALE / np.maximum(joints[:, PELVIS, 2], 0.5)
        order = np.argsort(-joints[:, PELVIS, 2])
        for n in order:
            feet = stage.project(
                np.array((joints[n, PELVIS, 0], stage.camera_height, joints[n, PELVIS, 2]))
            )
            x, y, r = feet[0] * SCALE, feet[1] * SCALE, 0.3 * unit[n]
            draw.ellipse((x - r, y - 0.2 * r, x + r, y + 0.25 * r), fill=scenery.shadow)
        for n in order:
            if -200 < points[n, PELVIS, 0] < width + 200:
                _draw_dancer(draw, points[n], joints[n], float(unit[n]), costumes[n])
        for colour, outline in scenery.front:
            draw.polygon([(x - left, y) for x, y in outline], fill=colour)
        total += np.asarray(canvas.reduce(SCALE))

    # Light is smooth: computed on a small grid, enlarged by Pillow.
    rows = (np.arange(stage.height // 8) + 0.5)[:, None] / (stage.height // 8)
    columns = (np.arange(stage.width // 8) + 0.5)[None, :] / (stage.width // 8)
    gain = np.full((stage.height // 8, stage.width // 8), 0.78)
    for column, row, spread, amplitude, rate, phase in scenery.light:
        x = column + 0.3 * np.sin(2 * np.pi * rate * time + phase)
        pulse = amplitude * (0.75 + 0.25 * np.sin(2 * np.pi * 1.7 * rate * time + 2 * phase))
        gain += pulse * np.exp(-((columns - x) ** 2 + (rows - row) ** 2) / (2 * spread**2))
    gain_image = Image.fromarray(gain.astype(np.float32)).resize(
        (stage.width, stage.height), Image.Resampling.BILINEAR
    )
    colour_gain = (1 + scenery.tint * np.sin(2 * np.pi * 0.25 * time)) / len(instants)
    picture = total.astype(np.float32)
    picture *= np.asarray(gain_image)[..., None]
    picture *= colour_gain.astype(np.float32)
    dx, dy = shift
    picture += scenery.grain[dy : dy + stage.height, dx : dx + stage.width]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
