"""Tells TensorBoard's HParams tab of a sweep's trials.

The tab needs one file of events per trial that says which parameters it had and how it ended; the
metrics it takes from the curves that the run wrote. Each report replaces the files. By
TensorBoard's own protocol, because PyTorch's writer makes a new run for each trial and needs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scene_track.sweeps.importance import number
from scene_track.sweeps.results import Result, SweepResults

_FILE = "events.out.tfevents.0.hparams"  # TensorBoard looks for "tfevents"
_SHOWN = 8  # metrics in the tab


def write_hparams(sweep: SweepResults) -> None:
    """Write the events of a sweep and of each of its trials."""
    from tensorboard.plugins.hparams import summary_v2

    columns, numeric = [], set()
    for key in sweep.params:
        texts = [r.trial.params[key] for r in sweep.results if key in r.trial.params]
        numbers = [value for text in texts if (value := number(text)) is not None]
        domain: Any = summary_v2.Discrete(sorted(set(texts)))
        if len(numbers) == len(texts):
            numeric.add(key)
            domain = summary_v2.RealInterval(min(numbers), max(numbers))
        columns.append(summary_v2.HParam(key, domain))
    shown = [name for name in sweep.metrics if name.startswith("val/")][:_SHOWN]
    metrics = [summary_v2.Metric(name) for name in (f"best/{sweep.monitor}", *shown)]
    _write(sweep.folder, [summary_v2.hparams_config_pb(hparams=columns, metrics=metrics)])
    for result in sweep.results:
        trial = result.trial
        values: dict[str, Any] = {
            key: number(text) if key in numeric else text for key, text in trial.params.items()
        }
        name, begun = f"{sweep.folder.name}/{trial.number}", trial.started or 0.0
        events = [summary_v2.hparams_pb(values, trial_id=name, start_time_secs=begun)]
        _write(result.folder, [*events, *_end(result, f"best/{sweep.monitor}")])


def _end(result: Result, tag: str) -> list[Any]:
    """How a trial ended, and its objective; TensorBoard's own function for it needs TensorFlow."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    api: Any = api_pb2  # protobuf makes these modules when they are imported
    data: Any = plugin_data_pb2
    proto: Any = summary_pb2
    trial = result.trial
    values = []
    if trial.state in ("complete", "stopped", "failed"):
        status = api.STATUS_FAILURE if trial.state == "failed" else api.STATUS_SUCCESS
        end = (trial.started or 0.0) + (trial.wall_s or 0.0)
        ended = data.HParamsPluginData(
            session_end_info=data.SessionEndInfo(status=status, end_time_secs=end)
        )
        about = metadata.create_summary_metadata(ended)
        values.append({"tag": metadata.SESSION_END_INFO_TAG, "metadata": about})
    if trial.objective is not None:  # a curve: the tab shows the last value of the others
        values.append({"tag": tag, "simple_value": trial.objective})
    return [proto.Summary(value=[proto.Summary.Value(**value)]) for value in values]


def _write(folder: Path, summaries: list[Any]) -> None:
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    proto: Any = event_pb2
    first = proto.Event(wall_time=0.0, file_version="brain.Event:2")
    temporary = folder / f".{_FILE.replace('tfevents', 'new')}"
    with temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in [first, *(proto.Event(wall_time=0.0, step=0, summary=s) for s in summaries)]:
            writer.write(event.SerializeToString())
    temporary.replace(folder / _FILE)
