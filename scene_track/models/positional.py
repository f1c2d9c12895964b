"""Where and when: every positional code of the models, all pure functions of real-valued positions.

Nothing here is a table: a code is computed from a position (seconds, frame numbers, 0-1
coordinates), so any image size, frame rate and sequence length works, and a chunk of a video gets
the same codes as the whole.
Angles are always computed in float32, also inside autocast: in bfloat16 frame 257 is frame 256.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RotaryEmbedding1d(nn.Module):
    """Turns channel pairs of queries and keys by an angle proportional to their position in time.

    The dot product of two turned vectors depends on the *difference* of their positions only.
    Channel i is paired with channel i + d/2. Angular frequencies are ``base ** (-2i / dim)``, so
    wavelengths are log-spaced from ``2 pi`` to just under ``2 pi * base`` positions (RoFormer,
    arXiv:2104.09864, eq. 15, where ``base`` is 10000). The default base is 100: with positions in
    frames, wavelengths then run from 6 to about 600 frames, the scale on which people move; a
    larger base would leave most channels unturned within a clip.
    """

    frequencies: Tensor

    def __init__(self, dim: int, base: float = 100.0) -> None:
        """Fix the frequencies.

        Args:
            dim: width of one attention head; even.
            base: ratio of the longest to the shortest wavelength, > 1.

        Raises:
            ValueError: ``dim`` is odd.
        """
        super().__init__()
        _even(dim)
        frequencies = base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x [B, ..., T, d]`` turned; ``positions [B, T]`` are real-valued, gaps allowed."""
        angles = positions.float()[..., None] * self.frequencies.float()
        middle = (1,) * (x.dim() - 3)
        angles = angles.view(angles.shape[0], *middle, *angles.shape[1:])
        cos, sin = angles.cos(), angles.sin()
        first, second = x.float().chunk(2, dim=-1)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return turned.to(x.dtype)


def _even(dim: int, multiple: int = 2) -> None:
    if dim <= 0 or dim % multiple:
        raise ValueError(f"a positional code needs a multiple of {multiple} channels, not {dim}")


def sincos(coordinates: Tensor, dim: int, temperature: float = 20.0) -> Tensor:
    """Sine-cosine code of 0-1 coordinates: points, boxes, anything.

    Each coordinate is scaled to 0-2 pi and coded by ``dim / 2`` sines followed by as many cosines
    of frequencies ``temperature ** (-2i / dim)``: DETR's formula (arXiv:2005.12872) with the
    temperature of DAB-DETR (arXiv:2201.12329), whose authors found DETR's 10000 to leave most
    channels constant.

    Args:
        coordinates: ``[..., n]``, 0-1 of the canvas (values outside are coded too).
        dim: channels *per coordinate*; even.
        temperature: ratio of the highest to the lowest frequency, > 0.

    Returns:
        ``[..., n * dim]`` float32 in -1..1, coordinate by coordinate.

    Raises:
        ValueError: ``dim`` is odd.
    """
    _even(dim)
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=coordinates.device) / dim
    angles = coordinates.float()[..., None] * (2 * math.pi * temperature**-steps)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def sincos_2d(
    height: int,
    width: int,
    dim: int,
    *,
    temperature: float = 20.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fixed two-dimensional positions of a feature map's cells, DETR style (not MAE's).

    Coordinates are those of the cell *centres*, 0-1 of the canvas, so that maps of different sizes
    and strides agree about places, and so do these codes and ``sincos`` of a box centre.

    Args:
        height: cells down.
        width: cells across.
        dim: channels; a multiple of 4. The first half codes x, the second y (as ``sincos`` of ``(x,
            y)``).
        temperature: see ``sincos``.
        device: where to put the result.

    Returns:
        ``[height, width, dim]`` float32 in -1..1; ``.flatten(0, 1)`` gives one row per token.

    Raises:
        ValueError: ``dim`` is not a multiple of 4.
    """
    _even(dim, 4)
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
    grid = torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=-1)
    return sincos(grid, dim // 2, temperature)


class AbsoluteTimeEmbedding(nn.Module):
    """Time since the start of a video, as waves with a learned scale and phase per channel.

    Frequencies are log-spaced from ``2 pi / horizon_s`` (one turn within the horizon) to
    ``0.45 * 2 pi * fps``: just under Nyquist, above which the samples of a video could not tell a
    wave from a slower one. The phases start as sine and cosine pairs of dim / 2 frequencies.
    """

    frequencies: Tensor

    def __init__(self, dim: int, fps: float, horizon_s: float) -> None:
        """Fix the frequencies.

        Args:
            dim: channels; even.
            fps: frames per second of the fastest video, > 0.
            horizon_s: seconds within which times shall be told apart, > 2.3 / fps.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__()
        _even(dim)
        low, high = 2 * math.pi / horizon_s, 0.45 * 2 * math.pi * fps
        if low >= high:
            raise ValueError(
                f"the time horizon must be longer than about two frames, not {horizon_s} s at"
                f" {fps} frames/s"
            )
        ends = math.log10(low), math.log10(high)
        waves = torch.logspace(*ends, dim // 2, dtype=torch.float64).float()
        self.register_buffer("frequencies", waves, persistent=False)
        self.scale = nn.Parameter(torch.ones(dim))
        self.phase = nn.Parameter(torch.zeros(dim))
        with torch.no_grad():
            self.phase[dim // 2 :] = math.pi / 2

    def forward(self, seconds: Tensor) -> Tensor:
        """``[...]`` seconds since the start of the video to ``[..., dim]`` float32."""
        angles = seconds.float()[..., None] * self.frequencies
        return self.scale * torch.sin(torch.cat((angles, angles), dim=-1) + self.phase)


class RelativeTimeEmbedding(nn.Module):
    """Signed distance in time between two frames: waves, then a mixing layer.

    One turn of the slowest wave spans -horizon..+horizon, so past and future are never confused.
    """

    def __init__(self, dim: int, fps: float, horizon_s: float) -> None:
        """As ``AbsoluteTimeEmbedding``; ``horizon_s`` is the largest distance that occurs."""
        super().__init__()
        self.waves = AbsoluteTimeEmbedding(dim, fps, 2 * horizon_s)
        self.mix = nn.Linear(dim, dim)

    def forward(self, delta_seconds: Tensor) -> Tensor:
        """``[...]`` seconds (reference minus query frame; negative = past) to ``[..., dim]``."""
        return self.mix(self.waves(delta_seconds))
