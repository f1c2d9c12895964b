"""Neighbours of each frame of a clip, the same offline and window by window.

A window gets the last frames of the window before it, so that a streamed video gives the result of
one pass. Frames after the window are unknown: there, as at both ends of a video, the nearest known
frame is used. Padding is never a neighbour, also where it ends a window in the middle of a video
(frames that could not be read).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PastFrames:
    """The last frames of each clip, without padding.

    Attributes:
        values: ``[B, S, ...]`` one per frame, newest last.
        count: ``[B]`` int64; number of the newest that are frames of the video.
    """

    values: Tensor
    count: Tensor

    def detach(self) -> PastFrames:
        """The same frames without their graph."""
        return PastFrames(self.values.detach(), self.count)


class NeighbourFrames:
    """Looks up frames at fixed distances."""

    def __init__(self, offsets: Sequence[int]) -> None:
        """Stores the distances.

        Args:
            offsets: frames, negative = earlier.
        """
        self.offsets = list(offsets)
        self.kept = max([0, *(-offset for offset in offsets)])

    def __call__(
        self, values: Tensor, padding_mask: Tensor, past: PastFrames | None
    ) -> tuple[Tensor, PastFrames | None]:
        """Returns the neighbours of each frame, and the frames that the next window needs.

        Args:
            values: ``[B, T, ...]`` one per frame: images or features.
            padding_mask: ``[B, T]`` bool, True = padding, at the end of a clip only.
            past: frames of the window before; None at the start of a video.

        Returns:
            ``[B, T, K, ...]``, one per offset, and the last frames up to here; None where no
            offset looks back.
        """
        b, t = values.shape[:2]
        if past is None:
            past = PastFrames(values[:, :0], padding_mask.new_zeros(b, dtype=torch.long))
        known = torch.cat((past.values, values), dim=1)
        before = known.shape[1] - t
        place = torch.arange(t, device=values.device).view(1, t, 1)
        offset = torch.tensor(self.offsets, dtype=torch.long, device=values.device).view(1, 1, -1)
        last = (~padding_mask).sum(dim=1).clamp(min=1).view(b, 1, 1) - 1
        # The neighbours of padding are arbitrary: they are not used.
        index = (place + offset).minimum(last).maximum(-past.count.view(b, 1, 1)) + before
        clip = torch.arange(b, device=values.device)
        around = known[clip.view(b, 1, 1), index]
        if not self.kept:
            return around, None
        numbers = torch.arange(before, device=values.device)
        valid = torch.cat((numbers >= before - past.count[:, None], ~padding_mask), dim=1)
        # Stable: frames of the video move to the end and stay in order.
        newest = valid.long().argsort(dim=1, stable=True)[:, -self.kept :]
        count = valid.sum(dim=1).clamp(max=self.kept)
        return around, PastFrames(known[clip[:, None], newest], count)
