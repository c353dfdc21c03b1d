from dataclasses import replace

import pytest

import edge_tune as et
from edge_tune.objective import Objective
from edge_tune.objective_text import parse
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record
from edge_tune.records.scoring import Scorer
from edge_tune.search.suggesters.protocol import Outcome
from tests.asked import sparsities
from tests.searching import finished, run_on, searching, study


def record(trial: int, latency_ms: float, top1: float, **changes: object) -> Record:
    metrics = {"latency_ms": latency_ms, "latency_ratio": latency_ms / 4, "top1": top1, "macs": 1e6}
    return Record(**{"trial": trial, "status": "finished", "metrics": metrics, **changes})  # type: ignore[arg-type]


UNPRUNED, HALF = record(0, 4.0, 90.0, baseline="unpruned"), record(1, 2.0, 80.0, baseline="half")
FAST, NEAR, GOOD = record(2, 1.0, 60.0), record(3, 1.1, 86.0), record(4, 3.0, 89.5)
STOPPED, COLLAPSED = record(5, 0.1, 95.0, status="stopped"), record(6, 0.1, 95.0, collapsed="one class")
CONDITION = parse("minimise latency_ratio where top1 >= unpruned - 1")


def test_scores_order_what_may_be_best_before_what_breaks_a_condition_before_what_did_not_finish() -> None:
    scorer = Scorer(CONDITION, [UNPRUNED])
    scores = [scorer.score(one) for one in (GOOD, NEAR, FAST, COLLAPSED)]
    assert scores == sorted(scores)
    assert [score.rank for score in scores] == [0, 2, 2, 3]
    assert scorer.score(STOPPED).rank == 3
    for_search = [score.for_search for score in scores]
    assert for_search == sorted(for_search)
    assert len(set(for_search)) == 4
    assert for_search[0] == 0.75


def test_score_of_a_metric_alone_is_that_metric_turned_so_that_smaller_is_better() -> None:
    assert Scorer(Objective.of(et.Maximise("top1"))).score(GOOD).for_search == -89.5
    macs = Scorer(Objective.of(et.Minimise("macs")))
    large, tiny = replace(GOOD, metrics={"macs": 2e10}), replace(COLLAPSED, metrics={"macs": 1e6})
    assert macs.score(large).for_search < macs.score(tiny).for_search


def test_shown_is_the_figure_and_not_its_loss() -> None:
    assert Scorer(Objective.of(et.Maximise("top1"))).shown(GOOD.metrics) == 89.5
    hybrid = Scorer(parse("0.5 * latency_ratio + 0.5 * top1"), [UNPRUNED])
    assert hybrid.shown(UNPRUNED.metrics) == 0.0
    assert hybrid.shown(HALF.metrics) == pytest.approx(0.5 * (0.5 - 1) + 0.5 * 10 / 90)


def test_standing_waits_for_the_baselines_that_its_objective_compares_with() -> None:
    standing = Standing(parse("minimise latency_ratio where top1 >= half + 5"), [UNPRUNED], "best")
    assert standing.add(FAST) == standing.add(NEAR) == []
    assert standing.best is None
    assert standing.kept == [UNPRUNED, FAST, NEAR]  # either may come to be the best
    assert standing.add(HALF) == [FAST]
    assert standing.best is NEAR


def test_standing_names_the_nearest_while_none_meets_the_conditions() -> None:
    standing = Standing(CONDITION, [UNPRUNED, HALF, FAST, NEAR, STOPPED])
    assert (standing.best, standing.nearest) == (None, NEAR)
    standing.add(GOOD)
    assert (standing.best, standing.nearest) == (GOOD, None)
    standing.add(record(7, 0.1, 88.9))
    assert (standing.best, standing.nearest) == (GOOD, None)


def top1_of(one: Record) -> Record:
    """Accuracy falls with each sparsity: half of it is lost at 1 + 1."""
    return replace(one, metrics={**one.metrics, "top1": 90 - 22.5 * sum(sparsities(one.point).values())})


def test_search_is_led_to_where_the_condition_holds() -> None:
    """The lowest latency lies at 0.3 + 0.6; the condition keeps the sum at 0.4 and less."""
    late = {}
    for target in (et.Minimise("latency_ms"), "minimise latency_ms where top1 >= 81"):
        one = study(trials=60, target=target, baselines={})
        searcher, sums = searching(one), []
        for number in range(60):
            config = searcher.suggest(str(number))
            assert isinstance(config, dict)
            searcher.end(top1_of(finished(config["trial"], config["point"], one)))
            sums.append(sum(sparsities(config["point"]).values()))
        late[str(target)] = sum(sums[20:])
    without, with_condition = late.values()
    assert with_condition < 0.8 * without


def test_search_learns_nothing_before_it_knows_the_baseline_it_compares_with(monkeypatch: pytest.MonkeyPatch) -> None:
    target = "minimise latency_ms where latency_ms <= half"
    one = study(trials=40, target=target, baselines={"half": {"first": 0.5, "second": 0.5}})
    whole, late = searching(one), searching(one)
    records = run_on(whole, one, 14)
    configs = [late.suggest(str(number)) for number in range(8)]  # HyperOpt draws the first ten at random
    told: list[Outcome] = []
    tell = late.suggester.tell
    monkeypatch.setattr(late.suggester, "tell", lambda point, outcome: (told.append(outcome), tell(point, outcome)))
    for config in (*configs[1:], configs[0]):
        assert isinstance(config, dict)
        assert not told
        late.end(finished(config["trial"], config["point"], one))
    assert len(told) == 8
    assert run_on(late, one, 6) == records[8:]
