"""Precision: native formats only by default, and the fallback on a CPU."""

from __future__ import annotations

import pytest
import torch

from scene_track.training import precision
from scene_track.training.precision import autocast_type, resolve_precision, scoring_precision


@pytest.mark.parametrize(("native", "best"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bf16_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, caplog, native: bool, best: str
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: native)
    assert resolve_precision("auto", "cpu") == best
    assert resolve_precision("16-mixed", "cpu") == best
    assert "16-mixed needs a GPU" in caplog.text
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed", "asked for is asked for"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for accelerator in ("gpu", "auto"):
        assert resolve_precision("auto", accelerator) == best
        assert resolve_precision("16-mixed", accelerator) == "16-mixed"
    with pytest.raises(ValueError, match=r"trainer.precision=fp8; allowed: auto, 32-true"):
        resolve_precision("fp8", "cpu")


@pytest.mark.parametrize(
    ("trained", "native", "taken", "warned"),
    [
        ("32-true", True, "32-true", False),
        ("auto", True, "bf16-mixed", False),
        ("auto", False, "32-true", False),
        ("bf16-mixed", True, "bf16-mixed", False),
        ("bf16-mixed", False, "32-true", True),
        ("16-mixed", True, "32-true", True),
    ],
)
def test_a_run_is_scored_as_it_was_validated(
    monkeypatch: pytest.MonkeyPatch, caplog, trained: str, native: bool, taken: str, warned: bool
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: native)
    assert scoring_precision(trained, torch.device("cpu")) == taken
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == warned
    assert not warned or f"trainer.precision={trained} is not native to this CPU" in warnings[0]


def test_scoring_on_a_gpu_takes_float16() -> None:
    taken = scoring_precision("16-mixed", torch.device("cuda"))
    assert taken == "16-mixed" and autocast_type(taken) == torch.float16
