"""Neighbours of each frame of a clip, the same offline and window by window.

A window of a video knows the frames before it from what the last window left behind, so that a
streamed video gives what one pass gives. Frames after it are not known: there, as at both ends of a
video, the nearest known frame stands in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NeighbourFrames:
    """Looks up frames at fixed distances."""

    def __init__(self, offsets: Sequence[int]) -> None:
        """Store the distances.

        Args:
            offsets: frames, negative = earlier.
        """
        self.offsets = list(offsets)
        self.kept = max([0, *(-offset for offset in offsets)])

    def __call__(
        self, values: Tensor, padding_mask: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Neighbours of each frame, and what the next window needs.

        Args:
            values: ``[B, T, ...]`` one per frame: pictures or features.
            padding_mask: ``[B, T]`` bool, True = padding, at the end of a clip only.
            past: what the window before returned; None at the start of a video.

        Returns:
            ``[B, T, K, ...]``, one per offset, and the last frames of the window; None where no
            offset looks back.
        """
        b, t = values.shape[:2]
        known = values if past is None else torch.cat((past, values), dim=1)
        before = known.shape[1] - t
        place = torch.arange(t, device=values.device).view(1, t, 1)
        offset = torch.tensor(self.offsets, dtype=torch.long, device=values.device).view(1, 1, -1)
        last = (~padding_mask).sum(dim=1).clamp(min=1).view(b, 1, 1) - 1
        # A frame of padding may look anywhere: nobody looks at what comes of it.
        index = (place + offset).minimum(last).clamp(min=-before) + before
        clip = torch.arange(b, device=values.device).view(b, 1, 1)
        state = known[:, max(0, known.shape[1] - self.kept) :] if self.kept else None
        return known[clip, index], state
