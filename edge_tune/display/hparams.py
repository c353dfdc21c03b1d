"""What TensorBoard's HParams tab reads: the searched parameters and the metrics, then each network's values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from tensorboardX.proto.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    Interval,
    MetricInfo,
    MetricName,
)
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from edge_tune.experiment import Choice, PrunerGroup
from edge_tune.metrics import METRICS
from edge_tune.records.endings import RULES
from edge_tune.records.results import Record

ENDINGS = ("finished", *RULES, "failed")
METRICS_IN_ORDER = tuple(dict.fromkeys(("top1", "latency_ratio", "latency_ms", "total_latency_ms", "top5", *METRICS)))
"""TensorBoard shows the first five until it is told otherwise."""

SECTIONS = {
    "top1": "validation",
    "top5": "validation",
    "loss": "validation",
    "train_loss": "retraining",
    "lr": "retraining",
    "parameters": "size",
    "macs": "size",
}

Groups = Mapping[str, PrunerGroup]


class Proto(Protocol):
    """A message of protobuf."""

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        """Return the message as bytes."""


def tag(metric: str) -> str:
    """Return the name under which a metric's curve stands, with its section: what is not listed is the device's."""
    return f"{SECTIONS.get(metric, 'device')}/{metric}"


def columns(groups: Groups) -> Any:
    """Return the summary that lists the parameters with their ranges, and the metrics. A folder holds it once."""
    experiment = Experiment(
        hparam_infos=[
            *(_sparsity(label, group) for label, group in groups.items()),
            *(_text(_structure(label), group.structures) for label, group in groups.items() if _chooses(group)),
            _text("ended", ENDINGS),
        ],
        metric_infos=[MetricInfo(name=MetricName(tag=tag(metric)), display_name=metric) for metric in METRICS_IN_ORDER],
    )
    return _summary("experiment", experiment=experiment)


def row(record: Record, name: str, groups: Groups) -> list[Any]:
    """Return the summaries that give a network that has ended its line; its metrics are the last of its curves."""
    start = SessionStartInfo(group_name=name, start_time_secs=_seconds(record.started_at))
    for label, group in groups.items():
        start.hparams[label].number_value = record.sparsities.get(label, 0.0)
        if _chooses(group):
            start.hparams[_structure(label)].string_value = record.structures.get(label, group.structures[0])
    start.hparams["ended"].string_value = record.stopped_by or record.status
    end = SessionEndInfo(
        status=STATUS_FAILURE if record.status == "failed" else STATUS_SUCCESS, end_time_secs=_seconds(record.ended_at)
    )
    return [
        _summary("session_start_info", session_start_info=start),
        _summary("session_end_info", session_end_info=end),
    ]


def _sparsity(label: str, group: PrunerGroup) -> Any:
    info = HParamInfo(name=label, type=DATA_TYPE_FLOAT64, description="sparsity")
    if isinstance(group.sparsity, Choice):
        info.domain_interval.CopyFrom(
            Interval(min_value=min(group.sparsity.values), max_value=max(group.sparsity.values))
        )
    else:
        info.domain_interval.CopyFrom(Interval(min_value=group.sparsity.low, max_value=group.sparsity.high))
    return info


def _text(name: str, values: Any) -> Any:
    info = HParamInfo(name=name, type=DATA_TYPE_STRING)
    info.domain_discrete.extend(values)
    return info


def _structure(label: str) -> str:
    return f"{label} structure"


def _chooses(group: PrunerGroup) -> bool:
    return len(group.structures) > 1


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _summary(name: str, **content: Proto) -> Any:
    data = HParamsPluginData(**content, version=0).SerializeToString()
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=data))
    return Summary(value=[Summary.Value(tag=f"_hparams_/{name}", metadata=metadata)])
