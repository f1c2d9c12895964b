"""Neighbours of each frame of a clip, the same offline and window by window.

A window of a video knows the frames before it from what the last window left behind, so that a
streamed video gives what one pass gives. Frames after it are not known: there, as at both ends of a
video, the nearest known frame stands in. A frame of padding is nobody's neighbour, also where it
ends a window in the middle of a video (frames that could not be read).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PastFrames:
    """The last frames of each clip, padding left out.

    Attributes:
        values: ``[B, S, ...]`` one per frame, newest last.
        count: ``[B]`` int64; so many of the newest are frames of the video, the others are not.
    """

    values: Tensor
    count: Tensor

    def detach(self) -> PastFrames:
        """The same frames without their graph."""
        return PastFrames(self.values.detach(), self.count)


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
        self, values: Tensor, padding_mask: Tensor, past: PastFrames | None
    ) -> tuple[Tensor, PastFrames | None]:
        """Neighbours of each frame, and what the next window needs.

        Args:
            values: ``[B, T, ...]`` one per frame: pictures or features.
            padding_mask: ``[B, T]`` bool, True = padding, at the end of a clip only.
            past: what the window before returned; None at the start of a video.

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
        # A frame of padding may look anywhere: nobody looks at what comes of it.
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
