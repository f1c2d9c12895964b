"""Runs every benchmark, and writes the ratios that they print into one table: ``make bench``.

    python -m benchmarks.all                     # about a quarter of an hour on an idle machine
    python -m benchmarks.all matcher metrics     # some of them
    python -m benchmarks.all --output FILE.md    # default: outputs/bench.md

A benchmark is a script that prints lines ``ratio: WHAT: NUMBER``. Arguments that keep it short
stand below. ``footage.py`` measures a dataset, ``loaders.py`` errors, and ``dancetrack_folds.py``
tracking, not time; ``association.py``, ``export.py`` and ``predict.py`` want detections or a run:
they are not run here.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from scene_track.io.atomic import write_atomic

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = {
    "matcher": [],
    "metrics": ["sequences=4", "runs=2", "reference_runs=1"],
    "step": ["--threads", "1", "2"],
    "neck": ["--size", "224", "400", "--steps", "3"],
    "backbone": ["--repeats", "1", "--trials", "0"],
}


def processor() -> str:
    """Name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def ratios(name: str) -> list[tuple[str, str]]:
    """Runs a benchmark, shows what it prints, and returns its ratios with their names."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *ARGUMENTS[name]]
    print(f"\n$ python {' '.join(command[1:])}", flush=True)
    found: list[tuple[str, str]] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            if match := re.fullmatch(r"ratio: (.+): ([\d.]+.*)", line.strip()):
                found.append((match[1], match[2]))
    if child.returncode:
        raise SystemExit(f"benchmarks.{name} ended with code {child.returncode}")
    return found


def main() -> None:
    """Run them and write the table."""
    parser = argparse.ArgumentParser(description="All benchmarks, one table of ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ARGUMENTS))
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench.md")
    options = parser.parse_args()
    if unknown := set(options.names) - ARGUMENTS.keys():
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(ARGUMENTS)}")
    before = os.getloadavg()[0]
    rows = [(name, *row) for name in options.names or ARGUMENTS for row in ratios(name)]
    machine = f"{processor()}, {os.cpu_count()} cores; load {before:.1f} before, "
    lines = [f"{machine}{os.getloadavg()[0]:.1f} after.", ""]
    lines += ["| benchmark | what | ratio |", "|---|---|---|"]
    lines += [f"| {name} | {what} | {value} |" for name, what, value in rows]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.output, "\n".join(lines) + "\n")
    print("\n" + "\n".join(lines) + f"\n\nwritten: {options.output}")


if __name__ == "__main__":
    main()
