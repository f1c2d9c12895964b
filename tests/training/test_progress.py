"""Progress: the line says what matters, a log file gets few lines, a terminal is left tidy."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scene_track.training.progress import RunProgress


def bar(**changes: Any) -> RunProgress:
    return RunProgress(**{"monitor": "val/hota", "refresh_s": 1e-9, "log_every_s": 1e-9, **changes})


def run(tiny: Any, tmp_path: Path, progress: RunProgress, **changes: Any) -> None:
    module = tiny.TinyModule(scores=[0.25, 0.5, 0.75])
    tiny.fit(tmp_path, module=module, extra=[progress], enable_progress_bar=True, **changes)


def test_log_lines_without_a_terminal(tiny: Any, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        run(tiny, tmp_path, bar())
    lines = [r.getMessage() for r in caplog.records if r.name == "scene_track.training.progress"]
    assert sum("validation" not in line and "batches/s" in line for line in lines) == 21
    last = next(line for line in lines if line.startswith("epoch 2/3  4/7"))
    assert re.search(r"loss \d\.\d+  ", last)
    assert "lr " in last
    assert "val/hota 0.2500" in last
    assert "left in epoch" in last
    assert "epoch 3/3  step 21  val/hota 0.7500" in lines


def test_the_loss_is_the_logged_one(tiny: Any, tmp_path: Path, caplog) -> None:
    """Under accumulation a step returns its share of the window's loss, which means nothing."""

    class Weighed(tiny.TinyModule):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            means.append(float(loss.detach()))
            return 100 * loss

    means: list[float] = []
    with caplog.at_level("INFO", "scene_track.training.progress"):
        settings = {"enable_progress_bar": True, "accumulate_grad_batches": 2, "max_epochs": 1}
        tiny.fit(tmp_path, module=Weighed(), extra=[bar()], **settings)
    shown = re.findall(r"loss (\S+)", caplog.text)
    assert len(shown) == 7 and shown == [f"{mean:.4g}" for mean in means]


def test_few_lines_in_a_log_file(tiny: Any, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        run(tiny, tmp_path, bar(log_every_s=3600.0))
    lines = [r.getMessage() for r in caplog.records if r.name == "scene_track.training.progress"]
    assert sum("batches/s" in line for line in lines) <= 1
    assert sum("step" in line for line in lines) == 3


def test_a_terminal_gets_one_line_and_is_left_tidy(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    before = [list(handler.filters) for handler in logging.getLogger().handlers]
    run(tiny, tmp_path, bar())
    written = terminal.getvalue()
    drawn = [line for line in written.split("\r\x1b[K") if line.startswith("epoch")]
    assert len(drawn) == 21
    assert any("━" in line and "loss" in line for line in drawn)
    assert "validation  1/2" in written
    assert written.endswith("\r\x1b[K"), "the line is wiped"
    assert [list(handler.filters) for handler in logging.getLogger().handlers] == before


def test_speed_after_a_resume_inside_an_epoch(tiny: Any, tmp_path: Path, caplog) -> None:
    """The batches of before the interruption are not counted as done in no time."""
    with pytest.raises(ValueError, match="stop"):
        stop = tiny.Stop("on_train_batch_start", 0, 5, ValueError("stop"))
        tiny.fit(tmp_path, extra=[stop])
    progress = bar()
    lines: list[float] = []
    line = progress.line
    progress.line = lambda t, b, rate: (lines.append(rate), line(t, b, rate))[1]  # type: ignore
    run(tiny, tmp_path, progress, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert lines[0] == 0.0, "unknown yet"
    assert lines[1] > 0.0
