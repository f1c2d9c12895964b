"""SceneModel: frames to backbone to queries to whatever the head makes of them.

``frames -> backbone (levels, cls) -> neck -> projection to D -> TemporalEncoder on cls -> z ->
dense proposals -> recurrent temporal-deformable decoder -> head``. The same forward serves clips in
training and a stream of windows: what a window leaves behind for the next is one ``SceneState``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.models.backbones.base import Backbone, BackboneFeatures
from scene_track.models.clip_model import ClipModel
from scene_track.models.decoder import QueryState, SceneDecoder
from scene_track.models.heads.base import SceneHead
from scene_track.models.identity import PointerIdentity
from scene_track.models.neck import FeaturePyramid, group_norm
from scene_track.models.positional import AbsoluteTimeEmbedding, sincos_2d
from scene_track.models.predictions import (
    DenoisingQueries,
    DensePredictions,
    LayerPredictions,
    ScenePredictions,
    join_in_time,
)
from scene_track.models.proposals import DenseProposals
from scene_track.models.temporal import TemporalEncoder, TemporalState


@dataclass
class SceneState:
    """What a window of a video leaves for the next one; its size does not grow.

    Attributes:
        temporal: past keys and values of the temporal encoder.
        queries: the last frame's decoder states.
        clock_start: ``[B, 1]`` s, where the clock of each training clip was started at random; None
            in evaluation.
    """

    temporal: TemporalState | None
    queries: QueryState | None
    clock_start: Tensor | None = None

    def detach(self) -> SceneState:
        """The same state without its graph."""
        return SceneState(
            temporal=None if self.temporal is None else self.temporal.detach(),
            queries=None if self.queries is None else self.queries.detach(),
            clock_start=self.clock_start,
        )


class SceneModel(ClipModel):
    """End-to-end scene model over clips of video."""

    GIVES = "queries"  # what its head reads, for the check before a run

    backbone: Backbone  # never None here

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=16, multiple_of=16)],
        backbone: Backbone,
        proposals: DenseProposals,
        decoder: SceneDecoder,
        head: SceneHead,
        neck: Callable[..., FeaturePyramid],
        temporal_encoder: Callable[..., TemporalEncoder] | None,
        identity: PointerIdentity | None,
        absolute_time: bool,
        detector_frames: Annotated[int, Field(ge=1)] | None,
        fps: Annotated[float, Field(gt=0)],
        time_horizon: Annotated[float, Field(gt=0)],
        compile: bool,
    ) -> None:
        """Assemble the model. Options: see ``conf/model/scene.yaml``.

        ``neck`` builds its part given ``dims`` and ``strides`` of the backbone,
        ``temporal_encoder`` given ``input_dim``. Looking at the frames that do not train the
        detector, for the identity loss, is as in MOTIP (CVPR 2025, section 3.4).
        """
        super().__init__()
        self.dim, self.detector_frames = dim, detector_frames
        self.backbone = backbone  # pyright: ignore[reportIncompatibleVariableOverride]
        self.neck = neck(dims=backbone.dims, strides=backbone.strides)
        self.looks_at_pictures = self.neck.side is not None
        *finer, coarse = self.neck.out_dims
        self.projection = nn.Sequential(nn.Conv2d(coarse, dim, 1), group_norm(dim))
        self.fine = nn.Conv2d(finer[0], dim, 1) if finer else None
        self.temporal_encoder = (
            None if temporal_encoder is None else temporal_encoder(input_dim=backbone.cls_dim)
        )
        self.time_horizon, self.fps = time_horizon, fps
        self.time = AbsoluteTimeEmbedding(dim, fps, time_horizon) if absolute_time else None
        if self.time is not None:
            nn.init.constant_(self.time.scale, 0.05)
        self.proposals = proposals
        self.decoder = decoder
        self.head = head
        self.identity = identity
        if compile:
            self._compile_parts()

    def _compile_parts(self) -> None:
        """Compile what is called with the same shapes again and again, in place.

        Not the whole: between these parts are decisions that depend on the data. The number of
        denoising queries differs from batch to batch, so the layers are compiled for any number.
        """
        self.backbone.compile()
        self.neck.compile()
        for layer in self.decoder.layers:
            layer.compile(dynamic=True)

    @property
    def num_queries(self) -> int:
        """Q, matching queries per frame."""
        return self.decoder.num_queries

    def join(self, parts: list[ScenePredictions]) -> ScenePredictions:
        """See ``ClipModel.join``."""
        return join_in_time(parts)

    def forward(
        self,
        frames: Tensor,
        seconds: Tensor,
        padding_mask: Tensor,
        denoising: DenoisingQueries | None = None,
        state: SceneState | None = None,
        features: BackboneFeatures | None = None,
    ) -> tuple[ScenePredictions, SceneState]:
        """See ``ClipModel.forward``."""
        b, t = frames.shape[:2]
        images = frames.flatten(0, 1)
        seen: BackboneFeatures = features or self.backbone(images)
        normalised = self.backbone.normalise(images) if self.neck.side is not None else None
        *finer, coarse = self.neck(seen.levels, normalised)
        projected = self.projection(coarse)
        clock_start = None if state is None else state.clock_start
        if self.training and clock_start is None:
            # A random start of the clock: a clip must not be recognised by its time of day. Kept in
            # the state, for a clip that comes in several stretches has one clock.
            clock_start = torch.rand(b, 1, device=seconds.device) * self.time_horizon
        clock = seconds if clock_start is None else seconds + clock_start
        z, temporal = self._context(
            seen.cls.unflatten(0, (b, t)), seconds, clock, padding_mask, state
        )
        heat, dense = self.proposals(projected)
        chosen = self.proposals.select(heat, dense, self.decoder.num_queries)
        if self.fine is not None:
            # The decoder alone looks at the finer map: the dense proposals would cost four times
            # as much there.
            fine = self.fine(finer[0])
            projected = fine + F.interpolate(projected.to(fine.dtype), size=fine.shape[-2:])
        h, w = projected.shape[-2:]
        position = sincos_2d(h, w, self.dim, device=projected.device).permute(2, 0, 1)
        keys = (projected + position.to(projected.dtype)).unflatten(0, (b, t))
        decoded, queries = self.decoder(
            keys,
            chosen,
            z,
            seconds,
            ~padding_mask,
            denoising,
            None if state is None else state.queries,
        )
        slots = 0 if denoising is None else denoising.valid.shape[1]
        layers: list[LayerPredictions] = []
        noised: list[LayerPredictions] = []
        for index, (hidden, boxes) in enumerate(zip(decoded.hidden, decoded.boxes, strict=True)):
            hidden, boxes = hidden.unflatten(0, (b, t)), boxes.unflatten(0, (b, t))
            layers.append(self.head(hidden[:, :, slots:], boxes[:, :, slots:], index))
            if slots:
                noised.append(self.head(hidden[:, :, :slots], boxes[:, :, :slots], index))
        tokens = decoded.hidden[-1].unflatten(0, (b, t))[:, :, slots:]
        last = layers[-1]
        predictions = ScenePredictions(
            bbox_center=last.boxes[..., :2],
            bbox_size=last.boxes[..., 2:],
            exist_conf=last.exist_logits.sigmoid(),
            cls_logits=last.cls_logits,
            tokens=tokens,
            layers=layers,
            dense=DensePredictions(heat.unflatten(0, (b, t)), dense.unflatten(0, (b, t))),
            denoising=noised,
            denoising_queries=denoising,
            extras=self.head.extras(tokens),
            levels=seen.levels,
        )
        return predictions, SceneState(temporal, queries, clock_start)

    def _context(
        self,
        cls: Tensor,
        seconds: Tensor,
        clock: Tensor,
        padding_mask: Tensor,
        state: SceneState | None,
    ) -> tuple[Tensor, TemporalState | None]:
        """``[B, T, D]`` context of each frame, and what the temporal encoder hands on."""
        z = torch.zeros(*cls.shape[:2], self.dim, device=cls.device)
        temporal = None
        if self.temporal_encoder is not None:
            z, temporal = self.temporal_encoder(
                cls, seconds * self.fps, padding_mask, None if state is None else state.temporal
            )
        if self.time is not None:
            z = z + self.time(clock)
        return z, temporal
