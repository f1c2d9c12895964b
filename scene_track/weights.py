"""DINOv3 weights: where their licence is accepted, where the files go, and whether they are sound.

    python -m scene_track.weights                  # all sizes, in the folder weights/
    python -m scene_track.weights FILE_OR_FOLDER   # any file or Hugging Face folder: which size?

Nothing is downloaded: the licence is the user's to accept. A file that is there is read as a run
would read it (hash in its name, keys, shapes, NaN). Exit code 1 if one is damaged or of no size.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from pathlib import Path

from scene_track.models.backbones.dinov3.state import read_official_state
from scene_track.models.backbones.dinov3.variants import (
    CONVNEXTS,
    LICENCE_PAGE,
    VITS,
    Variant,
    official_file,
)

_EXPLANATION = f"""\
The DINOv3 weights are Meta's, under the DINOv3 licence; this project neither holds nor passes them
on.
  1. Read and accept the licence at {LICENCE_PAGE}; the links come by mail.
  2. Download the LVD-1689M file of a size ("backbone", not "head") in a browser, or by wget with
     the whole link in quotes, and keep its name: the eight digits at its end are checked.
  3. Put it into the folder {{folder}}/, or name it by model.backbone.weights=PATH.
A folder that Hugging Face's save_pretrained wrote does as well: model.backbone.weights=FOLDER.
"""


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's weights, in hex."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def check(path: Path, variants: list[Variant]) -> tuple[bool, str]:
    """Read weights as a run would.

    Returns:
        Whether they are sound, and a line that says so or why not.
    """
    faults: list[str] = []
    for variant in variants:
        try:
            state = read_official_state(path, variant)
        except ValueError as error:
            faults.append(str(error))
            continue
        count = sum(value.numel() for key, value in state.items() if "norms." not in key)
        return True, (
            f"OK      {path}: DINOv3 {variant.name}, {len(state)} tensors, {count / 1e6:.1f} M"
            f" numbers, SHA-256 {digest(path)}; type model/backbone=dinov3_{variant.name}"
        )
    return False, f"DAMAGED {min(faults, key=len)}"


def main(arguments: list[str] | None = None) -> int:
    """Print what is where; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scene_track.weights",
        description="Where DINOv3 weights go; a check of them.",
    )
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders to check")
    parser.add_argument("--folder", type=Path, default=Path("weights"), help="where files go")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sizes: list[Variant] = [*VITS.values(), *CONVNEXTS.values()]
    if options.paths:
        # a file of one size is not read as seven others
        named = [
            [size for size in sizes if f"dinov3_{size.name}_" in p.name] for p in options.paths
        ]
        checks = [(p, fits or sizes) for p, fits in zip(options.paths, named, strict=True)]
    else:
        print(_EXPLANATION.format(folder=options.folder))
        checks = [(options.folder / official_file(size), [size]) for size in sizes]
    sound = True
    for path, variants in checks:
        if path.exists():
            fine, line = check(path, variants)
        elif options.paths:
            fine, line = False, f"ABSENT  {path}"
        else:
            fine, line = True, f"absent  {path}  (model/backbone=dinov3_{variants[0].name})"
        sound &= fine
        print(line)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
