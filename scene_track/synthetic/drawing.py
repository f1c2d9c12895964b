"""Small things that the painters of dance and tennis share."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
Colour = tuple[int, int, int]


def hsv(
    hue: float, saturation: float, value: float, to_level: Callable[[float], int] = round
) -> Colour:
    """RGB 0-255 of a hue (1 = once around), a saturation and a value, both clipped to 0-1."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    red, green, blue = (to_level(255 * level) for level in rgb)
    return red, green, blue


def to_image(pixels: NDArray) -> Image.Image:
    """An image of an array of levels, clipped to 0-255 and truncated."""
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, and smooth in between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)
