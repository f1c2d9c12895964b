"""README and docs: commands compose, options, files and links exist, the tutorial's head trains."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from scene_track.__main__ import VERBS
from scene_track.config.check import check
from scene_track.config.cli import with_brought
from scene_track.config.paths import config_dir
from tests.compose import MINIMAL, make_batch, videos_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.ja.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# Pages about the past name options and files that are gone.
LIVING = [page for page in PAGES if page.name != "results.md"]
ROOTS = {
    "train": "config",
    "evaluate": "evaluate",
    "predict": "predict",
    "compare": "compare",
    "submit": "submit",
    "export": "export",
    "score": "score",
}
# Names of files that look like option keys.
FILES = (".onnx", ".safetensors")
# Option keys are looked up in these compositions.
CONTEXTS = [
    ("config",),
    ("config", "dataset=tracknet"),
    ("config", "dataset=dancetrack", "head=scene3d"),
    ("config", "dataset=mixed"),
    ("config", "experiment=detreg"),
    ("config", "model/backbone=hf_auto", "callbacks=median"),
    ("config", "sweep=optuna", "callbacks=patience"),
    ("config", "hydra/launcher=slurm"),
    ("config", "hydra/launcher=parallel"),
    ("config", "tracker=bytetrack"),
    ("config", "input=boxes"),
    ("evaluate",),
    ("predict",),
    ("compare",),
    ("submit",),
    ("export",),
    ("score",),
]


def _commands() -> Iterator[tuple[str, str, str]]:
    """(page, entry point, rest of the line) of every command in code blocks and in the text."""
    command = r"python -m scene_track\.([\w.]+)([^;`]*)"
    for page in LIVING:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", text):
            for verb, rest in re.findall(command, code):
                yield page.name, verb, rest
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            for line in lines:
                for verb, rest in re.findall(command, line):
                    yield page.name, verb, rest


def _words(rest: str) -> list[str]:
    """The arguments of a command, with something valid in place of each ``…``."""
    words = shlex.split(rest.replace("…", "x"), comments=True)
    return [word for word in words if word not in ("x", "&")]


def _first_values(words: list[str]) -> list[str]:
    """Overrides in which the first value stands for all those of a sweep."""
    single = []
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_interval_sweep():
            value = override.value().start  # type: ignore[union-attr]
            single.append(f"{override.get_key_element()}={value}")
        elif override.is_sweep_override():
            value = next(override.sweep_string_iterator())
            single.append(f"{override.get_key_element()}={value}")
        else:
            single.append(override.input_line or "")
    return single


@pytest.fixture(autouse=True, scope="module")
def hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        yield


@cache
def _composed(*what: str) -> DictConfig:
    return compose(what[0], overrides=list(what[1:]), return_hydra_config=True)


@pytest.mark.parametrize(("page", "verb", "rest"), sorted(set(_commands())))
def test_a_command_composes(
    page: str, verb: str, rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (ROOT / "scene_track" / f"{verb.replace('.', '/')}.py").is_file()
    if verb not in ROOTS:
        return
    monkeypatch.setenv("STUDY", "sqlite://")
    if "hydra.searchpath" in rest:
        _tutorial_project(tmp_path)
        rest = rest.replace("file://conf", f"file://{tmp_path / 'conf'}")
    overrides = with_brought([word for word in _words(rest) if "=" in word])
    _composed(ROOTS[verb], *_first_values(overrides))


@pytest.mark.parametrize("page", LIVING, ids=lambda page: page.name)
def test_options_in_the_text_exist(page: Path) -> None:
    conf = Path(config_dir())
    roots = set(map(str, _composed("config")))
    unknown = []
    for word in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        key, equals, value = word.split(" ")[0].partition("=")
        if not re.fullmatch(r"[a-z_0-9]+([./][a-z_0-9]+)*", key) or key.endswith(FILES):
            continue
        if equals and (conf / key).is_dir():
            options = [value] if re.fullmatch(r"[a-z_0-9]+", value) else []
            known = all((conf / key / f"{option}.yaml").is_file() for option in options)
            known = known or value == "null" or key.startswith("hydra/")
        elif equals or ("." in key and key.split(".")[0] in roots and "/" not in key):
            known = any(_has(_composed(*context), key) for context in CONTEXTS)
        else:
            continue
        if not known:
            unknown.append(word)
    assert not unknown


def _has(cfg: DictConfig, key: str) -> bool:
    node: Any = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        if isinstance(node, str):  # an interpolation: what it stands for is checked elsewhere
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


@pytest.mark.parametrize("page", LIVING, ids=lambda page: page.name)
def test_files_and_make_targets_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    homes = (ROOT, ROOT / "scene_track", page.parent)
    names = set(re.findall(r"`([\w./*-]+/[\w.*-]+\.(?:py|yaml|md))`", text))
    names -= {"my_project/distance.py"}
    assert not {name for name in names if not any(any(home.glob(name)) for home in homes)}
    rooms = set(
        re.findall(r"`((?:scene_track|conf|tests|docs|benchmarks|third_party)/[\w/]*)`", text)
    )
    assert not {room for room in rooms if not (ROOT / room).exists()}
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor[1:] in anchors, anchor


def test_the_first_page_is_short_and_the_index_whole(repo_root: Path) -> None:
    assert len((repo_root / "README.md").read_text().split()) <= 700
    index = (repo_root / "docs" / "index.md").read_text()
    pages = {page.name for page in (repo_root / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\(([a-z_]+\.md)\)", index))
    first = (repo_root / "README.md").read_text()
    translated = (repo_root / "README.ja.md").read_text()
    # What is typed, drawn and measured is the same in both.
    for pattern in (r"python -m [^`#\n]*", r"\((docs/figures/[^)]*)\)", r"\d+\.\d+"):
        assert set(map(str.strip, re.findall(pattern, first))) == set(
            map(str.strip, re.findall(pattern, translated))
        )


def test_verbs_of_the_readme(repo_root: Path) -> None:
    text = (repo_root / "README.md").read_text()
    assert set(re.findall(r"scene-track (\w+)", text)) <= set(VERBS)


def _tutorial_project(folder: Path) -> None:
    """Writes the code blocks of the tutorial to the files that they name."""
    text = (ROOT / "docs" / "tutorial_head.md").read_text()
    (yaml,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for name, content in (
        (
            "my_project/distance.py",
            "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)),
        ),
        ("conf/head/distance.yaml", yaml),
    ):
        assert f"# {name}\n" in content
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_the_head_of_the_tutorial_learns_and_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tutorial_project(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "trusted_targets=[my_project.]"]
    cfg = compose(
        "config",
        overrides=[*MINIMAL, *words, "head=distance", "monitor.metric=val/distance_error"],
        return_hydra_config=True,
    )
    OmegaConf.set_struct(cfg, False)
    cfg.experiment_name, cfg.run_dir = "test", str(tmp_path)
    del cfg["hydra"]
    check(cfg)

    torch.manual_seed(0)
    model, criterion = instantiate(cfg.model), instantiate(cfg.head.criterion)
    batch = make_batch(clips=1, size=(64, 96))
    batch.xyz = torch.full((*batch.track_ids.shape, 3), 3.0)
    model.train()
    inputs = (batch.frames, batch.seconds, batch.padding_mask)
    losses = criterion(model(*inputs)[0], batch, model=model)
    losses["total"].backward()
    assert losses["distance"] > 0
    assert model.head.read.weight.grad.abs().sum() > 0

    evaluator = instantiate(cfg.head.evaluator)
    predictions = model.eval()(*inputs)[0]
    predictions.exist_conf = torch.ones_like(predictions.exist_conf)
    predictions.extras["distance"] = torch.full_like(predictions.extras["distance"], 27**0.5 + 2)
    evaluator.reset(videos_of(batch))
    evaluator.update(model, predictions, batch)
    assert evaluator.compute()["distance_error"] == pytest.approx(2.0)


def test_the_notebook_runs(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells one after the other, as a kernel would run them, on a tiny run."""
    (tmp_path / "outputs" / "runs" / "dance").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "dance" / "tiny").symlink_to(run_folder)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    space: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "first_steps.ipynb", "exec"), space)
    assert len(cells) >= 5 and len(space["frames"]) == 33
