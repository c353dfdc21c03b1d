import random
from dataclasses import replace

import pytest

from edge_tune.errors import ExperimentError
from edge_tune.objective_text import parse
from edge_tune.records import choosing
from edge_tune.records.results import Record


def record(trial: int, latency_ms: float, top1: float, **changes: object) -> Record:
    metrics = {"latency_ms": latency_ms, "latency_ratio": latency_ms / 2, "top1": top1}
    return Record(**{"trial": trial, "status": "finished", "metrics": metrics, **changes})  # type: ignore[arg-type]


# The unpruned network's measured ratio to itself is off by its noise, as in every study.
UNPRUNED = record(0, 2.04, 90.0, baseline="unpruned")
HALF = record(1, 1.5, 80.0, baseline="half")
FAST, MIDDLE, GOOD = record(2, 0.8, 60.0), record(3, 1.2, 85.0), record(4, 1.6, 88.5)
COLLAPSED = record(5, 0.1, 89.9, collapsed="all in one class")
STOPPED = record(6, 0.1, 89.9, status="stopped", stopped_by="asha")
STUDY = [UNPRUNED, HALF, FAST, MIDDLE, GOOD, COLLAPSED, STOPPED]


def ranked(text: str, records: list[Record] = STUDY) -> list[int]:
    return [one.trial for one in choosing.rank(parse(text), records).records]


@pytest.mark.parametrize(
    ("text", "trials"),
    [
        ("minimise latency_ms", [2, 3, 4]),
        ("maximise top1", [4, 3, 2]),
        ("minimise latency_ratio where top1 >= 85", [3, 4]),
        ("minimise latency_ratio where top1 > 85", [4]),
        ("minimise latency_ms where top1 >= unpruned - 2", [4]),
        ("minimise latency_ms where top1 >= unpruned -5", [3, 4]),
        ("maximise top1 where latency_ratio<=0.6", [3, 2]),
        ("maximise top1 where latency_ms < half and top1 >= half + 1", [3]),
        ("maximise top1 where latency_ms <= 0.5 * unpruned", [2]),
        ("maximise top1 where latency_ms <= 0.5 * unpruned + 0.18", [3, 2]),
    ],
)
def test_rank_takes_what_meets_every_condition_best_first(text: str, trials: list[int]) -> None:
    assert ranked(text) == trials


def test_rank_puts_the_earlier_of_equals_first() -> None:
    assert ranked("maximise top1", [record(9, 1.0, 50.0), record(7, 2.0, 50.0), record(8, 1.0, 60.0)]) == [8, 7, 9]


def test_rank_takes_a_ratio_of_the_unpruned_network_for_1() -> None:
    assert UNPRUNED.metrics["latency_ratio"] == 1.02
    assert ranked("maximise top1 where latency_ratio <= unpruned - 0.2") == [4, 3, 2]
    assert ranked("maximise top1 where latency_ratio < unpruned - 0.2") == [3, 2]


def test_hybrid_is_the_weighted_sum_of_what_is_lost_of_the_unpruned_network() -> None:
    """Oracle: the ratio measured in turns for latency_ms, 1 - top1 / 90 for top1, written out by hand.

    The milliseconds of the unpruned network, 2.04, are of another moment.
    """
    ranking = choosing.rank(parse("0.7 * latency_ms + 0.3 * top1"), STUDY)
    by_hand = {2: 0.7 * (0.4 - 1) + 0.3 * 30 / 90, 3: 0.7 * (0.6 - 1) + 0.3 * 5 / 90}
    assert {trial: ranking.losses[trial] for trial in by_hand} == pytest.approx(by_hand)
    assert ranking.objective.loss(ranking.baselines["unpruned"], ranking.baselines) == 0.0
    assert ranked("1 * top1 + 0.01 * latency_ratio") == [4, 3, 2]
    assert ranked("1 * latency_ratio + 0.01 * top1") == [2, 3, 4]
    assert ranked("1 * latency_ratio + 0.01 * top1 where top1 > 60") == [3, 4]


def test_hybrid_orders_two_trials_alike_whatever_others_there_are() -> None:
    generator = random.Random(0)
    others = [record(n, generator.uniform(0.1, 9), generator.uniform(1, 99)) for n in range(10, 60)]
    text = "0.5 * latency_ratio + 0.5 * top1"
    alone = ranked(text)
    assert [trial for trial in ranked(text, [*others, *STUDY]) if trial < 10] == alone


def test_rank_names_the_nearest_when_none_meets_the_conditions() -> None:
    """Shares missed of 95 and 0.5: FAST 0.37 + 0, MIDDLE 0.105 + 0.2, GOOD 0.068 + 0.6."""
    ranking = choosing.rank(parse("maximise top1 where top1 >= 95 and latency_ratio <= 0.5"), STUDY)
    assert ranking.records == []
    assert ranking.nearest is MIDDLE
    assert choosing.ranking_line(ranking) == (
        "maximise top1 where top1 >= 95 and latency_ratio <= 0.5: no trial of 3 meets it; nearest came trial_0003, "
        "top1 85, latency_ratio 0.6, which misses top1 >= 95 and latency_ratio <= 0.5."
    )


def test_rank_counts_an_equal_value_as_a_miss_of_a_strict_bound() -> None:
    ranking = choosing.rank(parse("minimise latency_ms where top1 > 88.5"), STUDY)
    assert (list(ranking.records), ranking.nearest) == ([], GOOD)


def test_rank_leaves_out_and_counts_trials_without_a_metric() -> None:
    bare = record(9, 0.1, 99.0, metrics={"top1": 99.0})
    ranking = choosing.rank(parse("minimise latency_ms"), [*STUDY, bare])
    assert [one.trial for one in ranking.records] == [2, 3, 4]
    assert ranking.without == [bare]
    assert choosing.ranking_line(ranking).endswith(
        "3 of 3 eligible trials meet it. 1 trial lacks a metric and is left out."
    )
    assert ranked("maximise top1", [*STUDY, bare]) == [9, 4, 3, 2]


def test_rank_takes_any_recorded_metric() -> None:
    records = [replace(one, metrics={**one.metrics, "energy_j": 10.0 - one.trial}) for one in STUDY]
    assert ranked("minimise energy_j where energy_j >= 7", records) == [3, 2]


def test_ranking_line_says_what_is_best() -> None:
    def line(text: str, records: list[Record] = STUDY) -> str:
        return choosing.ranking_line(choosing.rank(parse(text), records))

    assert line("minimise latency_ms where top1 >= 85") == (
        "minimise latency_ms where top1 >= 85: trial_0003, latency_ms 1.2, top1 85; 2 of 3 eligible trials meet it."
    )
    assert "trial_0002, latency_ratio 0.4, score -0.6 (unpruned: 0, less is better)" in line("1 * latency_ratio")
    assert line("maximise top1", [UNPRUNED, COLLAPSED]) == (
        "maximise top1: no trial finished better than chance with these metrics, so there is none to choose."
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "minimise speed",
            r"'minimise speed': a metric must be one that the trials recorded, \['latency_ms', .*'speed'",
        ),
        ("minimise top1 where loss < 3", r"but got 'loss'"),
        (
            "minimise top1 where top1 > quarter",
            r"one of the study's baselines, \['unpruned', 'half'\], .* 'quarter'\.$",
        ),
        ("minimise top1 where top1 > unpruned-2", r"but got 'unpruned-2'; put spaces around -"),
    ],
)
def test_rank_refuses_what_the_study_does_not_hold(text: str, problem: str) -> None:
    with pytest.raises(ExperimentError, match=problem):
        choosing.rank(parse(text), STUDY)


def test_rank_refuses_a_baseline_without_the_metric_or_with_nothing_to_divide_by() -> None:
    failed = Record(trial=1, baseline="half", status="failed")
    with pytest.raises(ExperimentError, match=r"baseline 'half' must have top1 to compare with, but lacks it"):
        choosing.rank(parse("minimise latency_ms where top1 > half"), [UNPRUNED, failed, GOOD])
    nothing = record(0, 2.0, 0.0, baseline="unpruned")
    with pytest.raises(ExperimentError, match=r"divides by the unpruned network's top1, which must not be 0"):
        choosing.rank(parse("1 * top1"), [nothing, GOOD])
    with pytest.raises(ExperimentError, match=r"one of the study's baselines, \[\], but got 'unpruned'"):
        choosing.rank(parse("1 * top1"), [GOOD])
