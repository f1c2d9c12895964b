"""Entry points from the outside: exit codes, one line per mistake, sweeps, speed of the help."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import pytest
import torch

from scene_track.config.cli import _Job, _mistake_of
from scene_track.training.run_checkpoint import NonFiniteError

_APP = '''
"""Says what it was given."""

from __future__ import annotations

from typing import Annotated

from hydra.utils import instantiate
from pydantic import Field

import scene_track.config.cli as cli

cli.config_dir = lambda: {conf!r}


class Options:
    def __init__(self, *, seed: Annotated[int, Field(ge=0)], trusted_targets: list[str],
                 net: object, optimizer: object): ...


class Net:
    def __init__(self, *, width: Annotated[int, Field(ge=1)] = 8):
        if width == 13:
            raise ValueError("width 13\\nbrings bad luck")


def optimizer(*, lr: Annotated[float, Field(gt=0)]): ...


def job(cfg):
    if cfg.seed == 3:
        raise FileNotFoundError("there is no 3")
    if cfg.seed == 5:
        {{}}["five"]
    instantiate(cfg.net)
    print(f"ran {{cfg.seed}} {{cfg.optimizer.lr}}")
    return float(cfg.seed)


if __name__ == "__main__":
    cli.run_main("config", job, root="paper_app.Options")
'''
_CONF = {
    "config.yaml": """
        # Of a test.
        defaults:
          - _self_
          - net: small
          - optimizer: adam
          - extra: null
        seed: 1 # int >= 0
        trusted_targets: [paper_app.]
        hydra:
          run: {dir: out}
          sweep: {dir: out, subdir: "${hydra.job.num}"}
    """,
    "net/small.yaml": "# A small one. It is quick.\n_target_: paper_app.Net\nwidth: 8\n",
    "net/large.yaml": "# A large one.\n_target_: paper_app.Net\nwidth: 80\n",
    "optimizer/adam.yaml": "_target_: paper_app.optimizer\nlr: 1e-3\n",
    "extra/all.yaml": "# @package _global_\nseed: 2\n",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    conf = tmp_path / "settings"
    for name, text in _CONF.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(textwrap.dedent(text))
    (tmp_path / "paper_app.py").write_text(_APP.format(conf=str(conf)))
    return tmp_path


def _run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"} | variables
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def _app(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return _run(folder, "-m", "paper_app", *arguments, **variables)


def test_a_job_runs_and_names_its_log_after_itself(app: Path) -> None:
    result = _app(app, "optimizer.lr=0.5", "net=large")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "ran 1 0.5"
    assert (app / "out" / "paper_app.log").is_file()


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("optimizer.lr=abc", "optimizer.lr=abc: must be a valid number"),
        ("optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean optimizer.lr"),
        ("+optimizer.lrr=1", "optimizer.lrr: unknown key; did you mean optimizer.lr? allowed: lr"),
        ("optimzer=adam", "optimzer: unknown key; did you mean optimizer"),
        ("net=smal", "net=smal: no such option; did you mean small? allowed: large, small"),
        ("net=-1", "net=-1: no such option; allowed: large, small"),
        ("optimizer.lr=[1", "optimizer.lr=[1: cannot be read as key=value"),
        ("net.width=13", "net: width 13 brings bad luck"),
        ("seed=3", "there is no 3"),
        ("--config-name=confg", "Cannot find primary config 'confg'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(app: Path, argument: str, line: str) -> None:
    result = _app(app, argument)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(line)
    assert "ran" not in result.stdout
    assert not (app / "out").exists(), "a refused job leaves no folder behind"


def test_a_refused_job_deletes_no_file_that_was_there(app: Path) -> None:
    (app / "out").mkdir()
    (app / "out" / "config.yaml").write_text("mine")
    _app(app, "optimizer.lr=abc")
    assert (app / "out" / "config.yaml").read_text() == "mine"


def test_the_log_file_in_a_folder_with_more_has_the_traceback_of_a_mistake(app: Path) -> None:
    (app / "out").mkdir()
    (app / "out" / "kept").touch()
    _app(app, "net.width=13")
    log = (app / "out" / "paper_app.log").read_text()
    assert "Traceback" in log and "raise ValueError(" in log


def test_the_traceback_is_shown_on_demand(app: Path) -> None:
    result = _app(app, "seed=3", HYDRA_FULL_ERROR="1")
    assert result.returncode == 2
    assert "Traceback" in result.stderr and result.stderr.endswith("there is no 3\n")


def test_a_fault_of_the_program_is_a_traceback_and_exit_code_1(app: Path) -> None:
    result = _app(app, "seed=5")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "KeyError: 'five'" in result.stderr
    assert "KeyError: 'five'" in (app / "out" / "paper_app.log").read_text()


def test_a_mistake_that_a_loading_process_found_is_one_line() -> None:
    from torch._utils import ExceptionWrapper

    try:
        raise FileNotFoundError("frame 3 is gone")
    except FileNotFoundError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(FileNotFoundError) as caught:
        wrapped.reraise()
    assert _mistake_of(caught.value) == "frame 3 is gone"
    assert _mistake_of(KeyError("five")) is None
    assert _mistake_of(RuntimeError("five")) is None
    slurm = "You set `--ntasks=2` in your SLURM bash script,\nHINT: Use `--ntasks-per-node=2`."
    assert _mistake_of(RuntimeError(slurm)) == slurm.replace("\n", " ")


def test_memory_that_runs_out_and_numbers_that_are_none_are_one_line() -> None:
    said = "[enforce fail at alloc_cpu.cpp:13] data. DefaultCPUAllocator: can't allocate memory: 8"
    for error in (MemoryError(), RuntimeError(said), torch.OutOfMemoryError("CUDA\nout.")):
        message = _mistake_of(error)
        assert message is not None and "batch_size" in message and "\n" not in message
    assert _mistake_of(NonFiniteError("the loss is nan")) == "the loss is nan"


def test_in_a_sweep_the_other_jobs_go_on(app: Path) -> None:
    result = _app(app, "--multirun", "seed=1,3,-1,2")
    assert result.returncode == 2
    assert "ran 1" in result.stdout and "ran 2" in result.stdout
    assert "job 1: there is no 3\n" in result.stderr
    assert "job 2: seed=-1: must be greater than or equal to 0\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_job_of_an_entry_point_can_be_pickled() -> None:
    # Process launchers send it to their workers.
    from scene_track.train import train

    for pack in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(pack(_Job(train, None)))._function is train


def test_help_lists_keys_groups_and_defaults(app: Path) -> None:
    result = _app(app, "--help")
    assert result.returncode == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "Says what it was given."
    assert "usage: python -m paper_app [key=value ...] [flags]" in lines
    assert "seed int >= 0" in lines
    assert "* small A small one" in lines and "large A large one" in lines
    assert "all" in lines  # of a group without a default
    assert _run(app, "paper_app.py", "--help").stdout.startswith("Says what")


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_cfg_of_the_real_entry_point_wait_for_no_heavy_import(
    arguments: list[str], tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.argv = ['train', *{arguments}]\n"
        "from scene_track.train import main\n"
        "main()\n"
        "heavy = {'torch', 'pytorch_lightning', 'pydantic', 'scipy', 'pandas', 'matplotlib',\n"
        "         'transformers', 'timm', 'optuna', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = _run(tmp_path, "-c", code)
    assert result.returncode == 0, result.stderr
    assert "denoiser" in result.stdout
