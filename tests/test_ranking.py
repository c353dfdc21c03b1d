import cProfile
import pstats
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

import edge_tune as et
from edge_tune.experiment import KeepWeights
from edge_tune.objective import Goal, Objective
from edge_tune.records import ranking
from edge_tune.records.choosing import rank
from edge_tune.records.results import Record


def record(trial: int, latency_ms: float, top1: float, **changes: object) -> Record:
    metrics = {"latency_ms": latency_ms, "latency_ratio": latency_ms / 4, "top1": top1}
    return Record(**{"trial": trial, "status": "finished", "metrics": metrics, **changes})  # type: ignore[arg-type]


FAST = record(1, 1.0, 60.0)
GOOD = record(2, 2.0, 90.0)
COLLAPSED = record(3, 0.1, 10.0, collapsed="all in one class")
STOPPED = record(4, 0.2, 95.0, status="stopped", stopped_by="asha")
FAILED = Record(trial=5, status="failed", reason="x")
ALL = [FAST, GOOD, COLLAPSED, STOPPED, FAILED]


def best(records: list[Record], goal: Goal) -> Record | None:
    return rank(Objective.of(goal), records).best


def test_best_never_is_a_trial_that_collapsed_stopped_or_failed() -> None:
    assert best(ALL, et.Minimise("latency_ms")) is FAST
    assert best(ALL, et.Maximise("top1")) is GOOD
    assert best([COLLAPSED, STOPPED, FAILED], et.Minimise("latency_ms")) is None


def test_best_is_the_earliest_of_equals() -> None:
    assert best([FAST, record(9, 1.0, 80.0)], et.Minimise("latency_ms")) is FAST


def test_pareto_front_agrees_with_brute_force() -> None:
    generator = random.Random(0)
    records = [record(n, generator.randrange(8), generator.randrange(8)) for n in range(60)]

    def beats(a: Record, b: Record) -> bool:
        faster, better = b.metrics["latency_ms"] - a.metrics["latency_ms"], a.metrics["top1"] - b.metrics["top1"]
        return faster >= 0 and better >= 0 and (faster > 0 or better > 0)

    expected = [r for r in records if not any(beats(other, r) for other in records)]
    assert ranking.pareto_front(records, ranking.FRONT) == expected
    assert 1 < len(expected) < 60


def test_better_in_both_needs_both_to_be_strictly_better() -> None:
    baseline = record(0, 1.5, 70.0, baseline="half")
    trials = [FAST, GOOD, record(6, 1.4, 71.0), record(7, 1.5, 99.0), record(8, 1.0, 70.0), STOPPED, FAILED]
    assert [trial.trial for trial in ranking.better_in_both(trials, baseline)] == [6]


def test_endings_count_each_trial_once() -> None:
    hopeless = record(6, 1.0, 10.0, status="stopped", stopped_by="hopeless")
    assert ranking.endings([*ALL, hopeless]) == {
        "finished": 3,
        "hopeless": 1,
        "asha": 1,
        "predicted": 0,
        "time_limit": 0,
        "gate": 0,
        "failed": 1,
    }


@pytest.mark.parametrize(("keep", "trials"), [("best", {0, 1}), ("front", {0, 1, 2}), ("all", {0, 1, 2, 3, 6})])
def test_kept_are_the_baselines_and_the_best_the_front_or_all_that_finished(
    keep: KeepWeights, trials: set[int]
) -> None:
    baseline, dominated = record(0, 3.0, 91.0, baseline="unpruned"), record(6, 2.5, 80.0)
    kept = ranking.Standing(Objective.of(et.Minimise("latency_ms")), [baseline, *ALL, dominated], keep).kept
    assert {one.trial for one in kept} == trials


def test_standing_is_what_ranking_all_records_at_once_gives() -> None:
    generator = random.Random(1)
    standing, records = ranking.Standing(Objective.of(et.Maximise("top1"))), []
    for n in range(1, 60):
        hopeless = {"status": "stopped", "stopped_by": "hopeless"} if n % 7 == 0 else {}
        records.append(record(n, generator.randrange(9), generator.randrange(9), **hopeless))
        standing.add(records[-1])
        assert standing.best == best(records, et.Maximise("top1"))
        assert standing.kept[1:] == ranking.pareto_front(records, ranking.FRONT) or standing.best is None
    assert (standing.ended, standing.hopeless) == (59, 8)


@pytest.mark.parametrize("keep", ["best", "front"])
def test_of_equals_the_first_by_number_is_best_and_kept_whichever_ended_first(keep: KeepWeights) -> None:
    target = Objective.of(et.Maximise("top1"))
    late = [record(3, 1.0, 80.0), record(2, 1.2, 80.0)]
    standing = ranking.Standing(target, keep=keep)
    dropped = [[one.trial for one in standing.add(record)] for record in late]
    assert standing.best is rank(target, late).best is late[1]
    assert late[1] in standing.kept
    assert dropped == [[], [3] if keep == "best" else []]


def test_a_collapsed_network_beats_nothing() -> None:
    """One that names the same class for all images may be faster and a chance more than right."""
    baseline, lucky = record(1, 3.0, 9.8, baseline="off_the_shelf"), record(2, 1.0, 10.5)
    assert ranking.better_in_both([lucky], baseline) == [lucky]
    assert ranking.better_in_both([replace(lucky, collapsed="one class")], baseline) == []


def test_a_repeat_is_no_second_network() -> None:
    again, of_baseline = replace(GOOD, trial=7, same_as=2), record(8, 0.5, 99.0, same_as=0)
    assert ranking.eligible([*ALL, again]) == [FAST, GOOD]
    assert ranking.endings([*ALL, again])["repeat"] == 1
    baseline = record(0, 0.5, 99.0, baseline="known")
    standing = ranking.Standing(Objective.of(et.Maximise("top1")), [baseline, *ALL, again])
    assert (standing.ended, standing.repeats) == (5, 1)
    assert standing.kept == [baseline, GOOD, FAST, GOOD]
    standing.add(of_baseline)
    assert standing.best is of_baseline  # the baseline itself is none of the trials to choose from
    assert standing.kept == [baseline, of_baseline, of_baseline]


def test_standing_names_those_whose_weights_it_no_longer_keeps() -> None:
    generator = random.Random(2)
    standing, kept = ranking.Standing(Objective.of(et.Maximise("top1"))), set()
    for n in range(1, 200):
        one = record(n, generator.randrange(30), generator.randrange(30))
        dropped = standing.add(one)
        kept = (kept | {n}) - {other.trial for other in dropped}
        assert kept == {other.trial for other in standing.kept}


def calls(action: Callable[[], object]) -> int:
    """How many functions a call comes to."""
    profile = cProfile.Profile()
    profile.runcall(action)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]


def test_what_a_trial_costs_its_standing_does_not_grow() -> None:
    """Each of these networks is on the front: none is faster and better than another."""
    standing, counts = ranking.Standing(Objective.of(et.Minimise("latency_ratio"))), []
    for n in range(1, 3001):
        counts.append(calls(partial(standing.add, record(n, 3000 - n, 100 - n / 100))))
    assert len(standing.kept) == 3001  # the best twice
    assert max(counts[-500:]) <= max(counts[:500])


def test_failures_are_counted_by_reason_the_most_frequent_first() -> None:
    failed = [Record(trial=n, status="failed", reason="no stick." if n % 3 else "diverged.") for n in range(1, 9)]
    repeat = replace(failed[0], trial=9, same_as=1)
    assert list(ranking.failures([*ALL, *failed, repeat]).items()) == [("no stick.", 6), ("diverged.", 2), ("x", 1)]
