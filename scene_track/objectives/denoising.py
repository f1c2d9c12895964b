"""Contrastive denoising queries (DINO, Zhang et al., ICLR 2023), made without a loop over targets.

Each real box enters the decoder twice per group: slightly moved and relabelled, to be
reconstructed, and strongly moved, to be called background. Special here: everything is laid out in
the padded slots of the batch from the start, so there is no host sync at all, and padding slots are
marked, where the original lets real slots attend to them and trains them as background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from scene_track.models.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from scene_track.models.predictions import DenoisingQueries

# DINO's inverse_sigmoid keeps this distance from 0 and 1, so anchors stay within +-6.9.
_LOGIT_EPS = 1e-3


@dataclass
class NoiseDraws:
    """The random numbers of one batch of denoising queries, in the layout of its slots.

    Attributes:
        flip: ``[N, K]`` uniform in [0, 1); the label flips below ``label_noise_ratio / 2``.
        label: ``[N, K]`` int64 uniform class that a flipped slot takes.
        sign: ``[N, K, 4]`` -1 or 1, the direction of each corner coordinate.
        amount: ``[N, K, 4]`` uniform in [0, 1), how far each corner coordinate moves.
    """

    flip: Tensor
    label: Tensor
    sign: Tensor
    amount: Tensor


class ContrastiveDenoiser(nn.Module):
    """Makes denoising queries from padded ground truth and owns their label embedding.

    The weight of the denoising loss, ``lambda_dn``, is read by the criterion. With ``lambda_dn`` 0
    the caller does not call the denoiser, which leaves exactly the plain model: the embedding is
    initialised outside the global random stream and takes no gradient then, so neither the other
    weights, nor the optimiser, nor a distributed reducer sees a difference.

    Attributes:
        lambda_dn: weight of the denoising loss, >= 0.
        label_embedding: ``num_classes + 1`` rows of width ``dim``. The last row is DN-DETR's
            "unknown" label; as in DINO it exists and is not used.
    """

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        num_classes: Annotated[int, Field(gt=0)],
        dn_number: Annotated[int, Field(ge=1)],
        label_noise_ratio: Annotated[float, Field(ge=0, le=2)],
        box_noise_scale: Annotated[float, Field(ge=0)],
        lambda_dn: Annotated[float, Field(ge=0)],
    ) -> None:
        """Set the strength of the noise. Options: see ``conf/denoiser/dino.yaml``.

        ``dn_number`` is DINO's, with its quirk (see ``num_groups``). DINO's own configuration says
        ``box_noise_scale`` 0.4; 0 leaves boxes alone, negatives too.
        """
        super().__init__()
        self.num_classes = num_classes
        self.dn_number = dn_number
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale
        self.lambda_dn = lambda_dn
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            self.label_embedding = nn.Embedding(num_classes + 1, dim)
        if lambda_dn == 0:
            self.label_embedding.requires_grad_(False)

    def num_groups(self, max_objects: int) -> int:
        """Groups of (positive, negative) that DINO makes for up to ``max_objects`` boxes a frame.

        With d = 2 * ``dn_number``: d >= 100 is a budget, ``d // (2 * max_objects)`` groups and at
        least one; below 100 the original reads d itself as the number of groups (a quirk: 49 with
        15 boxes means 98 groups, 2,940 slots; 1 means two groups). Without boxes, one group.
        """
        doubled = 2 * self.dn_number
        if max_objects == 0:
            return 1
        if doubled >= 100:
            return max(1, doubled // (2 * max_objects))
        return doubled

    def draw(
        self,
        frames: int,
        slots: int,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> NoiseDraws:
        """Draw fresh noise for ``[N, K]`` slots; generator None = the global one."""
        shape = (frames, slots)
        sign = torch.randint(0, 2, (*shape, 4), device=device, generator=generator)
        return NoiseDraws(
            flip=torch.rand(shape, device=device, generator=generator),
            label=torch.randint(0, self.num_classes, shape, device=device, generator=generator),
            sign=sign.float() * 2 - 1,
            amount=torch.rand((*shape, 4), device=device, generator=generator),
        )

    def forward(
        self,
        boxes: Tensor,
        labels: Tensor,
        valid: Tensor,
        num_queries: int,
        *,
        generator: torch.Generator | None = None,
        draws: NoiseDraws | None = None,
    ) -> DenoisingQueries:
        """Make the denoising queries of a batch.

        Slots come in blocks of M: positives of group 0, negatives of group 0, positives of group 1
        and so on. Slot m of a block is made from target m of its frame, so M, the padded width of
        the batch, takes the part of DINO's "most boxes in any image": they are the same number
        where padding goes to the longest frame of the batch, and reading M waits for no device.

        A batch without any object still gives slots, all of them padding, whose content hangs on
        the label embedding with a zero gradient: under DDP every process must touch every
        parameter, or the others wait forever. With M = 0 there is one such slot of either sign.

        Args:
            boxes: ``[N, M, 4]`` cxcywh, 0-1 of the canvas.
            labels: ``[N, M]`` int64 below ``num_classes`` where valid.
            valid: ``[N, M]`` bool, True = a real object.
            num_queries: Q, the matching queries that follow the slots in the decoder.
            generator: source of randomness; None = the global one.
            draws: noise to use instead of drawing, for replay.

        Returns:
            K = 2 * groups * max(M, 1) slots; padding slots have zero content and zero logits.
        """
        frames, objects = valid.shape
        groups = self.num_groups(objects)
        if objects == 0:
            boxes, labels = boxes.new_zeros(frames, 1, 4), labels.new_zeros(frames, 1)
            valid = valid.new_zeros(frames, 1)
            objects = 1
        blocks = 2 * groups
        slots = blocks * objects
        device = boxes.device
        if draws is None:
            draws = self.draw(frames, slots, device, generator)

        slot_valid = valid.repeat(1, blocks)
        slot = torch.arange(slots, device=device)
        negative = (slot // objects) % 2 == 1
        slot_labels = self._noisy_labels(labels.masked_fill(~valid, 0).repeat(1, blocks), draws)
        content = self.label_embedding(slot_labels)
        logits = self._noisy_logits(boxes.float().repeat(1, blocks, 1), negative, draws)
        keep = slot_valid.unsqueeze(-1)
        return DenoisingQueries(
            content=torch.where(keep, content, 0.0),
            boxes=torch.where(keep, logits, 0.0),
            valid=slot_valid,
            attention_mask=_attention_mask(slot // (2 * objects), num_queries),
            target_index=(slot % objects).expand(frames, slots),
            positive=slot_valid & ~negative,
        )

    def _noisy_labels(self, labels: Tensor, draws: NoiseDraws) -> Tensor:
        return torch.where(draws.flip < self.label_noise_ratio / 2, draws.label, labels)

    def _noisy_logits(self, boxes: Tensor, negative: Tensor, draws: NoiseDraws) -> Tensor:
        if self.box_noise_scale > 0:  # the clamp below would cut boxes that nobody asked to move
            half = boxes[..., 2:] / 2
            amount = (draws.amount + negative.view(-1, 1)) * draws.sign
            corners = cxcywh_to_xyxy(boxes) + amount * half.repeat(1, 1, 2) * self.box_noise_scale
            boxes = xyxy_to_cxcywh(corners.clamp(0, 1))
        return inverse_sigmoid(boxes, eps=_LOGIT_EPS)


def _attention_mask(group: Tensor, num_queries: int) -> Tensor:
    """``[K + Q, K + Q]``, True = blocked: groups are blind to each other, queries to all groups."""
    slots = group.shape[0]
    mask = torch.zeros(
        slots + num_queries, slots + num_queries, dtype=torch.bool, device=group.device
    )
    mask[:slots, :slots] = group.unsqueeze(1) != group.unsqueeze(0)
    mask[slots:, :slots] = True
    return mask


def no_denoiser(*, lambda_dn: Annotated[float, Field(ge=0, le=0)]) -> None:
    """The plain model: ``denoiser=none``; ``cfg.denoiser.lambda_dn`` exists whatever the group.

    Raises:
        ValueError: ``lambda_dn`` is not 0.
    """
    if lambda_dn != 0:
        raise ValueError(
            f"denoiser.lambda_dn is {lambda_dn}, but denoiser=none has no loss to weigh;"
            " expected 0, or choose denoiser=dino"
        )
