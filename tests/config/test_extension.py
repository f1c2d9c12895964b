"""What docs/extending.md promises: a backbone is one class and one YAML, nothing else is edited."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from scene_track.config.check import ConfigError, check
from scene_track.config.paths import config_dir


@pytest.fixture
def project(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example of docs/extending.md as a project of its own."""
    page = (repo_root / "docs" / "extending.md").read_text()
    section = page.partition("## Adding a backbone")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project" / "mine.py").write_text(code)
    folder = tmp_path / "conf" / "model" / "backbone"
    folder.mkdir(parents=True)
    yaml = yaml.replace("scene_track.models.backbones.mine", "my_project.mine")
    (folder / "mine.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_example_of_the_docs(project: Path) -> None:
    import torch

    search = f"hydra.searchpath=[file://{project / 'conf'}]"
    chosen = [search, "model/backbone=mine", "trusted_targets=[my_project.]"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=chosen)
        check(cfg)
        with pytest.raises(
            ConfigError, match=r"model.backbone.width=4: must be greater than or equal to 8"
        ):
            check(compose("config", overrides=[*chosen, "model.backbone.width=4"]))
        with pytest.raises(ConfigError, match="must be multiples of 8 for model.backbone"):
            check(compose("config", overrides=[*chosen, "dataset.size=[100,224]"]))
        with pytest.raises(ConfigError, match="trusted_targets"):
            check(compose("config", overrides=chosen[:2]))
    backbone = instantiate(cfg.model.backbone)
    features = backbone(torch.zeros(2, 3, *cfg.dataset.size, dtype=torch.uint8))
    assert features.levels[0].shape == (2, 32, 16, 28)
