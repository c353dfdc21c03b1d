"""A search without Ray: simulated trials one after another, judged by the rules as Ray Tune would have them judged."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import edge_tune as et
from edge_tune.records.endings import is_paused
from edge_tune.records.results import Record
from edge_tune.search.rules import Rules
from edge_tune.search.searcher import Searcher
from edge_tune.search.simulation import BYTES, Simulation
from edge_tune.search.stopping import StudyLimits
from edge_tune.search.trainable import as_result, baseline_name
from edge_tune.search.tune import Recorder
from tests.devices import Formula


class Kept:
    """A listener that keeps the records of trials that ended, in their order.

    Attributes:
        let_go: Trials whose checkpoint it was told to delete.
        epochs: That trials were really trained for, baselines not counted.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.started: list[int] = []
        self.promoted: list[int] = []
        self.let_go: set[int] = set()
        self.epochs = 0

    def on_start(self, trial: int, point: object, expected: object) -> None:
        self.started.append(trial)

    def on_end(self, record: Record, weights: bytes | None) -> None:
        self.records.append(record)

    def on_repeat(self, record: Record) -> None:
        self.records.append(record)

    def on_promoted(self, record: Record) -> None:
        self.promoted.append(record.trial)

    def on_note(self, *_: object) -> None:
        """Take no note."""

    def on_let_go(self, trial: int) -> None:
        self.let_go.add(trial)

    on_report = on_wait = on_lost = on_step = on_note


def unpruned(one: et.Experiment) -> Record:
    """The record of the unpruned network."""
    device = Formula(reference=bytes(BYTES))
    (report,) = Simulation(one).begin({}, device, trial=0, baseline="unpruned", checkpoint=None)
    return report.record


def drive(
    one: et.Experiment,
    ended: Sequence[Record] = (),
    under_way: Iterable[Record] = (),
    *,
    most: int | None = None,
    continued: Mapping[int, Record] | None = None,
    let_go: Collection[int] = (),
    listener: Kept | None = None,
) -> list[Record]:
    """Run a study from these records on, `most` trials or all. Returns their records in the order in which they ended.

    Args:
        ended: The last record of a trial counts.
        under_way: Of trials that go on from here.
        continued: Those of them that were paused, as they were then.
        let_go: Trials whose checkpoint was let go; other paused ones go on from theirs.
        listener: Who is told.
    """
    simulation, listener = Simulation(one), listener or Kept()
    last = {record.trial: record for record in ended} | dict(continued or {})
    known = [last[trial] for trial in sorted(last)] or [unpruned(one)]
    there = [record for record in last.values() if is_paused(record) and record.epoch and record.trial not in let_go]
    going = [replace(record, status="running", stopped_by=None, reason=None) for record in there]
    checkpoints = {record.trial: record.to_json().encode() for record in (*going, *under_way)}
    unfinished = {record.trial: record.point for record in under_way}
    rules = Rules(one, known, under_way, continued, let_go=let_go)
    attempts = dict.fromkeys([*last, *unfinished], 1)
    searcher = Searcher(
        one, simulation.planner(), known, unfinished, attempts, continued=continued or {}, paused=rules.paused
    )
    recorder = Recorder(one, searcher, rules, StudyLimits(None, 10), listener)
    while most is None or len(listener.records) < most:
        name = f"ray_{len(listener.started)}"
        config: Any = searcher.suggest(name)
        if not isinstance(config, dict):
            recorder.on_step_end(1, [])
            break
        trial: Any = SimpleNamespace(trial_id=name, config=config)
        recorder.on_trial_start(1, [trial], trial)
        rules.scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        checkpoint = checkpoints.get(config["trial"]) if config["attempt"] > 1 else None
        reports = simulation.begin(
            config["point"],
            Formula(reference=bytes(BYTES)),
            trial=config["trial"],
            baseline=baseline_name(one, config["trial"]),
            checkpoint=checkpoint,
        )
        for report in reports:
            result: Any = as_result(report)
            stops = result["done"] or any([stopper(name, result) for stopper in rules.stoppers])
            stops = stops or rules.scheduler.on_trial_result(None, trial, result) == "STOP"
            checkpoints[config["trial"]] = result["checkpoint"]
            recorder.on_trial_result(1, [trial], trial, result)
            if stops:
                break
        rules.scheduler.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
        if not result["baseline"]:
            listener.epochs += result["epoch"] - (simulation.record_of(checkpoint).epoch if checkpoint else 0)
        recorder.on_trial_complete(1, [trial], trial)
        for number in listener.let_go & checkpoints.keys():
            del checkpoints[number]
    return listener.records
