"""The trials of a study for machines: one flat row a trial as CSV or Parquet, and a summary as JSON.

Columns: what a trial is and how it ended; `same_as`, the trial whose record it took over; `paused_by`, the rules that
have paused it, and `promoted`, whether it was continued then; `audited_by` and `audited_epoch`, the rule that would
have ended it and when, had it not been drawn to be trained all the same; its point, each parameter under its name, as
in `layer_1.sparsity`; every metric as it is now, and `pruned.METRIC` right after pruning; `RATIO.low` and `RATIO.high`,
the 95 % interval of a ratio; `reference.LATENCY`, the unpruned network's in the same turns; `is_precise`, whether the
ratios are known to 1 %; `predicted.WHEN.METRIC`, what was expected of it when it was suggested, and right after its
pruning; `kept.WEIGHT`, the filters or channels that stay; `seconds.STAGE`; where, on what and when it ran.
A trial has no value in a column that its record does not speak of. Accuracies are on the validation split.
"""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from edge_tune.metrics import METRICS, RATIO_OF, RATIOS
from edge_tune.objective import Objective
from edge_tune.parameters import Value, column_type
from edge_tune.records.choosing import Ranking, ranking_line
from edge_tune.records.endings import pauses
from edge_tune.records.entries import Evidence, Metrics
from edge_tune.records.jsonfiles import plain
from edge_tune.records.ranking import (
    FRONT,
    better_in_both,
    endings,
    last_measurement,
    pareto_front,
    with_metrics,
)
from edge_tune.records.results import Record
from edge_tune.records.verdict import Verdict

Cells = dict[str, Any]
WHOLE_NUMBERS = {"trial", "epoch", "attempts", "same_as", "audited_epoch"}
TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
TEXTS = {
    "name",
    "status",
    "stopped_by",
    "reason",
    "collapsed",
    "paused_by",
    "audited_by",
    "device",
    "device_name",
    "precision",
    "runtime",
    "runtime_version",
    "node",
    "started_at",
    "ended_at",
}


def table(records: Sequence[Record]) -> pa.Table:
    """Return one row for each record, in their order; columns that every study has are there even without a record."""
    columns: dict[str, list[Any]] = {}
    for section in SECTIONS:
        rows = [section(record) for record in records]
        for name in dict.fromkeys(name for row in (section(Record(trial=0)), *rows) for name in row):
            columns[name] = [row.get(name) for row in rows]
    asked = {name for record in records for name in record.point}
    return pa.table(
        {
            name: _asked_column(values) if name in asked else pa.array(values, _type(name))
            for name, values in columns.items()
        }
    )


def to_csv(records: Sequence[Record]) -> bytes:
    """Return the table as CSV in UTF-8, with a header; what is unknown is empty."""
    file = io.BytesIO()
    csv.write_csv(table(records), file, csv.WriteOptions(quoting_style="needed"))
    return file.getvalue()


def to_parquet(records: Sequence[Record]) -> bytes:
    """Return the table as a Parquet file; what is unknown is null."""
    file = io.BytesIO()
    parquet.write_table(table(records), file)
    return file.getvalue()


def summary(
    records: Sequence[Record],
    target: Objective,
    chosen: Record | None,
    verdict: Verdict | None = None,
    ranking: Ranking | None = None,
) -> dict[str, Any]:
    """Return what a study came to, as plain JSON types.

    Args:
        records: Its baselines and trials.
        target: What the search looked for.
        chosen: The network to take.
        verdict: What its end wrote; None if the study has not come to its end.
        ranking: What `--objective`, or a target with conditions, makes of it.
    """
    trials = [record for record in records if not record.baseline]
    baselines = [record for record in records if record.baseline]
    return {
        "target": target.text,
        "trials": sum(record.same_as is None for record in trials),
        "endings": endings(trials),
        "chosen": _entry(chosen) if chosen else None,
        "front": [_entry(record) for record in pareto_front(trials, FRONT)],
        "baselines": [_entry(record) for record in baselines],
        "better_in_both": {
            baseline.name: [trial.trial for trial in better_in_both(trials, baseline)]
            for baseline in with_metrics(baselines, *FRONT)
        },
        "objective": _objective(ranking) if ranking else None,
        "verdict": plain(verdict) if verdict else None,
    }


def _objective(ranking: Ranking) -> dict[str, Any]:
    return {
        "text": ranking.objective.text,
        "says": ranking_line(ranking),
        "ranking": [_entry(record) for record in ranking.records],
        "nearest": _entry(ranking.nearest) if ranking.nearest else None,
    }


def _entry(record: Record) -> dict[str, Any]:
    """Return what the summary says of a network."""
    evidence = last_measurement(record)
    return {
        "trial": record.trial,
        "name": record.name,
        "status": record.status,
        "point": dict(record.point),
        "epoch": record.epoch,
        "pruned": dict(record.pruned),
        "metrics": dict(record.metrics),
        "ratios": plain(evidence.intervals),
        "reference": evidence.reference_ms,
        "is_precise": evidence.is_precise,
    }


def _what(record: Record) -> Cells:
    return {
        "trial": record.trial,
        "name": record.name,
        "baseline": record.baseline is not None,
        "status": record.status,
        "stopped_by": record.stopped_by,
        "reason": record.reason,
        "collapsed": record.collapsed,
        "epoch": record.epoch,
        "attempts": record.attempts,
        "same_as": record.same_as,
        "paused_by": ", ".join(pauses(record)) or None,
        "promoted": bool(record.paused) if pauses(record) else None,
        "audited_by": record.audit.rule if record.audit else None,
        "audited_epoch": record.audit.epoch if record.audit else None,
    }


def _asked(record: Record) -> Cells:
    return dict(record.point)


def _kept(record: Record) -> Cells:
    return {f"kept.{cut.part}": cut.kept for cut in record.plan}


def _predicted(record: Record) -> Cells:
    return {
        f"predicted.{when}.{metric}": figure
        for when, metrics in record.predictions.items()
        for metric, figure in metrics.items()
    }


def _now(record: Record) -> Cells:
    return _measured(record.metrics, last_measurement(record))


def _pruned(record: Record) -> Cells:
    cells = _measured(record.pruned, record.measurements.get("pruned", Evidence()))
    return {f"pruned.{name}": value for name, value in cells.items()}


def _circumstances(record: Record) -> Cells:
    evidence = last_measurement(record)
    runtime, version = evidence.measured_by
    return {
        "device": evidence.device,
        "device_name": evidence.device_name,
        "precision": evidence.precision,
        "runtime": runtime,
        "runtime_version": version,
        "node": record.node or None,
        "started_at": record.started_at or None,
        "ended_at": record.ended_at or None,
        **{f"seconds.{stage}": seconds for stage, seconds in record.seconds.items()},
    }


SECTIONS = (_what, _asked, _now, _pruned, _predicted, _kept, _circumstances)


def _measured(metrics: Metrics, evidence: Evidence) -> Cells:
    """Return the metrics, each ratio followed by its interval."""
    intervals = evidence.intervals
    cells: Cells = {}
    for name in dict.fromkeys((*METRICS, *metrics)):
        cells[name] = metrics.get(name)
        if name in RATIOS:
            interval = intervals.get(name)
            cells[f"{name}.low"] = interval.low if interval else None
            cells[f"{name}.high"] = interval.high if interval else None
    cells.update({f"reference.{name}": evidence.reference_ms.get(name) for name in RATIO_OF})
    return {**cells, "is_precise": evidence.is_precise if intervals else None}


def _asked_column(values: Sequence[Value | None]) -> pa.Array:
    """Return the column of a parameter, of which damaged records may hold values of several types."""
    kind = column_type(values)
    return pa.array([None if value is None else kind(value) for value in values], TYPES[kind])


def _type(column: str) -> pa.DataType:
    if column in WHOLE_NUMBERS or column.startswith("kept."):
        return pa.int64()
    if column in TEXTS:
        return pa.string()
    return pa.bool_() if column in ("baseline", "promoted") or column.endswith("is_precise") else pa.float64()
