"""Chooses the precision of training and scoring by what the device computes natively.

PyTorch accepts bf16 everywhere, but without native instructions it is slower than fp32.
"""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively (AVX-512 BF16 or AMX)."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    has_avx = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return bool(has_amx or has_avx)


def resolve_precision(precision: str, accelerator: str) -> str:
    """The precision to train with on an accelerator (``cpu``, ``gpu`` or ``auto``).

    ``auto`` is bf16-mixed where it is native, else 32-true; so is ``16-mixed`` on a CPU, with a
    warning.

    Raises:
        ValueError: ``precision`` is none of ``PRECISIONS``.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"trainer.precision={precision}; allowed: {', '.join(PRECISIONS)}")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    best = "bf16-mixed" if _has_bf16(on_gpu) else "32-true"
    if precision == "auto":
        log.info("precision %s, by what the %s computes natively", best, "GPU" if on_gpu else "CPU")
        return best
    if precision == "16-mixed" and not on_gpu:
        log.warning("trainer.precision=16-mixed needs a GPU: training with %s instead", best)
        return best
    log.info("precision %s, as set", precision)
    return precision


def scoring_precision(trained: str, device: torch.device) -> str:
    """The precision to score a run in: that of its validations, for equal scores.

    Args:
        trained: the run's ``trainer.precision``; ``auto`` is what training would choose here.
        device: where the model will be. Where it lacks the precision, 32-true is returned, with a
            warning.

    Raises:
        ValueError: ``trained`` is none of ``PRECISIONS``.
    """
    on_gpu = device.type == "cuda"
    native = {"bf16-mixed": _has_bf16(on_gpu), "16-mixed": on_gpu}
    if native.get(trained, True):
        return resolve_precision(trained, "gpu" if on_gpu else "cpu")
    log.warning(
        "the run's trainer.precision=%s is not native to this %s: 32-true instead, so scores may"
        " differ a little from the run's own",
        *(trained, "GPU" if on_gpu else "CPU"),
    )
    return "32-true"


def autocast_type(precision: str) -> torch.dtype:
    """The autocast's type under a resolved precision; float32 = none."""
    return _AUTOCAST.get(precision, torch.float32)


def _has_bf16(on_gpu: bool) -> bool:
    if on_gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()
