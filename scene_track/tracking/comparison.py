"""Several trackers over the same detections: counted side by side, and what is said of it.

Rows run trackers and keep counts; the counts of one run of a model, or of several that differ in
their seeds, become figures, ratios, differences and a Markdown table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import stdtrit

from scene_track.metrics.tracking import TrackingCounts, tracking_metrics
from scene_track.models.identity import PointerIdentity
from scene_track.tracking.inference import SequenceTracks, associate
from scene_track.tracking.tracker import Detections, Tracker, VideoInfo
from scene_track.tracking.truth import Truth
from scene_track.tracking.tuning import BASELINES, Tuned

CRITERION = 0.6  # of a baseline's HOTA and IDF1, after three epochs

CAUSAL, CONFIGURED = "own tracker, causal", "own tracker, as configured"
OWN_TUNED, ORACLE = "own tracker, tuned", "oracle association"
TITLES = {
    "sort": "SORT",
    "bytetrack": "ByteTrack",
    "ocsort": "OC-SORT",
    "botsort": "BoT-SORT",
    "cbiou": "C-BIoU",
}
STOCK = {option: f"{title}, stock" for option, title in TITLES.items()}
TUNED = {option: f"{title}, tuned" for option, title in TITLES.items()}
ON_EXACT, ON_NOISY = "ByteTrack, tuned, on exact truth", "ByteTrack, tuned, on noisy truth"
assert tuple(TITLES) == BASELINES

_FRACTIONS = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA")
_COUNTS = ("IDSW", "FP", "FN")
_COMPARED = ("HOTA", "AssA", "IDF1")

Frames = Sequence[tuple[VideoInfo, Detections]]

_VERDICT = {True: "met", False: "not met", None: "no baseline to be measured by"}


@dataclass
class Row:
    """One line of the table.

    Attributes:
        tracker: who associates.
        boxes: whose boxes.
        counts: raw counts over the split; become figures at the end.
        frames: tracked so far.
        seconds: that they took, the model's included where the boxes are the model's.
    """

    tracker: Tracker
    boxes: str
    counts: TrackingCounts = field(default_factory=TrackingCounts.zero)
    frames: int = 0
    seconds: float = 0.0

    def take(
        self, frames: Frames, truth: Mapping[str, Truth], head: PointerIdentity | None
    ) -> list[SequenceTracks]:
        """Track whole videos and count; ``head`` is None for trackers that need none.

        Raises:
            ValueError: the tracker cannot do with what there is.
        """
        videos = list(associate(frames, self.tracker, head))
        for tracks in videos:
            self.frames += tracks.num_frames
            self.seconds += tracks.compute_s
            self.counts += truth[tracks.video.name].count(tracks.table)
        return videos


@dataclass(frozen=True)
class Compared:
    """All trackers over the detections of one run of a model.

    Attributes:
        rows: by the names above.
        tuning: what was chosen, by the name of the row.
    """

    rows: Mapping[str, Row]
    tuning: Mapping[str, Tuned]


def summarise(runs: Sequence[Compared]) -> dict[str, Any]:
    """Figures, ratios, differences and times as plain data, ready for JSON.

    Args:
        runs: one, or several that differ in their seeds; all with the same rows.

    Returns:
        ``rows`` and ``ratios`` are of the mean over runs; ``spread`` holds the standard deviations
        over runs (None for a single one), ``runs`` the figures and the tuning of each.
    """
    single = [
        {name: _figures(row) | {"boxes": row.boxes} for name, row in run.rows.items()}
        for run in runs
    ]
    rows = {name: _over_runs([one[name] for one in single], np.mean) for name in single[0]}
    spread = {
        name: _over_runs([one[name] for one in single], lambda values: np.std(values, ddof=1))
        for name in single[0]
    }
    return {
        "rows": rows,
        "spread": spread if len(runs) > 1 else None,
        "ratios": dict(_ratios(rows)),
        "criterion": CRITERION,
        "differences": list(_differences(single)),
        "runs": [
            {"rows": one, "tuning": {name: asdict(found) for name, found in run.tuning.items()}}
            for one, run in zip(single, runs, strict=True)
        ],
        "frames": runs[0].rows[CAUSAL].frames,
    }


def _figures(row: Row) -> dict[str, Any]:
    """The metrics that are one number each, and the speed."""
    metrics = tracking_metrics(row.counts)
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in metrics.items()
             if np.ndim(v) == 0}  # fmt: skip
    return plain | {"frames_per_second": row.frames / max(row.seconds, 1e-9)}


def _over_runs(figures: Sequence[dict[str, Any]], how: Any) -> dict[str, Any]:
    """Each figure over runs; what is equal in all, such as a count of one run, stays as it is."""
    first = figures[0]
    if len(figures) == 1:
        return first
    return {
        key: value if isinstance(value, str) else float(how([one[key] for one in figures]))
        for key, value in first.items()
    }


def _ratios(rows: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """HOTA and IDF1 of the own tracker as shares of ByteTrack's, and whether they are enough.

    The stock ByteTrack too: where tuning went wrong it is the better of the two. A share is None
    where the baseline found nothing at all: then there is nothing to be measured by.
    """
    for name in (CAUSAL, CONFIGURED):
        for against in (ON_NOISY, TUNED["bytetrack"], STOCK["bytetrack"]):
            if name not in rows or against not in rows:
                continue
            own, other = rows[name], rows[against]
            shares = {key: own[key] / other[key] if other[key] else None
                      for key in ("HOTA", "IDF1")}  # fmt: skip
            known = [share for share in shares.values() if share is not None]
            met = all(share >= CRITERION for share in known) if len(known) == 2 else None
            yield f"{name} / {against}", {**shares, "met": met}


def _differences(runs: Sequence[Mapping[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The own tracker against each baseline: as it is against stock, tuned against tuned.

    ``error`` is half of the 95 % confidence interval of the mean difference over runs (Student's t,
    paired by run), None for one run; a difference not larger is within the noise of seeds.
    """
    asis = CONFIGURED if CONFIGURED in runs[0] else CAUSAL
    count = len(runs)
    for own, others in ((asis, STOCK), (OWN_TUNED, TUNED)):
        for against in others.values():
            if own not in runs[0] or against not in runs[0]:
                continue
            found: dict[str, Any] = {"own": own, "against": against}
            for key in _COMPARED:
                gains = np.array([run[own][key] - run[against][key] for run in runs])
                error = None
                if count > 1:
                    error = float(stdtrit(count - 1, 0.975) * gains.std(ddof=1) / np.sqrt(count))
                mean = float(gains.mean())
                beyond = None if error is None else abs(mean) > error
                found[key] = {"difference": mean, "error": error, "beyond_noise": beyond}
            yield found


def report(result: Mapping[str, Any]) -> str:
    """The comparison as Markdown, fractions in percent.

    Args:
        result: of ``summarise``, with ``checkpoints``, ``epochs`` (of each, None if unknown),
            ``split``, ``sequences``, ``benchmark`` and ``seed`` beside it.
    """
    several = len(result["runs"]) > 1
    lines = [
        f"# Comparison with known trackers: {result['split']} split",
        "",
        *(
            f"- `{checkpoint}`"
            + (f", after {epochs} epoch{'s' if epochs != 1 else ''}" if epochs is not None else "")
            for checkpoint, epochs in zip(result["checkpoints"], result["epochs"], strict=True)
        ),
        "",
        f"{result['sequences']} sequences, {result['frames']} frames, rules of"
        f" {result['benchmark']}, seed {result['seed']}."
        + (f" Mean ± standard deviation of {len(result['runs'])} runs." if several else ""),
        "",
        _figures_table(result),
        "",
    ]
    if result["ratios"]:
        share = f"{result['criterion']:.0%} of both, after 3 epochs"
        lines += [f"Ratios, HOTA / IDF1 (criterion: {share}):", ""]
        for name, ratio in result["ratios"].items():
            shown = " / ".join(
                "-" if ratio[key] is None else f"{ratio[key]:.0%}" for key in ("HOTA", "IDF1")
            )
            lines.append(f"- {name}: {shown}, {_VERDICT[ratio['met']]}")
        lines.append("")
    lines += [*_difference_lines(result), *_tuning_lines(result)]
    speeds = ", ".join(
        f"{name} {result['rows'][name]['frames_per_second']:.1f}"
        for name in (CAUSAL, CONFIGURED, *STOCK.values())
        if name in result["rows"]
    )
    lines += ["", f"Frames per second of model and tracker, reading left out: {speeds}."]
    return "\n".join(lines) + "\n"


def _figures_table(result: Mapping[str, Any]) -> str:
    spread = result["spread"]

    def shown(name: str, key: str) -> str:
        value = result["rows"][name][key]
        text = f"{100 * value:.1f}" if key in _FRACTIONS else f"{value:.0f}"
        return (
            text
            if spread is None or key in _COUNTS
            else (f"{text} ± {100 * spread[name][key]:.1f}")
        )

    return _table(
        ("tracker", "boxes", *_FRACTIONS, *_COUNTS),
        [
            (name, row["boxes"], *(shown(name, key) for key in (*_FRACTIONS, *_COUNTS)))
            for name, row in result["rows"].items()
        ],
    )


def _difference_lines(result: Mapping[str, Any]) -> list[str]:
    """Points by which the own tracker is ahead of each baseline, and whether seeds explain them."""
    several = len(result["runs"]) > 1
    rows = []
    for found in result["differences"]:
        cells = []
        for key in _COMPARED:
            gain = found[key]
            text = f"{100 * gain['difference']:+.1f}"
            if several:
                noise = "" if gain["beyond_noise"] else " (noise)"
                text += f" ± {100 * gain['error']:.1f}{noise}"
            cells.append(text)
        rows.append((found["own"], found["against"], *cells))
    if not rows:
        return []
    how = (
        "± is half of the 95 % confidence interval over runs; (noise): not larger than that, so the"
        " seeds alone may explain it"
        if several
        else "of one run, which tells nothing of the noise of seeds: type checkpoint=[RUN1,RUN2,…]"
    )
    table = _table(("own", "against", *_COMPARED), rows)
    return [f"Differences in points ({how}):", "", table, ""]


def _tuning_lines(result: Mapping[str, Any]) -> list[str]:
    """What to type for the thresholds that were chosen."""
    lines = [
        "Thresholds chosen by HOTA on training sequences. The stock ones stay where the gain is not"
        " above its standard error, which does not tell whether a model that was trained on these"
        " sequences finds as much elsewhere:",
        "",
    ]
    for number, run in enumerate(result["runs"], start=1):
        label = f"run {number}, " if len(result["runs"]) > 1 else ""
        for name, tuned in run["tuning"].items():
            group = "" if name == OWN_TUNED else f"tracker={tuned['option']} "
            words = " ".join(f"tracker.{k}={value:g}" for k, value in tuned["parameters"].items())
            error = tuned["gain_error"]
            known = "unknown" if error is None else f"{100 * error:.1f}"
            lines.append(
                f"- {label}{name}: `{group}{words}` (HOTA there {100 * tuned['hota']:.1f}, stock"
                f" {100 * tuned['stock_hota']:.1f}, best of {tuned['tried']} combinations"
                f" {100 * tuned['best_hota']:.1f}, standard error of its gain"
                f" {known}; {len(tuned['sequences'])} sequences)"
            )
    return lines


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose source is aligned too: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    names = 2

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = tuple(
        "-" * width if place < names else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    )
    return "\n".join(line(cells) for cells in (head, rule, *rows))
