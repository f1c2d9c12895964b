"""Pack tracks for the DanceTrack server: ``python -m scene_track.submit checkpoint=RUN``.

Runs the streaming tracker over a split, which needs no ground truth, and writes the zip that the
server scores; or packs result files that are there already, of any tracker. The zip is read back
and checked before it gets its name.

    python -m scene_track.submit checkpoint=outputs/runs/dancetrack_scene/2026-01-01_12-00-00
    python -m scene_track.submit predictions=FOLDER_OF_TXT dataset=dancetrack
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import DirectoryPath, Field, FilePath

from scene_track.config.cli import run_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scene_track.data.module import TrackingDataModule

log = logging.getLogger(__name__)


def options(
    *,
    checkpoint: FilePath | DirectoryPath | None,
    predictions: DirectoryPath | None,
    split: Literal["train", "val", "test"],
    output: Annotated[str, Field(min_length=1)] | None,
    overwrite: bool,
    **groups: Any,
) -> None:
    """What the command line accepts; ``conf/submit.yaml`` explains it."""


def submit(cfg: DictConfig) -> None:
    """One submission, from a checked configuration to a zip.

    Raises:
        FileNotFoundError: a result file is missing.
        ValueError: the command does not say what to pack, something is in the way, or the zip
            would not be sound.
    """
    if (cfg.checkpoint is None) == (cfg.predictions is None):
        found = "neither" if cfg.checkpoint is None else "both"
        raise ValueError(
            f"{found} of checkpoint and predictions typed: type checkpoint=RUN_OR_CKPT to run a"
            " tracker, or predictions=FOLDER dataset=OPTION to pack result files"
        )
    if cfg.predictions is None:
        _from_checkpoint(cfg)
    else:
        _from_predictions(cfg)


def _from_checkpoint(cfg: DictConfig) -> None:
    """Run the tracker, then pack its files."""
    from scene_track.io.atomic import held
    from scene_track.training.checkpointing import resolve_checkpoint
    from scene_track.training.trained_run import run_folder

    checkpoint = resolve_checkpoint(cfg.checkpoint, prefer="best")
    output = Path(cfg.output or run_folder(checkpoint) / f"submission_{cfg.split}.zip")
    folder = output.with_suffix("")
    _check_free(output, cfg.overwrite)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and result files go there: type output=FILE.zip")
    with held(folder, "output"):
        _track_and_pack(cfg, folder, output)


def _track_and_pack(cfg: DictConfig, folder: Path, output: Path) -> None:
    """Submit by way of a folder that is this command's own."""
    from scene_track.training.trained_run import load_run, need_boxes, track_split

    left = sorted(folder.glob("*.txt"))
    if left and not cfg.overwrite:
        raise ValueError(
            f"{folder} holds {len(left)} result files and there is no {output.name} (a run that was"
            " stopped): type overwrite=true to begin anew, or output=FILE.zip"
        )
    run = load_run(cfg)
    need_boxes(run, "submit")
    run.data.prepare_data()
    run.data.sequences(cfg.split)
    # The old zip goes first: it must not stand beside files that it was not made from.
    for file in (output, *left):
        file.unlink(missing_ok=True)
    for _ in track_split(run, cfg.split, folder):
        pass
    _pack(run.data, folder, cfg.split, output)


def _from_predictions(cfg: DictConfig) -> None:
    """Pack files that are there."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    folder = Path(cfg.predictions)
    typed = HydraConfig.get().overrides.task
    if not any(word.startswith(("dataset=", "experiment=")) for word in typed):
        # The default would be synthetic dance, of which nobody has result files from elsewhere.
        raise ValueError(
            f"predictions={folder}: whose sequences are these? Type dataset=OPTION too, such as"
            " dataset=dancetrack (--help lists them)"
        )
    output = Path(cfg.output or folder.absolute().parent / f"submission_{cfg.split}.zip")
    _check_free(output, cfg.overwrite)
    data: TrackingDataModule = instantiate(cfg.dataset)
    data.prepare_data()
    _pack(data, folder, cfg.split, output)


def _check_free(output: Path, overwrite: bool) -> None:
    if output.suffix != ".zip":
        raise ValueError(f"output={output}: expected a zip file, type output={output}.zip")
    if output.is_dir():
        raise ValueError(f"output={output} is a folder, expected a zip file: type output=FILE.zip")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists: type overwrite=true to replace it, or output=FILE.zip")


def _pack(data: TrackingDataModule, folder: Path, split: str, output: Path) -> None:
    """Read a folder of result files and write the zip."""
    from scene_track.data.mot_files import find_results, read_boxes
    from scene_track.io.tables import first_few
    from scene_track.tracking.submission import write_submission

    frames = {
        sequence.name: range(int(sequence.frames[0]), int(sequence.frames[-1]) + 1)
        for sequence in data.sequences(split)
    }
    files = find_results(folder, list(frames), missing_from=f"sequence of the {split} split")
    tracks = {
        name: read_boxes(file, kind="result", length=frames[name][-1])[0]
        for name, file in files.items()
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    done = write_submission(output, tracks, frames)
    if done.empty:
        log.warning(
            "nothing was found in %d of %d sequences: %s; the server accepts that",
            *(len(done.empty), done.num_sequences, first_few(done.empty)),
        )
    print(
        f"{output}: {done.num_sequences} sequences, {done.num_frames} frames, {done.num_boxes}"
        " boxes, read back and sound"
    )


def main() -> None:
    """The command line."""
    run_main("submit", submit, root="scene_track.submit.options")


if __name__ == "__main__":
    main()
