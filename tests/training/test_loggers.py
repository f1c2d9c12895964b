"""``logger=wandb`` and ``logger=mlflow``: offline, beside the files that every run writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate

from scene_track.config.check import check
from scene_track.config.cli import _mistake_of
from tests.compose import compose_run

OFFLINE = {"wandb": ["logger.wandb.offline=true"], "mlflow": []}


@pytest.mark.parametrize("name", OFFLINE)
def test_a_logger_writes_offline_or_says_what_to_install(name: str, tmp_path: Path) -> None:
    cfg = compose_run([f"logger={name}", *OFFLINE[name]])
    cfg.run_dir = str(tmp_path)
    check(cfg)
    assert set(cfg.logger) == {"csv", "tensorboard", name}
    try:
        logger = instantiate(cfg.logger[name])
    except Exception as error:  # of Hydra, around that of the missing package
        message = _mistake_of(error)
        assert message is not None and "pip install" in message and "\n" not in message
        pytest.skip(
            f"the message without the package was tested; with it: pip install -e '.[{name}]' and"
            " pytest tests/training/test_loggers.py"
        )
    logger.log_hyperparams({"optimizer": {"lr": 1e-3}})
    logger.log_metrics({"val/hota": 0.5}, step=3)
    logger.finalize("success")
    assert any(name in file.name for file in tmp_path.iterdir())
