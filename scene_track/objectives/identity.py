"""The identity loss: cross-entropy of the pointer head over all frames of a clip at once.

The head itself is ``scene_track/models/identity.py``. Each identity of a clip gets a column in a
grid of its matched detections. The grid is used twice: as it is, each detection asks "which track
am I?"; *augmented*, it is the memory that answers. Augmentation is the identity side of denoising
(MOTIP, CVPR 2025, section 3.4): tokens are dropped (occlusion), overlapping neighbours swap tokens
(past identity switches), and confident unmatched detections enter memory as tracks of one frame.
There is no loop over tracks or frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.data.batch import SceneBatch
from scene_track.models.boxes import elementwise_iou
from scene_track.models.identity import PointerIdentity, TrackMemory
from scene_track.models.motion_prior import MOTION
from scene_track.models.predictions import ScenePredictions
from scene_track.objectives.losses import mostly_inside, pick

# Frames for which a false detection stays in memory: the cost of a clip grows with its length, not
# with the square of it.
_FALSE_FRAMES = 4
_TOUCHING = 0.1  # IoU from which two people may be taken for each other


def identity_slots(track_ids: Tensor) -> Tensor:
    """Number the identities of each clip from 0 in order of first appearance.

    Takes and gives ``[B, L]`` int64, -1 = no object.
    """
    known = track_ids >= 0
    order = torch.arange(track_ids.shape[1], device=track_ids.device)
    # Equal identities stand side by side once sorted, the first appearance first: no [L, L] table.
    ids, places = track_ids.sort(dim=1, stable=True)
    begins = F.pad(ids[:, 1:] != ids[:, :-1], (1, 0), value=True)
    run = torch.where(begins, order, 0).cummax(dim=1).values
    first = torch.zeros_like(places).scatter(1, places, places.gather(1, run))
    is_first = (first == order) & known
    number = is_first.long().cumsum(dim=1) - 1
    return number.gather(1, first).masked_fill(~known, -1)


@dataclass(frozen=True)
class TrackGrid:
    """Detections of S identities, or of S detections per frame that belong to no identity.

    Attributes:
        tokens: ``[B, T, S, width]`` identity tokens.
        boxes: ``[B, T, S, 4]`` cxcywh.
        present: ``[B, T, S]`` bool, False = no detection in that frame.
    """

    tokens: Tensor
    boxes: Tensor
    present: Tensor


def last_before(present: Tensor) -> Tensor:
    """Index of the last present frame *before* each frame, or -1: ``[..., T]`` of ``[..., T]``."""
    t = present.shape[-1]
    index = torch.where(present, torch.arange(t, device=present.device), -1)
    last = index.cummax(dim=-1).values
    return F.pad(last[..., :-1], (1, 0), value=-1)


class IdentityLoss(nn.Module):
    """Builds tracks from matches, augments them, and scores the pointer head."""

    def __init__(
        self,
        *,
        max_identities: Annotated[int, Field(ge=1)],
        token_drop: Annotated[float, Field(ge=0, lt=1)],
        span_drop: Annotated[float, Field(ge=0, le=1)],
        switch: Annotated[float, Field(ge=0, le=1)],
        false_positives: Annotated[int, Field(ge=0)],
        false_positive_score: Annotated[float, Field(ge=0, le=1)],
    ) -> None:
        """Store the strengths of trajectory augmentation.

        Options: see ``conf/head/criterion/identity/shared.yaml``. False positives enter as
        one-frame tracks.
        """
        super().__init__()
        self.max_identities = max_identities
        self.token_drop, self.span_drop, self.switch = token_drop, span_drop, switch
        self.false_positives = false_positives
        self.false_positive_score = false_positive_score

    def forward(
        self,
        head: PointerIdentity,
        predictions: ScenePredictions,
        matches: Tensor,
        batch: SceneBatch,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            head: the pointer head.
            predictions: of the clip.
            matches: ``[B, T, M]`` query of each object or -1.
            batch: the ground truth.

        Returns:
            Sums ``identity`` (cross-entropy) and ``motion`` (smooth L1 of the expected boxes, in
            object sizes), and the share of the clip's detections that point to the right track.
        """
        tokens = head.tokens(predictions.tokens, predictions.exist_conf.squeeze(-1)).float()
        boxes = predictions.boxes.detach().float()
        seconds = batch.seconds
        tracks = self._tracks(tokens, boxes, matches, batch)
        extra = self._unmatched(predictions, tokens, boxes, matches, batch)
        seen = self._augment(tracks) if head.training else tracks
        memory, state = _memory(head, seen, extra, seconds)
        count = tracks.present.shape[2]
        known = memory.exists[:, :, :count]

        asking = torch.cat((tracks.tokens, extra.tokens), dim=2)
        asking_boxes = torch.cat((tracks.boxes, extra.boxes), dim=2)
        asking_present = torch.cat((tracks.present, extra.present), dim=2)
        logits = head(asking, asking_boxes, seconds.unsqueeze(-1), memory, asking_present)
        new = logits.shape[-1] - 1
        own = torch.arange(count, device=logits.device).expand_as(known)
        target = torch.where(known, own, new)
        target = torch.cat((target, target.new_full(extra.present.shape, new)), dim=2)
        counts = asking_present & memory.exists.any(dim=2, keepdim=True)
        loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
        loss = torch.where(counts.flatten(), loss, 0.0).sum()
        right = (logits.argmax(-1) == target) & counts
        accuracy = right.sum() / counts.sum().clamp(min=1)

        expected = head.expected(memory, seconds.unsqueeze(-1))[:, :, :count]
        motion = _motion(expected, tracks.boxes, tracks.present & known)
        # An empty clip must still touch every parameter of the head, or DDP waits for it forever.
        touch = 0.0 * (state.sum() + logits.clamp(min=-1).sum() + head.blank.sum())
        return {"identity": loss + touch, "motion": motion}, accuracy

    def _tracks(
        self, tokens: Tensor, boxes: Tensor, matches: Tensor, batch: SceneBatch
    ) -> TrackGrid:
        """The matched detections by identity."""
        b, t, m = matches.shape
        matched = (matches >= 0) & batch.valid & ~batch.padding_mask.unsqueeze(-1)
        ids = torch.where(matched, batch.track_ids, -1)
        slots = identity_slots(ids.flatten(1)).view(b, t, m)
        # The one host sync here: the grid is as wide as the clip with most identities. The matcher
        # has waited for the device before, so little is left to wait for.
        count = min(max(int(slots.max()) + 1, 1), self.max_identities)
        # One slot more takes what is not to be kept.
        where = torch.where((slots >= 0) & (slots < count), slots, count)

        def to_grid(values: Tensor) -> Tensor:
            width = values.shape[-1]
            grid = values.new_zeros(b, t, count + 1, width)
            index = where.unsqueeze(-1).expand(-1, -1, -1, width)
            return grid.scatter(2, index, pick(values, matches.clamp(min=0)))[:, :, :count]

        present = torch.zeros(b, t, count + 1, dtype=torch.bool, device=matches.device)
        return TrackGrid(
            tokens=to_grid(tokens),
            boxes=to_grid(boxes),
            present=present.scatter(2, where, True)[:, :, :count],
        )

    def _unmatched(
        self,
        predictions: ScenePredictions,
        tokens: Tensor,
        boxes: Tensor,
        matches: Tensor,
        batch: SceneBatch,
    ) -> TrackGrid:
        """The most confident unmatched detections of each true frame, outside ignored regions."""
        b, t, queries = tokens.shape[:3]
        wanted = min(self.false_positives, queries)
        taken = torch.zeros(b, t, queries + 1, dtype=torch.bool, device=tokens.device)
        taken = taken.scatter(2, torch.where(matches >= 0, matches, queries), True)[..., :queries]
        taken = taken | mostly_inside(boxes, batch.boxes, batch.ignored)
        taken = taken | batch.padding_mask.unsqueeze(-1)
        score = predictions.exist_conf.squeeze(-1).detach().masked_fill(taken, -1.0)
        best, index = score.topk(wanted, dim=2)
        return TrackGrid(
            tokens=pick(tokens, index),
            boxes=pick(boxes, index),
            present=best > self.false_positive_score,
        )

    def _augment(self, tracks: TrackGrid) -> TrackGrid:
        """Memory with errors: single tokens and spans missing, overlapping ones swapped."""
        present = tracks.present
        b, t, s = present.shape
        device = present.device
        keep = torch.rand(b, t, s, device=device) >= self.token_drop
        # The first and the last frame of a span, drawn per identity.
        ends = (torch.rand(b, 2, s, device=device) * (t + 1)).floor().sort(dim=1).values
        frame = torch.arange(t, device=device).view(1, t, 1)
        span = (frame >= ends[:, :1]) & (frame < ends[:, 1:])
        hidden = torch.rand(b, 1, s, device=device) < self.span_drop
        present = present & keep & ~(span & hidden)
        if s < 2:
            return TrackGrid(tracks.tokens, tracks.boxes, present)
        # One identity per frame at random, and the one that covers it most.
        weights = present.float() + 1e-6
        first = weights.flatten(0, 1).multinomial(1).view(b, t, 1)
        box = tracks.boxes.gather(2, first.unsqueeze(-1).expand(b, t, 1, 4))
        overlap = elementwise_iou(tracks.boxes, box).masked_fill(~present, 0.0)
        overlap, second = overlap.scatter(2, first, -1.0).max(dim=2, keepdim=True)
        # People who do not touch are not mixed up.
        swap = (torch.rand(b, t, 1, device=device) < self.switch) & (overlap > _TOUCHING)
        order = torch.arange(s, device=device).expand(b, t, s)
        swapped = order.scatter(2, first, second).scatter(2, second, first)
        order = torch.where(swap, swapped, order)
        return TrackGrid(
            tokens=pick(tracks.tokens, order),
            boxes=pick(tracks.boxes, order),
            present=present.gather(2, order),
        )


def _motion(expected: Tensor, boxes: Tensor, counts: Tensor) -> Tensor:
    """Sum of the smooth L1 errors of expected boxes ``[..., 4]`` in object sizes, where counted."""
    size = boxes[..., 2:].clamp(min=1e-3)
    center = (expected[..., :2] - boxes[..., :2]) / size
    error = torch.cat((center, (expected[..., 2:].clamp(min=1e-3) / size).log()), dim=-1)
    loss = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=0.2)
    return torch.where(counts.unsqueeze(-1), loss, 0.0).sum()


def _memory(
    head: PointerIdentity, tracks: TrackGrid, extra: TrackGrid, seconds: Tensor
) -> tuple[TrackMemory, Tensor]:
    """What each frame remembers of the frames before it.

    Returns:
        ``[B, T, J, ...]`` memory of J = S identities and the one-frame tracks of the last few
        frames, and the encoded states of all frames ``[B, S, T, width]``.
    """
    b, t, s, width = tracks.tokens.shape
    f = extra.present.shape[2]
    clock = seconds.unsqueeze(1).expand(b, s, t)
    boxes, present = tracks.boxes.transpose(1, 2), tracks.present.transpose(1, 2)
    state, motion = head.encode(
        tracks.tokens.transpose(1, 2).flatten(0, 1),
        boxes.flatten(0, 1),
        clock.flatten(0, 1),
        present.flatten(0, 1),
    )
    state, motion = state.view(b, s, t, width), motion.view(b, s, t, MOTION)
    last = last_before(present)  # [B, S, T]
    index = last.clamp(min=0)

    # One-frame tracks, F per frame: each has a past of one, whenever it is asked.
    once, rest = head.encode(
        extra.tokens.reshape(b * t * f, 1, width),
        extra.boxes.reshape(b * t * f, 1, 4),
        seconds.repeat_interleave(f, dim=1).reshape(b * t * f, 1),
        extra.present.reshape(b * t * f, 1),
    )

    def beside(of_tracks: Tensor, of_extra: Tensor) -> Tensor:
        """``[B, S, T, ...]`` of the identities beside ``[B, T, F, ...]`` of the frames before."""
        earlier = [of_extra.roll(step, 1) for step in range(1, _FALSE_FRAMES + 1)]
        return torch.cat((of_tracks.transpose(1, 2), *earlier), dim=2)

    ages = torch.arange(t, device=seconds.device).view(1, t, 1)
    exists = [last.transpose(1, 2) >= 0] + [
        extra.present.roll(step, 1) & (ages >= step) for step in range(1, _FALSE_FRAMES + 1)
    ]
    memory = TrackMemory(
        state=beside(pick(state, index), once.view(b, t, f, width)),
        motion=beside(pick(motion, index), rest.view(b, t, f, MOTION)),
        box=beside(pick(boxes, index), extra.boxes),
        seconds=beside(clock.gather(2, index), seconds.unsqueeze(2).expand(b, t, f)),
        exists=torch.cat(exists, dim=2),
    )
    return memory, state
