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

from edge_tune.metrics import METRICS
from edge_tune.parameters import Parameter
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

Parameters = Mapping[str, Parameter]


class Proto(Protocol):
    """A message of protobuf."""

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        """Return the message as bytes."""


def tag(metric: str) -> str:
    """Return the name under which a metric's curve stands, with its section: what is not listed is the device's."""
    return f"{SECTIONS.get(metric, 'device')}/{metric}"


def columns(parameters: Parameters) -> Any:
    """Return the summary that lists the parameters with their ranges, and the metrics. A folder holds it once."""
    experiment = Experiment(
        hparam_infos=[
            *(_parameter(name, parameter) for name, parameter in _searched(parameters).items()),
            _text("ended", ENDINGS),
        ],
        metric_infos=[MetricInfo(name=MetricName(tag=tag(metric)), display_name=metric) for metric in METRICS_IN_ORDER],
    )
    return _summary("experiment", experiment=experiment)


def row(record: Record, name: str, parameters: Parameters) -> list[Any]:
    """Return the summaries that give a network that has ended its line; its metrics are the last of its curves."""
    start = SessionStartInfo(group_name=name, start_time_secs=_seconds(record.started_at))
    for parameter, its in _searched(parameters).items():
        if isinstance(value := record.point.get(parameter, its.default if its.limits is None else 0.0), str):
            start.hparams[parameter].string_value = value
        else:
            start.hparams[parameter].number_value = value
    start.hparams["ended"].string_value = record.stopped_by or record.status
    end = SessionEndInfo(
        status=STATUS_FAILURE if record.status == "failed" else STATUS_SUCCESS, end_time_secs=_seconds(record.ended_at)
    )
    return [
        _summary("session_start_info", session_start_info=start),
        _summary("session_end_info", session_end_info=end),
    ]


def _searched(parameters: Parameters) -> Parameters:
    return {name: parameter for name, parameter in parameters.items() if not parameter.is_fixed}


def _parameter(name: str, parameter: Parameter) -> Any:
    if parameter.limits is None:
        return _text(name, parameter.values)
    low, high = parameter.limits
    return HParamInfo(name=name, type=DATA_TYPE_FLOAT64, domain_interval=Interval(min_value=low, max_value=high))


def _text(name: str, values: Any) -> Any:
    info = HParamInfo(name=name, type=DATA_TYPE_STRING)
    info.domain_discrete.extend(values)
    return info


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _summary(name: str, **content: Proto) -> Any:
    data = HParamsPluginData(**content, version=0).SerializeToString()
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=data))
    return Summary(value=[Summary.Value(tag=f"_hparams_/{name}", metadata=metadata)])
