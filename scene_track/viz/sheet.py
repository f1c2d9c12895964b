"""Base of the visualisers: collects frames of a validation run for one contact sheet.

How many frames will come is unknown while they come, so they are thinned as they arrive: memory is
bounded, and the frames shown are spread evenly over all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from scene_track.viz.boxes import Frame, contact_sheet

Panel = Callable[[], tuple[Frame, str]]
"""Draws one panel and its caption when the sheet is made; most panels are dropped before."""


class FrameSheet:
    """Keeps up to four times as many panels as the sheet will show."""

    LEGEND: ClassVar[str]

    def __init__(
        self,
        *,
        max_frames: Annotated[int, Field(ge=0)],
        columns: Annotated[int, Field(ge=1)],
        panel_width: Annotated[int, Field(ge=64)],
    ) -> None:
        """Starts empty.

        Args:
            max_frames: frames on the sheet at most; 0 collects none.
            columns: panels beside each other.
            panel_width: width in pixels to which each frame is resized.
        """
        self.max_frames, self.columns, self.panel_width = max_frames, columns, panel_width
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self._kept: list[Panel] = []
        self._offered, self._every = 0, 1

    def __len__(self) -> int:
        """Frames that the sheet would show."""
        return min(len(self._kept), self.max_frames)

    def wanted(self) -> bool:
        """Whether to add the next frame; call it once per frame, before the frame is copied."""
        self._offered += 1
        return self.max_frames > 0 and (self._offered - 1) % self._every == 0

    def keep(self, panel: Panel) -> None:
        """Keeps the panel of a ``wanted`` frame."""
        self._kept.append(panel)
        if len(self._kept) > 4 * self.max_frames:  # every second one goes: even spacing stays
            self._kept = self._kept[::2]
            self._every *= 2

    def picture(self) -> Frame:
        """The contact sheet of the frames so far, ``[H, W, 3]`` uint8 RGB.

        Raises:
            ValueError: no frame was added.
        """
        if not len(self):
            raise ValueError("no frames to show: add_frame was never called")
        last, count = len(self._kept) - 1, len(self)
        chosen = np.linspace(0, last, count).round().astype(int) if count > 1 else [last // 2]
        panels, captions = zip(*(self._kept[n]() for n in chosen), strict=True)
        return contact_sheet(panels, self.columns, captions, header=self.LEGEND)
