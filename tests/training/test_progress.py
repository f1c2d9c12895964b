"""Progress: a line says what matters, a log file gets few lines, a terminal is left tidy."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scene_track.training.progress import RunProgress

NAME = "scene_track.training.progress"


def lines(tiny: Any, folder: Path, log_every_s: float, caplog: Any, **changes: Any) -> list[str]:
    """What a run logs of its progress."""
    bar = RunProgress(monitor="val/hota", refresh_every=1, log_every_s=log_every_s)
    module = changes.pop("module", tiny.TinyModule(scores=[0.25, 0.5, 0.75]))
    with caplog.at_level("INFO", NAME):
        tiny.fit(folder, module=module, extra=[bar], enable_progress_bar=True, **changes)
    return [r.getMessage() for r in caplog.records if r.name == NAME]


def test_log_lines_without_a_terminal(tiny: Any, tmp_path: Path, caplog) -> None:
    found = lines(tiny, tmp_path, 1e-9, caplog)
    assert sum("batches/s" in line for line in found) == 21
    last = next(line for line in found if line.startswith("epoch 2/3  4/7"))
    assert re.search(r"loss \d\.\d+  lr .*val/hota 0.2500  .*left in epoch", last)
    assert "epoch 3/3  step 21  val/hota 0.7500" in found
    caplog.clear()
    few = lines(tiny, tmp_path / "few", 3600.0, caplog)
    assert len(few) == 4, "one line and three validations"


def test_the_loss_is_the_logged_one(tiny: Any, tmp_path: Path, caplog) -> None:
    """Under accumulation a step returns its share of the window's loss, which means nothing."""

    class Weighed(tiny.TinyModule):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            means.append(float(loss.detach()))
            return 100 * loss

    means: list[float] = []
    changes = {"module": Weighed(), "accumulate_grad_batches": 2, "max_epochs": 1}
    lines(tiny, tmp_path, 1e-9, caplog, **changes)
    assert re.findall(r"loss (\S+)", caplog.text) == [f"{mean:.4g}" for mean in means]


def test_a_terminal_gets_a_bar_and_is_left_tidy(
    tiny: Any, tmp_path: Path, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", terminal)
    before = list(logging.getLogger().handlers)
    lines(tiny, tmp_path, 1e-9, caplog)
    written = terminal.getvalue()
    assert "7/7" in written and "val/hota=0.5000" in written and "loss=" in written
    assert logging.getLogger().handlers == before


def test_speed_after_a_resume_inside_an_epoch(tiny: Any, tmp_path: Path, caplog) -> None:
    """The batches of before the interruption are not counted as done in no time."""
    with pytest.raises(ValueError, match="stop"):
        stop = tiny.Stop("on_train_batch_start", 0, 5, ValueError("stop"))
        tiny.fit(tmp_path, extra=[stop])
    first, second, *_ = lines(
        tiny, tmp_path, 1e-9, caplog, resume=tmp_path / "checkpoints" / "last.ckpt"
    )
    assert "batches/s" not in first and "batches/s" in second
