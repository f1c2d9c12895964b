"""Learning rate and weight decay of every parameter; the groups are disjoint and complete.

Frozen parameters are included: a backbone that thaws in epoch 3 must be in the optimiser in epoch
0, otherwise it never trains. The optimiser skips parameters without a gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from scene_track.models.motion_prior import MotionPrior
from scene_track.training.freezing import backbone_of

log = logging.getLogger(__name__)

BACKBONE = "model.backbone"


def decays(owner: nn.Module, leaf: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: only to matrices that multiply activations.

    Not to biases, 1-D parameters, norms, embeddings, and bare parameters such as tokens, learned
    queries and position tables.
    """
    free = isinstance(owner, nn.Embedding | nn.EmbeddingBag) or "Norm" in type(owner).__name__
    return parameter.ndim >= 2 and "weight" in leaf and not free


def build_parameter_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    backbone_lr_scale: float,
    lr_scales: Mapping[str, float],
    layer_decay: float,
) -> list[dict[str, Any]]:
    """Split all parameters of ``module`` into optimiser groups.

    Args:
        module: usually the LightningModule; its backbone lives at ``model.backbone``.
        lr: base learning rate.
        weight_decay: decay of the parameters that ``decays`` names; 0 for all others.
        backbone_lr_scale: factor on the rate of ``model.backbone``.
        lr_scales: factor per dotted prefix, such as ``{"model.decoder": 0.5}``; the longest
            matching prefix wins, also inside the backbone, and replaces a shorter one's factor. A
            motion prior brings a factor of its own.
        layer_decay: the last stage of the backbone has its rate as above, and every stage before
            it this times the rate of the next (layer-wise decay; Clark et al., ELECTRA, ICLR 2020;
            BEiT, ICLR 2022); 1 = all alike.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name`` (``<prefix>/decay`` or
        ``<prefix>/no_decay``, with layer-wise decay ``<prefix>[<stage>]/...``), in order of first
        appearance; empty groups are left out.

    Raises:
        ValueError: a prefix matches no parameter, or the module has none; or layer-wise decay
            without a backbone.
    """
    owners = dict(module.named_modules())
    own = {name: part.lr_scale for name, part in owners.items() if isinstance(part, MotionPrior)}
    scales = {BACKBONE: backbone_lr_scale, **own, **lr_scales}
    depth = _depths(module, layer_decay)
    groups: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter in module.named_parameters():
        path, _, leaf = name.rpartition(".")
        prefix = max(
            (p for p in scales if (name + ".").startswith(p + ".")), key=len, default="base"
        )
        used.add(prefix)
        decay = decays(owners[path], leaf, parameter)
        stage, scale = depth.get(id(parameter), ("", 1.0))
        key = f"{prefix}{stage}/{'decay' if decay else 'no_decay'}"
        if key not in groups:
            rate = lr * scales.get(prefix, 1.0) * scale
            groups[key] = {"params": [], "lr": rate, "name": key}
            groups[key]["weight_decay"] = weight_decay if decay else 0.0
        groups[key]["params"].append(parameter)
    unmatched = [prefix for prefix in lr_scales if prefix not in used]
    if BACKBONE not in used and backbone_lr_scale != 1.0:
        unmatched.append(f"{BACKBONE} (optimizer.backbone_lr_scale={backbone_lr_scale:g})")
    if unmatched:
        known = sorted({".".join(name.split(".")[:2]) for name, _ in module.named_parameters()})
        raise ValueError(
            f"optimizer.lr_scales: no parameter below {', '.join(unmatched)};"
            f" there are {', '.join(known)}"
        )
    if not groups:
        raise ValueError(f"{type(module).__name__} has no parameters to optimise")
    result = list(groups.values())
    log.info("parameter groups:\n%s", parameter_table(result))
    return result


def _depths(module: nn.Module, layer_decay: float) -> dict[int, tuple[str, float]]:
    """Stage and factor on the rate of each of the backbone's parameters, by ``id``."""
    if layer_decay == 1.0:
        return {}
    backbone = backbone_of(module)
    if backbone is None:
        raise ValueError(
            f"optimizer.layer_decay={layer_decay:g} goes by the stages of a backbone, and the model"
            " has none: type optimizer.layer_decay=1"
        )
    stages = backbone.stages()
    return {
        id(parameter): (f"[{stage.name}]", layer_decay ** (len(stages) - 1 - index))
        for index, stage in enumerate(stages)
        for parameter in stage.parameters()
    }


def parameter_table(groups: Sequence[Mapping[str, Any]]) -> str:
    """One line per group: name, rate, decay, tensors, parameters, how many are frozen now."""
    width = max(len(group["name"]) for group in groups)
    row = f"{{:<{width}}}  {{:>9}}  {{:>7}}  {{:>7}}  {{:>12}}  {{}}"
    lines = [row.format("group", "lr", "decay", "tensors", "parameters", "frozen")]
    for group in groups:
        numbers = [(p.numel(), p.numel() * (not p.requires_grad)) for p in group["params"]]
        count, frozen = map(sum, zip(*numbers, strict=True))
        rates = f"{group['lr']:.3g}", f"{group['weight_decay']:.3g}"
        lines.append(row.format(group["name"], *rates, len(numbers), f"{count:,}", f"{frozen:,}"))
    return "\n".join(lines)


def base_groups(optimizers: Iterable[Optimizer]) -> list[dict[str, Any]]:
    """The groups whose rate is that of a run: without the parts that have one of their own.

    All groups where an optimizer has other names.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [group for group in groups if group.get("name", "").startswith("base/")] or groups
