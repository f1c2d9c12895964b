"""What a scene head is: the meaning of a decoder query. A head sees D, not a backbone."""

from __future__ import annotations

from torch import Tensor, nn

from scene_track.models.predictions import LayerPredictions


class SceneHead(nn.Module):
    """Base class of heads over decoder queries.

    Attributes:
        num_classes: C.
    """

    READS = "queries"
    num_classes: int

    def forward(self, hidden: Tensor, boxes: Tensor, layer: int) -> LayerPredictions:
        """Read the queries of one decoder layer.

        Args:
            hidden: ``[B, T, Q, D]`` decoder states of this layer.
            boxes: ``[B, T, Q, 4]`` boxes that the decoder refined to.
            layer: which layer, from 0.
        """
        raise NotImplementedError

    def extras(self, hidden: Tensor) -> dict[str, Tensor]:
        """Further outputs, each ``[B, T, Q, ...]``, from the last layer's states."""
        return {}
