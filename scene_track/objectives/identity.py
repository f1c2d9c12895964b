"""The identity loss: cross-entropy of the pointer head over all frames of a clip at once.

Each identity of a clip gets a slot; a grid ``[B, slots, T]`` holds its matched detections. The grid
is seen twice: as it is, by the detections that ask "who am I?", and *augmented*, as the memory that
answers. Augmentation is the identity side of denoising (MOTIP, CVPR 2025, section 3.4): tokens
vanish (occlusion), close neighbours swap tokens (identity switches of the past), and confident
unmatched detections enter memory as tracks of one frame. No loop over tracks or frames.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from scene_track.data.batch import SceneBatch
from scene_track.models.identity import PointerIdentity, TrackMemory
from scene_track.models.predictions import ScenePredictions


def identity_slots(track_ids: Tensor) -> Tensor:
    """Number the identities of each clip from 0 in order of first appearance.

    Args:
        track_ids: ``[B, L]`` int64, -1 = no object.

    Returns:
        ``[B, L]`` int64 slot of each entry, -1 = no object.
    """
    known = track_ids >= 0
    length = track_ids.shape[1]
    order = torch.arange(length, device=track_ids.device)
    same = (track_ids.unsqueeze(2) == track_ids.unsqueeze(1)) & known.unsqueeze(1)
    first = torch.where(same, order, length).amin(dim=2).clamp(max=length - 1)
    is_first = (first == order) & known
    number = is_first.long().cumsum(dim=1) - 1
    return number.gather(1, first).masked_fill(~known, -1)


def last_before(present: Tensor) -> Tensor:
    """For each moment the index of the last present one *before* it, or -1: ``[..., T]``."""
    t = present.shape[-1]
    index = torch.where(present, torch.arange(t, device=present.device), -1)
    last = index.cummax(dim=-1).values
    return F.pad(last[..., :-1], (1, 0), value=-1)


class IdentityLoss(nn.Module):
    """Builds tracks from matches, augments them, and scores the pointer head."""

    def __init__(
        self,
        *,
        max_identities: Annotated[int, Field(ge=1)] = 64,
        token_drop: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        span_drop: Annotated[float, Field(ge=0, le=1)] = 0.1,
        switch: Annotated[float, Field(ge=0, le=1)] = 0.05,
        false_positives: Annotated[int, Field(ge=0)] = 2,
        false_positive_score: Annotated[float, Field(ge=0, le=1)] = 0.2,
    ) -> None:
        """Store the strengths of trajectory augmentation.

        Args:
            max_identities: identities per clip that take part; later ones are left out.
            token_drop: probability that a single detection is missing from memory.
            span_drop: probability that an identity is missing from memory for a stretch of the
                clip.
            switch: probability, per frame, that two close identities swap their tokens in memory.
            false_positives: unmatched detections per frame that enter memory as one-frame tracks.
            false_positive_score: existence above which they do.
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
            object sizes), and the share of the clip's detections that point right.
        """
        tokens = head.tokens(predictions.tokens).float()
        boxes = predictions.boxes.detach().float()
        seconds = batch.seconds
        tracks = self._tracks(tokens, boxes, matches, batch)
        extra = self._unmatched(predictions, tokens, boxes, matches)
        return self._point(head, tracks, extra, seconds)

    def _tracks(
        self, tokens: Tensor, boxes: Tensor, matches: Tensor, batch: SceneBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``[B, T, S, width]``, boxes ``[B, T, S, 4]``, presence by identity."""
        b, t, m = matches.shape
        matched = (matches >= 0) & batch.valid & ~batch.padding_mask.unsqueeze(-1)
        ids = torch.where(matched, batch.track_ids, -1)
        slots = identity_slots(ids.flatten(1)).view(b, t, m)
        # The one host sync here: the grid is as wide as the clip with most identities. The matcher
        # has waited for the device before, so little is left to wait for.
        count = min(max(int(slots.max()) + 1, 1), self.max_identities)
        slots = torch.where(slots < count, slots, -1)

        # Grid of matched detections; one slot more takes what is not to be kept.
        query = matches.clamp(min=0).unsqueeze(-1)
        where = torch.where(slots >= 0, slots, count).unsqueeze(-1)
        width = tokens.shape[-1]
        picked = tokens.gather(2, query.expand(-1, -1, -1, width))
        picked_boxes = boxes.gather(2, query.expand(-1, -1, -1, 4))
        grid = tokens.new_zeros(b, t, count + 1, width)
        grid = grid.scatter(2, where.expand(-1, -1, -1, width), picked)[:, :, :count]
        grid_boxes = boxes.new_zeros(b, t, count + 1, 4)
        grid_boxes = grid_boxes.scatter(2, where.expand(-1, -1, -1, 4), picked_boxes)[:, :, :count]
        present = torch.zeros(b, t, count + 1, dtype=torch.bool, device=matches.device)
        return grid, grid_boxes, present.scatter(2, where.squeeze(-1), True)[:, :, :count]

    def _point(
        self,
        head: PointerIdentity,
        tracks: tuple[Tensor, Tensor, Tensor],
        extra: tuple[Tensor, Tensor, Tensor],
        seconds: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Let every detection point at the memory of its moment.

        Args:
            head: the pointer head.
            tracks: tokens ``[B, T, S, width]``, boxes ``[B, T, S, 4]`` and presence ``[B, T, S]``
                of S identities.
            extra: the same of F detections per frame that belong to nobody.
            seconds: ``[B, T]``.
        """
        grid, grid_boxes, present = tracks
        b, t, count = present.shape
        device = present.device
        seen = self._augment(*tracks) if head.training else tracks
        memory, state = self._memory(head, *seen, *extra, seconds)
        asking = torch.cat((grid, extra[0]), dim=2)
        asking_boxes = torch.cat((grid_boxes, extra[1]), dim=2)
        asking_present = torch.cat((present, extra[2]), dim=2)
        logits = head(asking, asking_boxes, seconds.unsqueeze(-1), memory)
        new = logits.shape[-1] - 1
        own = torch.arange(count, device=device).expand(b, t, count)
        target = torch.where(memory.exists[:, :, :count], own, new)
        target = torch.cat((target, target.new_full(extra[2].shape, new)), dim=2)
        counts = asking_present & memory.exists.any(dim=2, keepdim=True)
        loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
        loss = torch.where(counts.flatten(), loss, 0.0).sum()
        right = (logits.argmax(-1) == target) & counts
        accuracy = right.sum() / counts.sum().clamp(min=1)

        # Where each continuing identity should be by now.
        expected = head.expected(memory, seconds.unsqueeze(-1))[:, :, :count]
        size = grid_boxes[..., 2:].clamp(min=1e-3)
        error = torch.cat(
            (
                (expected[..., :2] - grid_boxes[..., :2]) / size,
                (expected[..., 2:].clamp(min=1e-3) / size).log(),
            ),
            dim=-1,
        )
        continuing = (present & memory.exists[:, :, :count]).unsqueeze(-1)
        motion = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=0.2)
        motion = torch.where(continuing, motion, 0.0).sum()
        # An empty clip must still touch every parameter of the head, or DDP waits for it forever.
        touch = 0.0 * (state.sum() + logits.clamp(min=-1).sum() + head.blank.sum())
        return {"identity": loss + touch, "motion": motion}, accuracy

    def _unmatched(
        self, predictions: ScenePredictions, tokens: Tensor, boxes: Tensor, matches: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The most confident unmatched detections of each frame: ``[B, T, F, ...]``."""
        b, t, queries = tokens.shape[:3]
        wanted = min(self.false_positives, queries)
        taken = torch.zeros(b, t, queries + 1, dtype=torch.bool, device=tokens.device)
        taken = taken.scatter(2, torch.where(matches >= 0, matches, queries), True)[..., :queries]
        score = predictions.exist_conf.squeeze(-1).detach().masked_fill(taken, -1.0)
        best, index = score.topk(wanted, dim=2)
        extra = tokens.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, tokens.shape[-1]))
        extra_boxes = boxes.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, 4))
        return extra, extra_boxes, best > self.false_positive_score

    def _augment(
        self, grid: Tensor, boxes: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Memory as it might have gone: tokens missing, stretches missing, neighbours swapped."""
        b, t, s = present.shape
        device = present.device
        keep = torch.rand(b, t, s, device=device) >= self.token_drop
        # A stretch of frames, start and end drawn per identity.
        ends = (torch.rand(b, 2, s, device=device) * (t + 1)).floor().sort(dim=1).values
        moment = torch.arange(t, device=device).view(1, t, 1)
        stretch = (moment >= ends[:, :1]) & (moment < ends[:, 1:])
        hidden = torch.rand(b, 1, s, device=device) < self.span_drop
        present = present & keep & ~(stretch & hidden)
        if s < 2:
            return grid, boxes, present
        # One identity per frame at random, and the one closest to it.
        weights = present.float() + 1e-6
        first = weights.flatten(0, 1).multinomial(1).view(b, t, 1)
        center = boxes[..., :2]
        own = center.gather(2, first.unsqueeze(-1).expand(-1, -1, -1, 2))
        distance = (center - own).square().sum(-1).masked_fill(~present, 1e4)
        second = distance.scatter(2, first, 2e4).argmin(dim=2, keepdim=True)
        swap = torch.rand(b, t, 1, device=device) < self.switch
        order = torch.arange(s, device=device).expand(b, t, s)
        swapped = order.scatter(2, first, second).scatter(2, second, first)
        order = torch.where(swap, swapped, order)
        grid = grid.gather(2, order.unsqueeze(-1).expand_as(grid))
        boxes = boxes.gather(2, order.unsqueeze(-1).expand_as(boxes))
        return grid, boxes, present.gather(2, order)

    @staticmethod
    def _memory(
        head: PointerIdentity,
        grid: Tensor,
        boxes: Tensor,
        present: Tensor,
        extra: Tensor,
        extra_boxes: Tensor,
        extra_present: Tensor,
        seconds: Tensor,
    ) -> tuple[TrackMemory, Tensor]:
        """What each moment remembers: ``[B, T, J, ...]``, J = identities and one-frame tracks."""
        b, t, s, width = grid.shape
        f = extra.shape[2]
        clock = seconds.unsqueeze(1).expand(b, s, t)
        tracks = grid.transpose(1, 2)  # [B, S, T, width]
        track_boxes, track_present = boxes.transpose(1, 2), present.transpose(1, 2)
        state = head.encode(
            tracks.flatten(0, 1),
            track_boxes.flatten(0, 1),
            clock.flatten(0, 1),
            track_present.flatten(0, 1),
        ).view(b, s, t, width)
        last = last_before(track_present)  # [B, S, T]
        index = last.clamp(min=0)

        # One-frame tracks, F per frame: each has a past of one, whenever it is looked at.
        once = head.encode(
            extra.reshape(b * t * f, 1, width),
            extra_boxes.reshape(b * t * f, 1, 4),
            seconds.repeat_interleave(f, dim=1).reshape(b * t * f, 1),
            extra_present.reshape(b * t * f, 1),
        ).view(b, 1, t * f, width)
        born = torch.arange(t, device=grid.device).repeat_interleave(f)
        earlier = born < torch.arange(t, device=grid.device).unsqueeze(1)  # [T, T * F]
        once_boxes = extra_boxes.reshape(b, 1, t * f, 4)
        once_seconds = seconds.repeat_interleave(f, dim=1).unsqueeze(1)
        memory = TrackMemory(
            state=torch.cat(
                (
                    state.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, width)).transpose(1, 2),
                    once.expand(-1, t, -1, -1),
                ),
                dim=2,
            ),
            box=torch.cat(
                (
                    track_boxes.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, 4)).transpose(
                        1, 2
                    ),
                    once_boxes.expand(-1, t, -1, -1),
                ),
                dim=2,
            ),
            seconds=torch.cat(
                (clock.gather(2, index).transpose(1, 2), once_seconds.expand(-1, t, -1)), dim=2
            ),
            exists=torch.cat(
                ((last >= 0).transpose(1, 2), earlier & extra_present.reshape(b, 1, t * f)), dim=2
            ),
        )
        return memory, state
