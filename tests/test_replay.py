"""Methods of search on the recorded plans: what is measured is the benchmark's to say, here it is seen to be fair."""

import warnings

import pytest

from benchmarks import record, replay


@pytest.fixture(scope="module")
def table() -> replay.Table:
    return replay.Table.read()


def nothing_is_enough(run: replay.Run) -> bool:
    return False


def test_each_plan_is_had_once_and_trained_to_the_end(table: replay.Table) -> None:
    run = replay.searched(table, replay.METHODS[0], replay.FRONT, 0, nothing_is_enough)
    assert sorted(place for place, _, _ in run.ended) == list(range(len(table.plans)))
    assert run.epochs == record.EPOCHS * len(table.plans)
    assert replay.to_the_front(table, run, 1.0) <= run.epochs
    assert not run.rejected


def test_a_plan_that_a_rule_ends_costs_fewer_epochs(table: replay.Table) -> None:
    asha = next(method for method in replay.METHODS if method.label == "HyperOpt and ASHA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = replay.searched(table, asha, replay.FRONT, 0, lambda run: len(run.ended) == 30)
    assert run.rejected
    assert run.epochs < 30 * record.EPOCHS
    assert 0 <= replay.wrongly_rejected(table, run) <= len(run.rejected)


def test_latency_aware_comes_to_the_front_before_random_points(table: replay.Table) -> None:
    aware = next(method for method in replay.METHODS if method.label == "latency_aware, full training")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        random, learned = (
            sorted(
                replay.to_the_front(table, replay.searched(table, method, replay.FRONT, seed, until), 0.97)
                for seed in range(3)
            )
            for method in (replay.METHODS[0], aware)
            for until in [lambda run: replay.to_the_front(table, run, 0.97) < float("inf")]
        )
    assert learned[1] < random[1]
