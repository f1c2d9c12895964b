"""What every model is to the rest of the framework: clips in, predictions out, a state to go on.

The module that trains, the loop that streams a video and ``init_from`` know this class alone.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from scene_track.models.backbones.base import Backbone, BackboneFeatures
from scene_track.models.identity import PointerIdentity
from scene_track.models.predictions import DenoisingQueries


class ModelState(Protocol):
    """What a window of a video leaves for the next one; its size does not grow."""

    def detach(self) -> Any:
        """The same state without its graph."""
        ...


class ClipModel(nn.Module):
    """Base class of models over clips of video.

    Attributes:
        backbone: what is frozen, thawed and transferred; None in a model that sees no images.
        identity: pointer head that tells objects apart; None where nobody is to be told apart.
        detector_frames: frames of a training clip that train the model; the others are looked at
            without gradient, for losses over the whole clip. None = all.
        looks_at_pictures: whether anything besides the backbone does; then stored features do not
            stand for images.
    """

    READS: ClassVar[str] = "images"
    """What it is given, ``images`` or ``detections``; compared with the data before a run."""

    backbone: Backbone | None
    identity: PointerIdentity | None
    detector_frames: int | None = None
    looks_at_pictures: bool = False

    @property
    def num_queries(self) -> int:
        """Q, matching queries per frame; 0 in a model without queries."""
        return 0

    def gradient_frames(self, length: int) -> range:
        """Frames of a training clip that are run with gradient; the others only fill memory.

        One random interval of ``detector_frames`` frames for the whole batch: its clips go through
        the model together.
        """
        wanted = self.detector_frames
        if wanted is None or wanted >= length:
            return range(length)
        start = int(torch.randint(length - wanted + 1, ()))
        return range(start, start + wanted)

    def forward(
        self,
        frames: Tensor,
        seconds: Tensor,
        padding_mask: Tensor,
        denoising: DenoisingQueries | None = None,
        state: Any = None,
        features: BackboneFeatures | None = None,
    ) -> tuple[Any, ModelState]:
        """Predict a clip.

        Args:
            frames: ``[B, T, 3, H, W]`` uint8, or ``[B, T, Q, 5]`` detections (``READS``).
            seconds: ``[B, T]`` time of each frame since the start of its video.
            padding_mask: ``[B, T]`` bool, True = padding.
            denoising: noised ground truth, for a model with queries; None outside training.
            state: what the window before this one left, when a video is streamed.
            features: of the B x T frames, where they are known already; None asks the backbone.

        Returns:
            Predictions, and the state for the next window.
        """
        raise NotImplementedError

    def join(self, parts: list[Any]) -> Any:
        """Predictions of consecutive stretches of a clip as those of the whole.

        Only a model with ``detector_frames`` is asked.
        """
        raise NotImplementedError
