"""A sweep's trials for TensorBoard's HParams tab.

Special here: TensorBoard asks for one file of events per trial that says which parameters it had
and what became of it; the metrics it takes from the curves that the run wrote itself. The files are
written by the report, so that they say what the report says, with names that are always the same,
so that they are replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scene_track.sweeps.importance import number
from scene_track.sweeps.results import Result, SweepResults

# TensorBoard takes a file of events by this part of its name.
_FILE = "events.out.tfevents.0.hparams"
_SHOWN = 8  # metrics in the tab


def write_hparams(sweep: SweepResults) -> None:
    """Write the events of a sweep and of each of its trials."""
    from tensorboard.plugins.hparams import api_pb2, summary_v2

    api: Any = api_pb2  # made by protobuf when it is imported, so no checker knows it
    values = {
        key: [r.trial.params[key] for r in sweep.results if key in r.trial.params]
        for key in sweep.params
    }
    numeric = {key for key, texts in values.items() if all(number(t) is not None for t in texts)}
    shown = [name for name in sweep.metrics if name.startswith("val/")][:_SHOWN]
    columns = []
    for key in sweep.params:
        numbers = [number(text) or 0.0 for text in values[key]] if key in numeric else []
        domain = (
            summary_v2.RealInterval(min(numbers), max(numbers))
            if numbers
            else summary_v2.Discrete(sorted(set(values[key])))
        )
        columns.append(summary_v2.HParam(key, domain))
    config = summary_v2.hparams_config_pb(
        hparams=columns,
        metrics=[summary_v2.Metric(name) for name in (f"best/{sweep.monitor}", *shown)],
    )
    _write(sweep.folder, [config])
    ends = {"complete": api.STATUS_SUCCESS, "stopped": api.STATUS_SUCCESS,
            "failed": api.STATUS_FAILURE}  # fmt: skip
    for result in sweep.results:
        hparams: dict[str, Any] = {
            key: number(text) if key in numeric else text
            for key, text in result.trial.params.items()
        }
        start = summary_v2.hparams_pb(
            hparams,
            trial_id=f"{sweep.folder.name}/{result.trial.number}",
            start_time_secs=result.trial.started or 0.0,
        )
        parts = [start]
        if result.trial.state in ends:
            end = (result.trial.started or 0.0) + (result.trial.wall_s or 0.0)
            parts.append(_ended(ends[result.trial.state], end))
        _write(result.folder, [*parts, *_objective(sweep, result)])


def _ended(status: Any, when: float) -> Any:
    """That a trial has ended; TensorBoard's own function for it needs TensorFlow."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    data: Any = plugin_data_pb2
    end = data.SessionEndInfo(status=status, end_time_secs=when)
    about = metadata.create_summary_metadata(data.HParamsPluginData(session_end_info=end))
    return _summary(tag=metadata.SESSION_END_INFO_TAG, metadata=about)


def _objective(sweep: SweepResults, result: Result) -> list[Any]:
    """The best value as a curve of its own: the tab shows the last value of the others."""
    if result.objective is None:
        return []
    return [_summary(tag=f"best/{sweep.monitor}", simple_value=result.objective)]


def _summary(**value: Any) -> Any:
    from tensorboard.compat.proto import summary_pb2

    proto: Any = summary_pb2
    return proto.Summary(value=[proto.Summary.Value(**value)])


def _write(folder: Path, summaries: list[Any]) -> None:
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    proto: Any = event_pb2
    temporary = folder / f".{_FILE.replace('tfevents', 'new')}"
    with temporary.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(proto.Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for part in summaries:
            writer.write(proto.Event(wall_time=0.0, step=0, summary=part).SerializeToString())
    temporary.replace(folder / _FILE)
