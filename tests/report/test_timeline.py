import pytest

from edge_tune.records.results import Record
from edge_tune.report import timeline

MIDNIGHT = "2026-11-25T00:{:02d}:{:02d}+00:00"


def at(second: int) -> str:
    return MIDNIGHT.format(*divmod(second, 60))


def trial(number: int, start: int, end: int, node: str = "a", **seconds: float) -> Record:
    return Record(trial=number, status="finished", node=node, started_at=at(start), ended_at=at(end), seconds=seconds)


TWO_NODES = [
    trial(1, 0, 10, evaluate=6.0, measure=3.0),
    trial(2, 5, 20, evaluate=10.0),  # beside the first: `a` is busy from 0 to 20
    trial(3, 30, 40, node="b", evaluate=4.0, wait=5.0),
]


def test_seconds_by_node_adds_up_stages_and_what_lies_between_them() -> None:
    found = timeline.seconds_by_node(TWO_NODES, [at(0)])
    assert list(found) == ["a", "b"]
    # a: 10 + 15 s of trials of which 9 + 10 s are in stages; the study ran from 0 to 40, a for 20 of them.
    assert (found["a"]["evaluate"], found["a"]["measure"]) == (16.0, 3.0)
    assert (found["a"][timeline.OTHER], found["a"][timeline.IDLE]) == (1.0 + 5.0, 20.0)
    assert (found["b"]["wait"], found["b"][timeline.OTHER], found["b"][timeline.IDLE]) == (5.0, 1.0, 30.0)


def test_hours_and_idle_time_leave_out_the_break_between_sessions() -> None:
    records = [trial(1, 0, 36), trial(2, 360, 396), trial(3, 400, 432)]
    sessions = [at(0), at(350)]
    hours = timeline.hours_of_work(records, sessions)
    assert hours == pytest.approx({1: 0.01, 2: 0.02, 3: 0.03})
    assert timeline.seconds_by_node(records, sessions)["a"][timeline.IDLE] == 4.0
    assert timeline.hours_of_work(records, [at(0)]) == pytest.approx({1: 0.01, 2: 0.11, 3: 0.12})


@pytest.mark.parametrize("record", [Record(trial=1), Record(trial=1, node="a", started_at="once", ended_at=at(3))])
def test_records_without_times_are_left_out(record: Record) -> None:
    assert timeline.hours_of_work([record], [""]) == {}
    times = timeline.seconds_by_node([record], [])
    assert not timeline.stages_of(times)


def test_stages_of_lists_what_took_time_with_the_rest_last() -> None:
    found = timeline.seconds_by_node(TWO_NODES, [at(0)])
    assert timeline.stages_of(found) == ["evaluate", "measure", "wait", timeline.OTHER, timeline.IDLE]


def test_a_trial_that_an_earlier_session_began_counts_in_the_one_that_ended_it() -> None:
    """Trial 2 was under way when the first session was killed, at 60 s."""
    records = [trial(1, 0, 36), trial(2, 40, 396, retrain=50.0), trial(3, 400, 432)]
    sessions = [at(0), at(360)]
    assert timeline.hours_of_work(records, sessions) == pytest.approx({1: 0.01, 2: 0.02, 3: 0.03})
    node = timeline.seconds_by_node(records, sessions)["a"]
    assert (node["retrain"], node[timeline.OTHER], node[timeline.IDLE]) == (50.0, 36.0 + 32.0, 4.0)
