"""A few of many pictures, evenly spread, when nobody knows how many will come.

They are thinned as they arrive, so memory stays bounded.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

_Picture = TypeVar("_Picture")


class ThinnedFrames(Generic[_Picture]):
    """Keeps between one and four times as many pictures as are wanted."""

    def __init__(self, wanted: int) -> None:
        """Start empty.

        Args:
            wanted: pictures in the end at most; 0 keeps none.
        """
        self.count = wanted
        self.reset()

    def reset(self) -> None:
        """Forget all."""
        self._kept: list[tuple[_Picture, str]] = []
        self._offered, self._every = 0, 1

    def __len__(self) -> int:
        return min(len(self._kept), self.count)

    def wanted(self) -> bool:
        """Whether the next picture is one to keep; call once per picture, before it is drawn."""
        self._offered += 1
        return self.count > 0 and (self._offered - 1) % self._every == 0

    def add(self, picture: _Picture, caption: str) -> None:
        """Keep a picture that is ``wanted``."""
        self._kept.append((picture, caption))
        # With four times as many as needed, every second one goes: the rest stays evenly spaced.
        if len(self._kept) > 4 * self.count:
            self._kept = self._kept[::2]
            self._every *= 2

    def chosen(self) -> tuple[list[_Picture], list[str]]:
        """The pictures, with their captions."""
        last, count = len(self._kept) - 1, len(self)
        at = np.linspace(0, last, count).round().astype(int) if count > 1 else [last // 2]
        picked = [self._kept[index] for index in at]
        return [picture for picture, _ in picked], [caption for _, caption in picked]
