"""Builds the optimiser of ``conf/optimizer``.

The fused kernel is used on a CPU as well. The default there is a Python loop over tensors, which
costs several milliseconds per step on a model of a few million parameters.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from scene_track.training.parameter_groups import build_parameter_groups


def adamw(
    module: nn.Module,
    *,
    lr: Annotated[float, Field(gt=0, le=1)],
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)],
    weight_decay: Annotated[float, Field(ge=0, lt=1)],
    eps: Annotated[float, Field(gt=0, le=1e-3)],
    backbone_lr_scale: Annotated[
        float,
        Field(
            gt=0,
            description="a rate of 0 would leave batch norms moving; to freeze the backbone"
            " type model.backbone.freeze=true",
        ),
    ],
    lr_scales: dict[str, Annotated[float, Field(ge=0)]],
    layer_decay: Annotated[float, Field(gt=0, le=1)],
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019); ``conf/optimizer/adamw.yaml`` explains it."""
    groups = build_parameter_groups(
        module,
        lr=lr,
        weight_decay=weight_decay,
        backbone_lr_scale=backbone_lr_scale,
        lr_scales=lr_scales,
        layer_decay=layer_decay,
    )
    first, second = betas
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(first, second), eps=eps, fused=True)
    # A fused optimiser announces that it unscales fp16 gradients itself, and Lightning then refuses
    # to clip them. Without the announcement the scaler unscales first.
    optimizer._step_supports_amp_scaling = False
    optimizer.register_load_state_dict_post_hook(_align_state)
    return optimizer


def _align_state(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded running means the memory layout of their parameters.

    The fused kernel ignores strides: with a channels_last parameter and a state that is not, it
    pairs wrong elements without an error.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
