"""ASHA by the objective, the prediction and their audits: in rungs, then in whole studies that are interrupted."""

from dataclasses import replace
from typing import Any

import pytest

import edge_tune as et
from edge_tune.experiment import Asha
from edge_tune.objective_text import parse
from edge_tune.records.endings import GATE, PREDICTED
from edge_tune.records.entries import PRUNED, EpochEntry
from edge_tune.records.results import Record, Stop
from edge_tune.records.scoring import Scorer
from edge_tune.search.prediction import Outlook
from edge_tune.search.rules import Rules
from edge_tune.search.rungs import Rungs
from edge_tune.search.stopping import Audits
from tests.driving import drive, unpruned
from tests.networks import experiment


def at(trial: int, top1: float, ratio: float, epoch: int = 1) -> Record:
    metrics = {"top1": top1, "latency_ratio": ratio}
    curve = [EpochEntry(epoch=n, lr=0.1, train_loss=1.0, seconds=1.0, metrics=metrics) for n in range(1, epoch + 1)]
    return Record(trial=trial, epoch=epoch, metrics=metrics, pruned=metrics, curve=curve)


STOP = Stop("asha", 1, "why")
UNPRUNED = Record(trial=0, baseline="unpruned", status="finished", metrics={"top1": 90.0, "latency_ratio": 1.0})


def rungs(target: str, rule: Asha | None = None) -> Rungs:
    return Rungs(rule or et.Asha(reduction_factor=2), 9, Outlook(parse(target), 9, [UNPRUNED]))


def stops(there: Rungs, *records: Record) -> list[bool]:
    return [there.enter(record) is not None for record in records]


def test_rung_with_a_condition_asks_first_whether_it_is_met_then_for_the_goal() -> None:
    there = rungs("minimise latency_ratio where top1 >= 80")
    slow, fast, faster_below, better_below = at(1, 85, 0.8), at(2, 81, 0.5), at(3, 70, 0.3), at(4, 79, 0.4)
    assert stops(there, slow, fast) == [False, False]
    assert stops(there, at(5, 99, 0.9)) == [True]  # both others are faster
    assert stops(there, faster_below) == [True]  # three meet the condition
    assert stops(there, better_below) == [True]
    assert stops(there, at(6, 82, 0.4)) == [False]


def test_rung_of_a_front_keeps_what_no_other_one_beats_and_only_what_is_not_slower_beats() -> None:
    there = rungs("front of latency_ratio and top1", et.Asha(reduction_factor=2))
    assert stops(there, at(1, 90, 0.9), at(2, 60, 0.3), at(3, 80, 0.6)) == [False, False, False]
    assert stops(there, at(4, 79, 0.95)) == [True]  # slower and worse than two of three
    assert stops(there, at(5, 70, 0.2)) == [False]  # of those that are not slower, it is the only one
    assert stops(there, at(6, 89, 0.91)) == [True]


def test_rung_counts_each_trial_once_and_lets_the_first_pass() -> None:
    there = rungs("maximise top1")
    assert stops(there, at(1, 80, 0.5), at(1, 80, 0.5), at(2, 60, 0.5), at(2, 60, 0.5)) == [False, False, True, False]
    assert stops(there, at(1, 85, 0.5, epoch=2), at(3, 84, 0.5, epoch=2)) == [False, True]


def test_rungs_are_filled_from_records_without_a_comparison_and_decide_as_if_each_had_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came, filled = rungs("maximise top1"), rungs("maximise top1")
    known = [at(trial, 80 + trial % 5, 0.5, epoch) for trial in range(1, 12) for epoch in (1, 2)]
    stops(came, *known)
    one = study("maximise top1", [et.Asha()])
    with monkeypatch.context() as patch:
        patch.delattr(Scorer, "order")
        assert [filled.put(record) for record in known] == [1, 2] * 11
        assert [filled.put(record) for record in known] == [None] * 22
        Rules(one, [UNPRUNED]).know(at(2, 81, 0.5))
        Rules(one, [UNPRUNED, at(1, 81, 0.5, epoch=3), at(2, 82, 0.5, epoch=3)])
    new = [at(trial, top1, 0.5, epoch) for trial, top1 in ((20, 80.5), (21, 82), (22, 80)) for epoch in (1, 2)]
    assert stops(filled, *new) == stops(came, *new) == [True, True, False, False, True, True]


def test_rung_goes_by_what_trials_are_expected_to_end_with_once_enough_have_finished() -> None:
    """One that begins low and ends high, as the small ones of these do."""

    def curve(trial: int, epochs: int, early: float, ratio: float) -> Record:
        metrics = [{"top1": early}, {"top1": 100 - early}]
        entries = [
            EpochEntry(epoch=n, lr=0.1, train_loss=1.0, seconds=1.0, metrics=metrics[n - 1])
            for n in range(1, epochs + 1)
        ]
        pruned = {"top1": 10.0, "macs": 1e6, "latency_ratio": ratio}
        now = {**pruned, **metrics[epochs - 1]}
        status: Any = "finished" if epochs == 2 else "running"
        return Record(trial=trial, status=status, epoch=epochs, metrics=now, pruned=pruned, curve=entries)

    outlook = Outlook(parse("minimise latency_ratio where top1 >= 60"), 2)
    low, high = curve(50, 1, 30.0, 0.5), curve(51, 1, 70.0, 0.4)
    for known, low_stops in ((2, True), (10, False)):
        for number in range(1, known + 1):
            outlook.know(curve(number, 2, 20.0 + 5 * number, 0.9))
        there = Rungs(et.Asha(reduction_factor=2), 2, outlook)
        first, second = (high, low) if low_stops else (low, high)
        assert there.enter(first) is None
        stop = there.enter(second)
        assert stop is not None
        assert (stop.rule, stop.epoch) == ("asha", 1)
        assert ("as they are expected to end" in stop.reason) == (not low_stops)


def test_share_of_audits_is_drawn_by_the_number_of_the_trial_and_the_seed() -> None:
    def drawn(seed: int, share: float) -> list[int]:
        audits = Audits(seed)
        return [trial for trial in range(2000) if audits.spare(trial, STOP, share)]

    assert drawn(0, 0.0) == []
    assert drawn(0, 0.1) == drawn(0, 0.1) != drawn(1, 0.1)
    assert 160 <= len(drawn(0, 0.1)) <= 240
    assert set(drawn(0, 0.1)) <= set(drawn(0, 0.3))
    audits = Audits(0)
    audited = drawn(0, 0.1)[0]
    assert audits.spare(audited, STOP, 0.1)
    assert audits.spare(audited, STOP, 0.0)  # no other rule ends it


def study(target: str, stopping: list[Any], **changes: Any) -> et.Experiment:
    return experiment(
        target=target,
        retraining=et.Retraining(epochs=9, lr=0.05),
        stopping=stopping,
        search=et.Search("random", trials=60, seed=1, **changes),
        baselines={},
    )


def ends(records: list[Record]) -> list[tuple[object, ...]]:
    return [
        (one.trial, one.stopped_by, one.reason, one.epoch, one.audit, dict(one.metrics), one.predictions)
        for one in records
    ]


STUDIES = [
    pytest.param("maximise throughput_fps where top1 >= 80", [et.Predicted(audit=0.3)], PREDICTED, id="predicted"),
    pytest.param("front of latency_ratio and top1", [et.Asha(audit=0.3)], "asha", id="front"),
    pytest.param("maximise top1", [et.Asha(grace_epochs=3, reduction_factor=2), et.Predicted()], PREDICTED, id="both"),
    pytest.param("minimise latency_ratio", [et.Asha(et.Maximise("top1"), audit=0.3)], "asha", id="metric"),
]


@pytest.mark.parametrize(("target", "stopping", "rule"), STUDIES)
def test_study_makes_the_same_decisions_wherever_it_is_interrupted(target: str, stopping: list[Any], rule: str) -> None:
    one = study(target, stopping)
    whole = drive(one)
    assert len(whole) == 61
    assert sum(record.stopped_by == rule for record in whole) >= 5
    assert all(record.epoch == 9 for record in whole if record.audit and record.stopped_by != GATE)
    start = [unpruned(one)]
    audited = [nth for nth, record in enumerate(whole) if record.audit]
    for ended in (0, 1, 14, 30, *audited[:2]):
        interrupted = whole[ended]
        rest = drive(one, [*start, *whole[:ended]])
        assert ends(rest) == ends(whole[ended:])
        for epoch in {1, 2, interrupted.epoch - 1} & set(range(1, interrupted.epoch)):
            then = replace(interrupted.as_of(epoch), status="running", reason=None, stopped_by=None, audit=None)
            rest = drive(one, [*start, *whole[:ended]], [then], most=1)
            assert ends(rest) == ends(whole[ended : ended + 1])


def test_record_keeps_what_the_trials_before_it_let_expect_right_after_its_pruning() -> None:
    one = study("maximise top1", [])
    whole = drive(one, most=16)
    for nth, record in enumerate(whole):
        before = Outlook(one.objective, 9, [unpruned(one), *whole[:nth]])
        expected = before.forecast.expected(record.as_of(0))
        assert record.predictions == ({PRUNED: expected} if expected else {})
        assert bool(expected) == (nth > 10)  # the first is the unpruned network, retrained


def test_record_of_a_continued_trial_keeps_what_was_expected_before_it_was_trained() -> None:
    one = study("maximise top1", [et.Predicted(audit=0.5)])  # so that ten come to their end
    whole = drive(one)
    paused = next(record for record in whole if record.stopped_by == PREDICTED and record.predictions)
    under_way = [replace(paused, status="running", stopped_by=None, reason=None, predictions={})]
    (record,) = drive(one, [unpruned(one), *whole], under_way, most=1, continued={paused.trial: paused})
    assert record.epoch == 9
    assert record.predictions == paused.predictions != {}
