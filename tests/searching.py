"""A searcher without Ray: trials of closed formulas, one after another."""

from dataclasses import replace
from typing import Any

import edge_tune as et
from edge_tune.parameters import Point
from edge_tune.records.endings import GATE
from edge_tune.records.results import Record
from edge_tune.search import trainable
from edge_tune.search.searcher import Searcher
from edge_tune.search.simulation import Simulation
from edge_tune.search.trainable import Planner
from tests.asked import sparsities
from tests.networks import BLOCKS, experiment

CHOICES = {
    label: et.PrunerGroup(["filters", "channels"], group.weights, sparsity=et.Choice([0.0, 0.5, 0.9]))
    for label, group in BLOCKS.items()
}
HALF = {"half": {"first": 0.5, "second": 0.5}}


def finished(number: int, point: Point, one: et.Experiment, **changes: object) -> Record:
    """The record of a trial whose latency is a bowl with its bottom at 0.3 / 0.6; no point removes nothing."""
    its = sparsities(point).values() or (0.0, 0.0)
    latency = sum((s - best) ** 2 for s, best in zip(its, (0.3, 0.6), strict=True))
    return Record(
        **{  # type: ignore[arg-type]
            "trial": number,
            "status": "finished",
            "baseline": trainable.baseline_name(one, number),
            "point": point,
            "metrics": {"latency_ms": latency, "top1": 50.0},
            **changes,
        }
    )


UNPRUNED = Record(
    trial=0,
    baseline="unpruned",
    status="finished",
    metrics={"latency_ratio": 1.0, "latency_ms": 4.0, "top1": 90.0, "parameters": 1e6},
)


def ran(number: int, point: Point, one: et.Experiment, best: float = float("inf")) -> Record:
    """A trial whose first sparsity is worth more latency, and costs less accuracy, than the second."""
    first, second = sparsities(point).values()
    ratio = 1 - 0.6 * first - 0.3 * second
    metrics = {
        "latency_ratio": ratio,
        "latency_ms": 4 * ratio,
        "top1": 90 - 8 * first**3 - 40 * second**2,
        "parameters": 1e6 * (1 - first),
    }
    record = finished(number, point, one, metrics=metrics, epoch=2)
    if ratio > best:
        return replace(record, status="stopped", stopped_by=GATE, epoch=0, metrics={**metrics, "top1": 10.0})
    return record


def searching(one: et.Experiment, *arguments: Any, planner: Planner | None = None, **more: Any) -> Searcher:
    """A searcher for which each point is a network of its own, unless a planner says otherwise."""
    return Searcher(one, planner or Simulation(one).planner(), *arguments, **more)


def go_on(searcher: Searcher, one: et.Experiment, trials: int) -> list[Record]:
    """Let a searcher run so many trials of `ran`, one after another, none of which repeats another."""
    records: list[Record] = []
    for number in range(trials):
        config = searcher.suggest(f"{searcher.next_number} {number}")
        assert isinstance(config, dict)
        records.append(ran(config["trial"], config["point"], one))
        searcher.end(records[-1])
    return records


def run_on(searcher: Searcher, one: et.Experiment, trials: int) -> list[Record]:
    """Let a searcher run `trials` trials, one after another. Returns their records and those taken over, by number."""
    records: list[Record] = []
    for _ in range(trials):
        trial_id = f"ray_{searcher.next_number}_{len(records)}"
        config = searcher.suggest(trial_id)
        records += searcher.take_news()[1]
        if not isinstance(config, dict):
            return records
        record = finished(config["trial"], config["point"], one)
        searcher.end(record)
        records.append(record)
    return records


def study(trials: int = 40, method: Any = "hyperopt", **changes: object) -> et.Experiment:
    """A study without retraining, unless that is changed: one in which the unpruned network is no trial."""
    settings = {"retraining": et.Retraining(epochs=0, lr=0.1), **changes}
    return experiment(search=et.Search(method, trials=trials, seed=3), **settings)
