import csv
import io
import json
from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import parquet

import edge_tune as et
from edge_tune.objective import Objective
from edge_tune.objective_text import parse
from edge_tune.records import choosing, tables
from edge_tune.records.entries import Cut, Evidence
from edge_tune.records.results import Record, Stop
from edge_tune.records.verdict import Verdict
from tests.asked import asked
from tests.studies import evidence

TARGET = Objective.of(et.Minimise("latency_ms"))


def measured(ratio: float) -> Evidence:
    interval = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.02}
    return evidence(
        device="CPU",
        precision="f32",
        ratios={"latency_ratio": interval, "total_latency_ratio": interval, "is_precise": ratio > 0.6},
        reference={"latency": {"median": 2.0}, "total_latency": {"median": 2.25}},
    )


def metrics(top1: float, latency_ratio: float) -> dict[str, float]:
    return {"top1": top1, "latency_ms": 2 * latency_ratio, "latency_ratio": latency_ratio, "parameters": 1000}


UNPRUNED = Record(trial=0, baseline="unpruned", status="finished", pruned=metrics(90, 1), metrics=metrics(90, 1))
RETRAINED = Record(
    trial=2,
    status="finished",
    point=asked({"layer_1": 0.5, "layer_2": 0.0}, {"layer_1": "filters", "layer_2": "channels"}),
    epoch=3,
    pruned=metrics(40, 0.75),
    metrics=metrics(85, 0.5),
    plan=(
        Cut("a.weight", "filters", "out", "l1", 0.5, 16, tuple(range(8))),
        Cut("b.weight", "channels", "in", "l1", 0.0, 16, tuple(range(16))),
    ),
    measurements={"pruned": measured(0.75), "retrained": measured(0.5)},
    seconds={"prune": 0.5, "retrain": 60.0},
    node="vm",
    started_at="2026-11-22T10:00:00.000+00:00",
    ended_at="2026-11-22T10:01:30.000+00:00",
)
FAILED = Record(trial=3, status="failed", reason='RetrainingError: "loss", nan', point={"layer_1.sparsity": 0.9})
STOPPED = Record(trial=4, status="stopped", stopped_by="asha", reason="asha: late", metrics=metrics(99, 0.1))
STUDY = [UNPRUNED, RETRAINED, FAILED, STOPPED]


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_table_has_a_row_a_record_with_everything_asked_done_and_measured() -> None:
    rows = tables.table(STUDY).to_pylist()
    assert [(row["trial"], row["name"], row["baseline"]) for row in rows] == [
        (0, "unpruned", True),
        (2, "trial_0002", False),
        (3, "trial_0003", False),
        (4, "trial_0004", False),
    ]
    said = {name: value for name, value in rows[1].items() if value is not None}
    assert said == {
        "trial": 2,
        "name": "trial_0002",
        "baseline": False,
        "status": "finished",
        "epoch": 3,
        "attempts": 1,
        "layer_1.sparsity": 0.5,
        "layer_2.sparsity": 0.0,
        "layer_1.structure": "filters",
        "layer_2.structure": "channels",
        "layer_1.importance": "l1",
        "layer_2.importance": "l1",
        "top1": 85.0,
        "latency_ms": 1.0,
        "latency_ratio": 0.5,
        "latency_ratio.low": 0.49,
        "latency_ratio.high": 0.52,
        "total_latency_ratio.low": 0.49,
        "total_latency_ratio.high": 0.52,
        "parameters": 1000.0,
        "pruned.top1": 40.0,
        "pruned.latency_ms": 1.5,
        "pruned.latency_ratio": 0.75,
        "pruned.latency_ratio.low": 0.74,
        "pruned.latency_ratio.high": 0.77,
        "pruned.total_latency_ratio.low": 0.74,
        "pruned.total_latency_ratio.high": 0.77,
        "pruned.parameters": 1000.0,
        "kept.a.weight": 8,
        "kept.b.weight": 16,
        "device": "CPU",
        "precision": "f32",
        "node": "vm",
        "started_at": "2026-11-22T10:00:00.000+00:00",
        "ended_at": "2026-11-22T10:01:30.000+00:00",
        "reference.latency_ms": 2.0,
        "reference.total_latency_ms": 2.25,
        "is_precise": False,
        "pruned.reference.latency_ms": 2.0,
        "pruned.reference.total_latency_ms": 2.25,
        "pruned.is_precise": True,
        "seconds.prune": 0.5,
        "seconds.retrain": 60.0,
    }
    assert (rows[2]["status"], rows[2]["reason"], rows[2]["top1"]) == ("failed", FAILED.reason, None)
    assert (rows[3]["stopped_by"], rows[3]["kept.a.weight"]) == ("asha", None)


def test_csv_and_parquet_hold_the_same_table() -> None:
    table = parquet.read_table(io.BytesIO(tables.to_parquet(STUDY)))
    rows = read_csv(tables.to_csv(STUDY))
    assert list(rows[0]) == table.column_names

    def text(value: object) -> str:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    for mine, theirs in zip(rows, table.to_pylist(), strict=True):
        for name, value in theirs.items():
            assert (float(mine[name]) == value) if isinstance(value, float) else (mine[name] == text(value))


def test_parquet_has_types_even_where_nothing_is_known() -> None:
    schema = parquet.read_schema(io.BytesIO(tables.to_parquet([UNPRUNED])))
    assert (schema.field("reason").type, schema.field("stopped_by").type) == (pa.string(), pa.string())
    assert (schema.field("trial").type, schema.field("baseline").type) == (pa.int64(), pa.bool_())
    assert schema.field("latency_ratio.low").type == pa.float64()
    kept = parquet.read_schema(io.BytesIO(tables.to_parquet([UNPRUNED, RETRAINED]))).field("kept.a.weight")
    assert kept.type == pa.int64()


def test_tables_of_an_empty_study_have_a_header() -> None:
    assert read_csv(tables.to_csv([])) == []
    (header,) = csv.reader(io.StringIO(tables.to_csv([]).decode()))
    assert header[:3] == ["trial", "name", "baseline"]
    assert {"top1", "pruned.latency_ratio.high", "ended_at"} <= set(header)
    assert parquet.read_table(io.BytesIO(tables.to_parquet([]))).num_rows == 0


def test_table_takes_records_of_other_versions() -> None:
    odd = Record.from_entry({"trial": 7, "metrics": {"top1": 1, "energy_j": 2}, "colour": "blue"})
    one = {"ratio": 0.5, "low": 0.5, "high": 0.75}
    bare = Record(trial=8, measurements={"pruned": evidence(), "retrained": evidence(ratios={"latency_ratio": one})})
    rows = tables.table([RETRAINED, odd, bare]).to_pylist()
    assert [row["energy_j"] for row in rows] == [None, 2.0, None]
    assert [row["latency_ratio.low"] for row in rows] == [0.49, None, 0.5]
    assert [row["latency_ratio.high"] for row in rows] == [0.52, None, 0.75]


def test_summary_says_what_the_study_came_to() -> None:
    ranking = choosing.rank(parse("maximise top1 where latency_ratio < 0.6"), STUDY)
    verdict = Verdict(rows=[], chosen=2, better_in_both={}, endings={})
    summary = tables.summary(STUDY, TARGET, ranking.best, verdict, ranking)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["target"] == "minimise latency_ms"
    assert summary["endings"] == {
        "finished": 1,
        "hopeless": 0,
        "asha": 1,
        "time_limit": 0,
        "predicted": 0,
        "gate": 0,
        "failed": 1,
    }
    assert (summary["trials"], summary["chosen"]["name"], summary["verdict"]["chosen"]) == (3, "trial_0002", 2)
    assert summary["chosen"]["ratios"]["latency_ratio"] == {"ratio": 0.5, "low": 0.49, "high": 0.52}
    assert [entry["trial"] for entry in summary["front"]] == [2]
    assert [entry["name"] for entry in summary["baselines"]] == ["unpruned"]
    assert summary["better_in_both"] == {"unpruned": []}
    assert [entry["trial"] for entry in summary["objective"]["ranking"]] == [2]
    assert summary["objective"]["says"].startswith("maximise top1 where latency_ratio < 0.6: trial_0002, top1 85")


def test_summary_chooses_as_the_objective_does() -> None:
    slower = replace(RETRAINED, trial=9, metrics={**RETRAINED.metrics, "latency_ms": 99.0, "top1": 99.0})
    studied = [*STUDY, slower]
    ranking = choosing.rank(parse("maximise top1"), studied)
    assert ranking.best is not None
    assert tables.summary(studied, TARGET, ranking.best, ranking=ranking)["chosen"]["trial"] == 9
    none = choosing.rank(parse("maximise top1 where top1 >= 100"), studied)
    assert tables.summary(studied, TARGET, none.best, ranking=none)["chosen"] is None


@pytest.mark.parametrize("records", [[], [Record(trial=7, status="finished", metrics={"top1": 3.0})], [FAILED]])
def test_summary_of_a_study_without_a_best_trial_says_so(records: list[Record]) -> None:
    summary = tables.summary(records, TARGET, None)
    assert (summary["chosen"], summary["front"], summary["objective"], summary["verdict"]) == (None, [], None, None)


def test_table_says_who_was_paused_audited_and_promoted_and_what_was_predicted() -> None:
    asha, late = Stop("asha", 1, "behind"), Stop("predicted", 2, "too little")
    records = [
        Record(trial=1, status="finished"),
        Record(trial=2, status="stopped", stopped_by="predicted", paused=(asha,)),
        Record(trial=3, status="stopped", stopped_by="asha"),
        Record(trial=4, status="finished", paused=(asha, late)),
        Record(trial=5, status="finished", audit=late, predictions={"suggested": {"top1": 81.5}}),
        Record(trial=6, status="stopped", stopped_by="gate"),
    ]
    rows = tables.table(records).to_pylist()
    names = ("paused_by", "promoted", "audited_by", "audited_epoch", "predicted.suggested.top1")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (None, None, None, None, None),
        ("asha, predicted", True, None, None, None),
        ("asha", False, None, None, None),
        ("asha, predicted", True, None, None, None),
        (None, None, "predicted", 2, 81.5),
        (None, None, None, None, None),
    ]
