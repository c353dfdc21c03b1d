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
from edge_tune.objective_text import parse
from edge_tune.records import ranking
from edge_tune.records.choosing import rank, ranking_line
from edge_tune.records.results import Confirmed, Record
from edge_tune.records.scoring import Scorer
from tests.studies import evidence


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


def measured(trial: int, ratio: float, reach: float, top1: float = 80.0, **changes: object) -> Record:
    """A trial whose latency is known to `reach` on either side."""
    found = evidence(ratios={"latency_ratio": {"ratio": ratio, "low": ratio - reach, "high": ratio + reach}})
    changes = {"ended_at": f"2026-11-27T10:00:{trial:02d}", **changes}
    return record(trial, 4 * ratio, top1, measurements={"retrained": found}, **changes)


def again(one: Record, target: Objective) -> Record:
    return replace(one, confirmed=Confirmed(target.text, "2026-11-27T11:00:00"))


def test_may_be_best_are_those_whose_order_to_the_best_the_intervals_do_not_tell() -> None:
    one, two, three = measured(1, 0.50, 0.05), measured(2, 0.62, 0.08), measured(3, 0.60, 0.02)
    breaks = measured(4, 0.55, 0.3, top1=70.0)
    for text in ("minimise latency_ratio where top1 >= 75", "minimise latency_ms where top1 >= 75"):
        assert ranking.may_be_best(Scorer(parse(text)), [three, two, breaks, one]) == [one, two]
    # The best may break the condition, so that any that keeps it may be the best.
    accurate = Scorer(parse("maximise top1 where latency_ratio <= 0.53"))
    close = measured(5, 0.40, 0.01, top1=60.0)
    assert ranking.may_be_best(accurate, [one, close]) == [one, close]
    assert ranking.may_be_best(accurate, [measured(6, 0.52, 0.005), close]) == [measured(6, 0.52, 0.005)]
    assert ranking.may_be_best(accurate, [two]) == []


def test_rivals_keep_their_weights_until_they_are_measured_again() -> None:
    target = parse("minimise latency_ratio where top1 >= 75")
    records = [measured(n, 0.4 + 0.05 * n, 0.01 if n == 9 else 0.44) for n in range(1, 10)]
    standing, kept = ranking.Standing(target, keep="best", rivals_since=""), set()
    for one in reversed(records):
        dropped = standing.add(one)
        kept = (kept | {one.trial}) - {other.trial for other in dropped}
    assert [one.trial for one in standing.rivals] == [1, 2, 3, 4, 9]  # the last one is surely not slower than that
    assert kept == {one.trial for one in standing.kept} == {1, 2, 3, 4, 9}
    assert [one.trial for one in ranking.Standing(target, records, "best").kept] == [1]
    later = ranking.Standing(target, records, "best", rivals_since="2026-11-27T10:00:07")
    assert [one.trial for one in later.rivals] == [8, 9]


def test_the_best_is_one_of_those_that_were_measured_again_if_any_was_by_this_objective() -> None:
    target, other = parse("minimise latency_ratio where top1 >= 75"), parse("minimise latency_ms where top1 >= 75")
    one, two, three = (measured(n, 0.4 + 0.1 * n, 0.01) for n in (1, 2, 3))
    for order in ([one, again(two, target), again(three, target)], [again(three, target), again(two, target), one]):
        assert ranking.Standing(target, order).best == rank(target, order).best == again(two, target)
        assert [record.trial for record in rank(target, order).records] == [2, 3, 1]
        assert rank(other, order).best == one
    worse = again(replace(two, metrics={**two.metrics, "top1": 70.0}), target)
    found = rank(target, [one, worse])
    assert (found.best, found.nearest) == (None, worse)
    assert "no trial that was measured again meets it; nearest came trial_0002" in ranking_line(found)
    standing = ranking.Standing(target, [one, worse])
    assert (standing.best, standing.nearest) == (None, worse)


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
