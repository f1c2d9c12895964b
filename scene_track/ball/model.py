"""HeatmapModel: a clip to one heatmap per frame.

``frames -> backbone (levels, cls) -> level fusion -> (+ z of the TemporalEncoder, + maps of
earlier frames) -> stages that double the resolution, with fine features of the image -> head``.
Backbone and temporal encoder have the same names as in ``SceneModel``, so that weights of a scene
run can be loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from scene_track.ball.detail import DetailStem
from scene_track.ball.feature_stack import FeatureStack
from scene_track.ball.head import HeatmapHead
from scene_track.ball.level_fusion import LevelFusion
from scene_track.ball.past_frames import PastFrames
from scene_track.ball.upsampling_decoder import UpsamplingDecoder
from scene_track.models.backbones.base import Backbone, BackboneFeatures
from scene_track.models.clip_model import ClipModel
from scene_track.models.predictions import DenoisingQueries, HeatmapPredictions
from scene_track.models.temporal import TemporalEncoder, TemporalState


@dataclass
class HeatmapState:
    """What one window of a video passes to the next one; its size does not grow.

    Attributes:
        temporal: past keys and values of the temporal encoder.
        maps: ``[B, S, D, h, w]`` feature maps of the last frames, without padding.
        frames: ``[B, S, 3, H, W]`` uint8, the last frames, without padding.
    """

    temporal: TemporalState | None
    maps: PastFrames | None
    frames: PastFrames | None

    def detach(self) -> HeatmapState:
        """The same state without its graph."""
        return HeatmapState(
            temporal=None if self.temporal is None else self.temporal.detach(),
            maps=None if self.maps is None else self.maps.detach(),
            frames=self.frames,
        )


class HeatmapModel(ClipModel):
    """One heatmap of the ball per frame."""

    GIVES = "maps"  # compared with the head's READS before a run

    backbone: Backbone  # never None here

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=16, multiple_of=4)],
        backbone: Backbone,
        fusion: Callable[..., LevelFusion],
        decoder: Callable[..., UpsamplingDecoder],
        head: Callable[..., HeatmapHead],
        detail: DetailStem | None,
        stack: FeatureStack | None,
        temporal_encoder: Callable[..., TemporalEncoder] | None,
        fps: Annotated[float, Field(gt=0)],
        compile: bool,
    ) -> None:
        """Assembles the model. Options: see ``conf/model/heatmap.yaml``.

        The callables build their parts given ``dims`` and ``strides`` of the backbone (``fusion``),
        ``input_dim``, ``input_stride`` and ``skips`` (``decoder``), and ``input_dim`` (the others).

        Raises:
            ValueError: the decoder does not fit the backbone, or the fusion has another width.
        """
        super().__init__()
        self.dim, self.fps = dim, fps
        self.backbone = backbone  # pyright: ignore[reportIncompatibleVariableOverride]
        self.identity = None  # there is one ball
        self.fusion = fusion(dims=backbone.dims, strides=backbone.strides)
        if self.fusion.dim != dim:
            raise ValueError(
                f"model.fusion.lateral_dim={self.fusion.dim} is not model.dim={dim}, the width of"
                f" the map for what comes after: type model.dim={self.fusion.dim} alone"
            )
        self.temporal_encoder = (
            None if temporal_encoder is None else temporal_encoder(input_dim=backbone.cls_dim)
        )
        self.stack, self.detail = stack, detail
        self.looks_at_pictures = detail is not None
        self.decoder = decoder(
            input_dim=self.fusion.dim,
            input_stride=self.fusion.stride,
            skips={} if detail is None else detail.dims,
        )
        self.head = head(input_dim=self.decoder.dim)
        if compile:  # in place: names of weights stay
            for part in (self.backbone, self.fusion, self.decoder):
                part.compile()

    def forward(
        self,
        frames: Tensor,
        seconds: Tensor,
        padding_mask: Tensor,
        denoising: DenoisingQueries | None = None,
        state: HeatmapState | None = None,
        features: BackboneFeatures | None = None,
    ) -> tuple[HeatmapPredictions, HeatmapState]:
        """Predicts a clip; see ``ClipModel.forward``.

        Raises:
            ValueError: there are denoising queries.
        """
        if denoising is not None:
            raise ValueError("a heatmap has no queries to denoise: type denoiser=none")
        state = state or HeatmapState(None, None, None)
        shape = frames.shape[:2]
        seen: BackboneFeatures = features or self.backbone(frames.flatten(0, 1))
        x = self.fusion(seen.levels).unflatten(0, shape)
        temporal = maps = past = None
        if self.temporal_encoder is not None:
            z, temporal = self.temporal_encoder(
                seen.cls.unflatten(0, shape), seconds * self.fps, padding_mask, state.temporal
            )
            x = x + z[..., None, None].to(x.dtype)
        if self.stack is not None:
            x, maps = self.stack(x, padding_mask, state.maps)
        fine: dict[int, Tensor] = {}
        if self.detail is not None:
            fine, past = self.detail(frames, padding_mask, state.frames)
        logits = self.head(self.decoder(x.flatten(0, 1), fine))
        predictions = HeatmapPredictions(logits.unflatten(0, shape))
        return predictions, HeatmapState(temporal, maps, past)
