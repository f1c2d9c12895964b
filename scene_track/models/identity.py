"""Identity by pointing: who of the tracks in memory is this detection, or is it new?

The head starts as a classical tracker (``MotionPrior``) and learns what to add. The newest tokens
of each track are encoded causally, with their relative geometry in the attention bias *and* in the
values. The last state corrects the box that the track is expected to have by now. All tracks and
detections of a frame look at each other; then a small MLP scores every pair: from both contents,
from where the detection lies to the last and to the expected box, and from how its likelihood
compares with that of its rivals. Its score and an appearance dot product are added to the
log-likelihood of the prior, both from zero. A softmax over the tracks and "new" gives the answer;
cross-entropy trains it over all frames of a clip at once.

Pointing does not depend on how identities are named, so there is no vocabulary to learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from scene_track.models.arrays import (
    OnArrays,
    at_least,
    at_most,
    between,
    detached,
    float32,
    joined,
    library,
    share,
    unit,
    unpadded,
)
from scene_track.models.motion_prior import (
    MOTION,
    SMALLEST,
    MotionPrior,
    Offset,
    places_of,
)
from scene_track.models.track_layers import (
    GEOMETRY,
    NEVER,
    Interaction,
    TrackEncoderLayer,
    newest,
    relative_geometry,
    take,
)

_NEW = -3.0  # logit of "new" before anything is learned; a good match of the prior has about 9


@dataclass
class TrackMemory:
    """The last state of J tracks, at some moment.

    Attributes:
        state: ``[..., J, D]`` encoded last token.
        motion: ``[..., J, 11]`` what the prior knows of its motion.
        box: ``[..., J, 4]`` last box, cxcywh.
        seconds: ``[..., J]`` when that was.
        exists: ``[..., J]`` bool, False = no such track yet.
    """

    state: Tensor
    motion: Tensor
    box: Tensor
    seconds: Tensor
    exists: Tensor


class TrackRings:
    """The newest K tokens of tracks and their last state, one row a track, for streaming.

    The rings hold what the layers of the encoder remember, so that a new token costs the same
    however long the past is, and the answer is that of training. What is written together lies
    together: the number of small operations is the time of a frame.
    """

    def __init__(self, head: PointerIdentity) -> None:
        """Room for a few tracks, which grows."""
        k, width = head.history, head.norm.normalized_shape[0]
        self.width = width
        self.order = np.arange(k)
        self.count = np.zeros(16, dtype=np.int64)  # tokens so far
        self.past = [np.zeros((16, k, 2 * width), dtype=np.float32) for _ in head.layers]
        self.seen = np.zeros((16, k, 5), dtype=np.float32)  # seconds and places
        # State, motion, box, seconds.
        self.last = np.zeros((16, width + MOTION + 5), dtype=np.float32)

    def reserve(self, rows: int) -> None:
        """Make room for this many tracks."""
        while len(self.count) < rows:
            self.count, self.seen, self.last = map(_doubled, (self.count, self.seen, self.last))
            self.past = list(map(_doubled, self.past))

    def memory(self, rows: NDArray[np.int64]) -> TrackMemory:
        """The tracks in ``rows [J]``, as arrays."""
        last: Any = self.last[rows]
        state, motion, box = self.width, self.width + MOTION, self.width + MOTION + 4
        return TrackMemory(
            state=last[:, :state],
            motion=last[:, state:motion],
            box=last[:, motion:box],
            seconds=last[:, box],
            exists=None,  # type: ignore[arg-type]
        )


def _doubled(store: Any) -> Any:
    return np.concatenate((store, np.zeros_like(store)))


class PointerIdentity(OnArrays):
    """Scores detections against tracks."""

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)],
        width: Annotated[int, Field(ge=16)],
        heads: Annotated[int, Field(ge=1)],
        depth: Annotated[int, Field(ge=1)],
        interaction: Annotated[int, Field(ge=0)],
        appearance: Annotated[int, Field(ge=0)],
        content: bool,
        history: Annotated[int, Field(ge=1)],
        prior_lr_scale: Annotated[float, Field(ge=0)],
        detach: bool,
    ) -> None:
        """Build the head.

        Args:
            dim: width D of the decoder states.
            width: width of the identity tokens.
            heads: attention heads of the track encoder.
            depth: layers of the track encoder.
            interaction: layers in which all tracks and detections of a frame look at each other.
            appearance: channels of the appearance dot product; 0 leaves it out.
            content: tokens say what the decoder saw; False leaves only boxes, times and scores:
                tracking by learned motion alone.
            history: newest tokens of a track that a token of it looks at, in training as in
                streaming.
            prior_lr_scale: factor on the learning rate of the prior's logarithms.
            detach: keep the identity loss out of the detector.

        Raises:
            ValueError: ``width`` is no multiple of ``heads``.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"model.identity.width={width} must be a multiple of heads={heads}")
        self.history, self.detach, self.appearance = history, detach, appearance
        self.prior = MotionPrior(lr_scale=prior_lr_scale)
        # Stands for "a box was here, its looks are unknown".
        self.blank = nn.Parameter(torch.zeros(width))
        self.token = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width)) if content else None
        self.sure = nn.Linear(1, width)
        relation = width // 2
        self.geometry = nn.Sequential(nn.Linear(GEOMETRY, relation), nn.GELU())
        self.layers = nn.ModuleList(TrackEncoderLayer(width, heads, relation) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        # What the prior errs by, in box sizes per second, read off the encoded track.
        self.velocity = _zero(nn.Linear(width, 4))
        self.track_side = nn.Linear(width, width)
        self.detection_side = nn.Linear(width, width)
        self.interaction = nn.ModuleList(Interaction(width, heads) for _ in range(interaction))
        self.relation = nn.Sequential(
            nn.Linear(2 * GEOMETRY + 3, width), nn.GELU(), nn.Linear(width, width)
        )
        self.score = nn.Sequential(
            nn.GELU(), nn.Linear(width, width // 2), nn.GELU(), _zero(nn.Linear(width // 2, 1))
        )
        self.new = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), _zero(nn.Linear(width // 2, 1), _NEW)
        )
        if appearance:
            self.track_look = nn.Linear(width, appearance)
            self.detection_look = nn.Linear(width, appearance)
            self.look_scale = nn.Parameter(torch.tensor(0.0))

    def tokens(self, states: Tensor, scores: Tensor) -> Tensor:
        """Identity tokens ``[..., width]`` of decoder states ``[..., D]`` and scores ``[...]``."""
        sure = self.sure(torch.logit(scores.detach().float(), 1e-3).unsqueeze(-1) / 4)
        if self.token is None:
            return self.blank + sure
        return self.token(states.detach() if self.detach else states) + sure + self.blank

    @property
    def _bias(self) -> Any:
        return joined(*(layer.bias for layer in _typed(self.layers)))

    def _biases(self, relation: Tensor, seen: Tensor) -> list[Tensor]:
        """``[..., H, K]`` of each layer: what the relation adds, and nobody looks at nothing."""
        every = float32(self._bias(relation)).swapaxes(-1, -2)
        every = library(every).where(seen[..., None, :], every, NEVER)
        heads = every.shape[-2] // len(self.layers)
        return [every[..., i * heads : (i + 1) * heads, :] for i in range(len(self.layers))]

    def encode(
        self, tokens: Tensor, boxes: Tensor, seconds: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode tracks causally.

        Args:
            tokens: ``[S, T, width]`` S tracks' tokens over T moments.
            boxes: ``[S, T, 4]``.
            seconds: ``[S, T]``.
            present: ``[S, T]`` bool, False = the track has no token then.

        Returns:
            States ``[S, T, width]`` and motions ``[S, T, 11]``; meaningful where ``present``.
        """
        past, seen = newest(present, min(self.history, tokens.shape[1]))
        places = places_of(boxes)
        old = take(places, past)
        age = (seconds.unsqueeze(-1) - take(seconds, past)).abs()
        relation = self.geometry(relative_geometry(Offset.between(places.unsqueeze(-2), old), age))
        x, biases = tokens, self._biases(relation, seen)
        for layer, bias in zip(_typed(self.layers), biases, strict=True):
            looks = layer.looks(x)
            query, kept = looks[..., : x.shape[-1]], looks[..., x.shape[-1] :]
            x = layer(x, query, take(kept, past), relation, bias)
        return self.norm(x), self.prior.fit(old, age, seen)

    def extend(
        self,
        rings: TrackRings,
        rows: NDArray[np.int64],
        tokens: NDArray[np.float32],
        boxes: NDArray[np.float32],
        seconds: float,
    ) -> None:
        """Append one token to each of the tracks ``rows [N]``: ``encode``, one moment at a time.

        Works on arrays only: called on ``Host(head)``.

        Args:
            rings: the tracks.
            rows: ``[N]`` different ones; a new track has ``rings.count`` 0.
            tokens: ``[N, width]``.
            boxes: ``[N, 4]``.
            seconds: the moment.
        """
        before = rings.count[rows]
        at = before % self.history
        rings.count[rows] = before + 1
        now: Any = np.empty((len(rows), 9), dtype=np.float32)
        now[:, :4], now[:, 4], now[:, 5:] = boxes, seconds, places_of(boxes)  # type: ignore[arg-type]
        rings.seen[rows, at] = now[:, 4:]
        exists: Any = rings.order <= before[:, None]
        seen: Any = rings.seen[rows]
        age, old = abs(seconds - seen[..., 0]), seen[..., 1:]
        relation = self.geometry(relative_geometry(Offset.between(now[:, None, 5:], old), age))
        x: Any = tokens
        biases = self._biases(relation, exists)
        for layer, past, bias in zip(_typed(self.layers), rings.past, biases, strict=True):
            looks = layer.looks(x)
            past[rows, at] = looks[:, rings.width :]
            x = layer(x, looks[:, : rings.width], past[rows], relation, bias)
        motion = self.prior.fit(old, age, exists)
        rings.last[rows] = np.concatenate((self.norm(x), motion, now[:, :5]), -1)

    def expected(self, memory: TrackMemory, seconds: Tensor) -> Tensor:
        """The boxes ``[..., J, 4]`` that the tracks should have at ``seconds [..., 1 or J]``."""
        gap = abs(seconds - memory.seconds)
        place = self._expected(memory, gap, self.velocity(memory.state))
        return library(place).concatenate((place[..., :2], library(place).exp(place[..., 2:])), -1)

    def _expected(self, memory: TrackMemory, gap: Tensor, error: Tensor) -> Tensor:
        """The places ``[..., J, 4]`` after ``gap [..., J]`` s, with what the prior errs by."""
        lib, place = library(gap), self.prior.expected(memory.motion, gap)
        error = float32(error) * at_most(gap, 2)[..., None]
        # Sizes stay within what a box may be, whatever a regression over two noisy boxes says.
        sizes = between(place[..., 2:], -7, 1)
        center = place[..., :2] + error[..., :2] * lib.exp(sizes)
        sizes = at_least(sizes + between(error[..., 2:], -1, 1), math.log(SMALLEST))
        return lib.concatenate((center, sizes), -1)

    def forward(
        self,
        tokens: Tensor,
        boxes: Tensor,
        seconds: Tensor,
        memory: TrackMemory,
        present: Tensor | None = None,
    ) -> Tensor:
        """Point from detections to tracks.

        Args:
            tokens: ``[..., N, width]`` identity tokens of the detections of one moment.
            boxes: ``[..., N, 4]``.
            seconds: ``[..., 1]`` that moment.
            memory: J tracks per moment.
            present: ``[..., N]`` bool, False = padding; None = all are there.

        Returns:
            ``[..., N, J + 1]`` logits; the last column is "new", absent tracks are very unlikely.
        """
        lib, gap = library(boxes), abs(seconds - memory.seconds)
        if present is None and isinstance(boxes, Tensor):
            present = torch.ones_like(boxes[..., 0], dtype=torch.bool)
        error, track = self.velocity(memory.state), self.track_side(memory.state)
        detection = self.detection_side(tokens)
        last, places = places_of(memory.box), places_of(boxes)
        expected = self._expected(memory, gap, error)
        # Where each detection lies to the last and to the expected box of each track.
        both = lib.concatenate((last[..., None, :], expected[..., None, :]), -2)
        offset = Offset.between(places[..., None, None, :], both[..., None, :, :, :])
        where = relative_geometry(offset, gap[..., None, :, None])
        where = where.reshape(*where.shape[:-2], 2 * GEOMETRY)
        prior = self.prior(memory.motion, Offset(*(x[..., 1, :] for x in offset)), gap)
        prior = unpadded(prior, memory.exists, -1, NEVER)
        if self.interaction:
            x = lib.concatenate((track, detection), -2)
            every = lib.concatenate((expected, places), -2)
            gaps = lib.concatenate((gap, boxes[..., 0] * 0 - 1), -1)
            there = memory.exists if present is None else torch.cat((memory.exists, present), -1)
            for layer in self.interaction:
                x = layer(x, every, gaps, there)
            count = track.shape[-2]
            track, detection = x[..., :count, :], x[..., count:, :]
        # What the shares learn must not bend the likelihoods.
        rivalry = _rivalry(detached(prior), present)
        joint = self.relation(lib.concatenate((where, rivalry), -1))
        joint = joint + track[..., None, :, :] + detection[..., None, :]
        logits = prior + float32(self.score(joint))[..., 0]
        if self.appearance:
            look = unit(float32(self.detection_look(tokens)))
            known = unit(float32(self.track_look(memory.state)))
            logits = logits + 5 * self.look_scale * (look @ known.swapaxes(-1, -2))
        logits = unpadded(logits, memory.exists, -1, NEVER)
        return lib.concatenate((logits, float32(self.new(detection))), -1)


def _zero(layer: nn.Linear, bias: float = 0.0) -> nn.Linear:
    """The layer, giving ``bias`` whatever comes in until it has learned something."""
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, bias)
    return layer


def _typed(layers: nn.ModuleList) -> Any:
    """The layers, whose methods a type checker does not know."""
    return layers


def _rivalry(prior: Tensor, present: Any) -> Tensor:
    """``[..., N, J, 3]``: each likelihood, and its share among the tracks and the detections."""
    rows = unpadded(prior, present, -2, NEVER)
    parts = (at_least(prior, -20) / 10, share(prior, -1, _NEW), share(rows, -2, _NEW))
    return library(prior).concatenate([part[..., None] for part in parts], -1)
