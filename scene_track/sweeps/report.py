from pathlib import Path
from scene_track.sweeps import records


def report(sweep: Path) -> None:
    for f, t in records.read_all(sweep).items():
        print(t.number, t.state, dict(t.params), t.objective, t.reason)
