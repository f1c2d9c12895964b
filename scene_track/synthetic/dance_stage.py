"""Paints the stage of a dance: wall, floor, clutter, foreground, lights.

Everything here is drawn once per sequence, at painting size: ``SCALE`` times the image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scene_track.synthetic.choreography import Dance, Stage
from scene_track.synthetic.drawing import Array, Colour, hsv, to_image

SCALE = 2  # painting size over image size
PATTERNS = 4  # looks of the light wall that the animation cycles through

rgb = partial(hsv, to_level=int)


@dataclass(frozen=True)
class Prop:
    """A foreground polygon in one colour.

    Attributes:
        colour: RGB.
        outline: corners in panorama pixels.
    """

    colour: Colour
    outline: list[tuple[float, float]]


@dataclass(frozen=True)
class Scenery:
    """What is painted behind and in front of the dancers.

    Attributes:
        walls: panoramas ``SCALE`` times the image size plus the pan margin; frames blend two of
            them.
        margin: panorama pixels to the left of the image at pan 0.
        shadow: colour of shadows on the floor.
        front: foreground props.
        light: ``[K, 6]`` moving light spots: column, row, spread, amplitude, rate, phase.
        tint: ``[3]`` amplitude of the slow change of the light's colour.
        grain: noise tile added to images, larger than an image.
    """

    walls: list[Image.Image]
    margin: int
    shadow: Colour
    front: list[Prop]
    light: Array
    tint: Array
    grain: NDArray[np.int16]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour multiplied by ``factor``, at most 255."""
    red, green, blue = (min(int(level * factor), 255) for level in colour)
    return red, green, blue


def draw_scenery(rng: np.random.Generator, dance: Dance) -> Scenery:
    """Paints the stage of one dance and draws its lights."""
    stage = dance.stage
    margin = int(stage.focal * SCALE * (np.abs(dance.pan).max() + 0.02)) + 1
    full, height = stage.width * SCALE + 2 * margin, stage.height * SCALE
    walls, ground = _paint_walls(rng, stage, full)
    front = _foreground(rng, full, height)
    spots = rng.integers(2, 5)
    ranges = ((0.1, 0.9), (0.2, 0.9), (0.1, 0.3), (0.15, 0.55), (0.1, 0.6), (0, 2 * np.pi))
    light = np.stack([rng.uniform(low, high, spots) for low, high in ranges], axis=1)
    grain = rng.normal(0, rng.uniform(2.0, 5.0), (stage.height + 64, stage.width + 64, 1))
    return Scenery(
        walls=walls,
        margin=margin,
        shadow=(int(ground[0] * 0.45), int(ground[1] * 0.45), int(ground[2] * 0.45)),
        front=front,
        light=light,
        tint=rng.uniform(-0.12, 0.12, 3),
        grain=grain.round().astype(np.int16),
    )


def _paint_walls(
    rng: np.random.Generator, stage: Stage, full: int
) -> tuple[list[Image.Image], NDArray[np.float32]]:
    """Panoramas ``full`` pixels wide, and the floor's colour ``[3]``."""
    height = stage.height * SCALE
    horizon = int(stage.horizon * SCALE)
    # The wall stands ten to eleven metres away; the floor begins there.
    floor_row = horizon + int(stage.focal * SCALE * stage.camera_height / rng.uniform(10.0, 11.5))
    wall_hue, floor_hue = rng.random(2)
    wall_value = rng.uniform(0.15, 0.6)
    wall = np.array(rgb(wall_hue, rng.uniform(0.1, 0.7), wall_value), dtype=np.float32)
    ground = np.array(rgb(floor_hue, rng.uniform(0.05, 0.4), rng.uniform(0.25, 0.65)), np.float32)
    rows, columns = np.arange(height)[:, None], np.arange(full)[None, :]
    kind, texture = _wall_texture(rng, rows, columns)

    depth = np.maximum(rows - horizon, 1) / (stage.focal * SCALE)
    plank = np.floor((columns - full / 2) / (depth * 1600.0 * rng.uniform(0.15, 0.4)))
    boards = 0.3 * np.sin(plank * 57.3) + 0.7 * _noise(rng, full, height, (64, 12, 4))
    gloss = 1.0 - 0.35 * (rows - floor_row) / height
    floor = ground * (gloss * (1 + 0.5 * boards))[..., None]

    shades = rng.uniform(0.0, 0.5) if kind == 3 else rng.uniform(0.0, 0.2)
    shine = np.array(rgb(rng.random(), 0.7, 0.9), dtype=np.float32)
    clutter_seed = rng.integers(2**31)
    walls: list[Image.Image] = []
    for _ in range(PATTERNS):
        glow = np.clip(_noise(rng, full, height, (96, 40, 20)) + 0.1, 0, 1)
        screen = wall * (1 + 0.55 * texture)[..., None] + shades * 2 * glow[..., None] * shine
        image = to_image(np.where((rows >= floor_row)[..., None], floor, screen))
        _draw_clutter(np.random.default_rng(clutter_seed), image, floor_row)
        walls.append(image)
    return walls, ground


def _wall_texture(
    rng: np.random.Generator, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[int, NDArray]:
    """Kind of the wall (3 = a light wall) and its texture ``[height, full]`` in about [-1, 1]."""
    texture = _noise(rng, columns.size, rows.size, (128, 48, 16, 6))
    kind = int(rng.integers(4))
    if kind == 0:  # curtain
        fold = rng.uniform(18, 46)
        return kind, 0.7 * texture + 0.35 * np.sin(2 * np.pi * (columns / fold + 0.8 * texture))
    if kind == 1:  # bricks
        bh, bw = rng.integers(14, 26), rng.integers(34, 60)
        shifted = columns + (rows // bh % 2) * (bw // 2)
        joint = ((rows % bh) < 2) | ((shifted % bw) < 2)
        bricks = np.sin((rows // bh) * 12.9 + (shifted // bw) * 78.2)
        texture = 0.6 * texture + 0.25 * bricks
        return kind, np.where(joint, texture - 0.5, texture)
    if kind == 2:  # panels
        texture = 0.6 * texture + 0.4 * np.sin((columns // rng.integers(40, 120)) * 43.7)
    return kind, texture


def _noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[int, ...]
) -> NDArray[np.float32]:
    """``[height, width]`` sum of smooth noises in about [-1, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 1.0
    for cell in cells:
        small = rng.random((max(height // cell, 2), max(width // cell, 2))).astype(np.float32)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * (np.asarray(image) - 0.5)
        weight *= 0.6
    return total


def _foreground(rng: np.random.Generator, full: int, height: int) -> list[Prop]:
    """Stands, speakers, plants and heads of the audience, before the dancers."""
    front: list[Prop] = []
    for _ in range(rng.integers(0, 3)):
        colour = rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.5))
        x = rng.uniform(0, full)
        half = rng.choice((2.5, 4.0, 14.0))
        top = height * (rng.uniform(0.62, 0.75) if half > 10 else rng.uniform(0.3, 0.5))
        corners = [(x - half, top), (x + half, top), (x + half, height), (x - half, height)]
        front.append(Prop(colour, corners))
    for x in np.arange(rng.uniform(0, 60), full, rng.uniform(44, 90)):  # heads
        if rng.random() < 0.35:
            radius = rng.uniform(13, 20)
            angle = np.linspace(0, 2 * np.pi, 14)
            y = height - rng.uniform(0.0, 0.4) * radius
            outline = [(x + radius * np.cos(a), y + 1.2 * radius * np.sin(a)) for a in angle]
            front.append(Prop(rgb(0.07, 0.3, rng.uniform(0.05, 0.2)), outline))
    return front


def _draw_clutter(rng: np.random.Generator, image: Image.Image, floor_row: int) -> None:
    """Speakers, posters with figures, poles and boxes along the wall."""
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(5, 13)):
        x = rng.uniform(0, image.width)
        colour = rgb(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.8))
        kind = rng.integers(4)
        if kind == 0:  # loudspeaker
            w, h = rng.uniform(24, 46), rng.uniform(50, 110)
            dark = rgb(0, 0, rng.uniform(0.05, 0.2))
            top = floor_row + 8 - h
            draw.rectangle((x, top, x + w, floor_row + 8), fill=dark)
            for y in (top + 0.28 * h, top + 0.7 * h):
                r = 0.32 * w
                draw.ellipse((x + w / 2 - r, y - r, x + w / 2 + r, y + r), fill=rgb(0, 0, 0.3))
        elif kind == 1:  # poster with a figure: person-like colours that do not dance
            w, h = rng.uniform(40, 80), rng.uniform(60, 110)
            top = rng.uniform(10, max(floor_row - h - 10, 11))
            draw.rectangle((x, top, x + w, top + h), fill=colour)
            body = (x + 0.35 * w, top + 0.35 * h, x + 0.65 * w, top + h)
            draw.rounded_rectangle(body, 6, fill=rgb(rng.random(), 0.5, 0.7))
            head = (x + 0.38 * w, top + 0.1 * h, x + 0.62 * w, top + 0.35 * h)
            draw.ellipse(head, fill=rgb(0.065, 0.45, 0.75))
        elif kind == 2:  # pole
            w = rng.uniform(3, 9)
            draw.rectangle((x, 0, x + w, floor_row + 5), fill=shade(colour, 0.6))
        else:  # boxes
            w, h = rng.uniform(20, 70), rng.uniform(15, 40)
            draw.rectangle((x, floor_row + 10 - h, x + w, floor_row + 10), fill=colour)
