from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_tune.objective_text import parse
from edge_tune.records.alternatives import fastest_within, settled_line
from edge_tune.records.choosing import rank
from edge_tune.records.entries import Evidence, LayerEntry, Ratio, Ratios
from edge_tune.records.ranking import eligible
from edge_tune.records.remaining import remaining_line, whole_parts
from edge_tune.records.results import Record
from edge_tune.records.verdict import alternatives_of, rows_of, verdict_of
from tests.studies import answered, record

UNPRUNED = record(0, {}, "a", baseline="unpruned")
GOAL = parse("minimise latency_ratio where top1 >= unpruned - 2")


def trial(number: int, ratio: float, lost: float, **changes: Any) -> Record:
    one = record(number, {"layer_1": 0.5, "layer_2": 0.5}, "a", **changes)
    metrics = {"latency_ratio": ratio, "total_latency_ratio": 1 - ratio / 2, "top1": UNPRUNED.metrics["top1"] - lost}
    return replace(one, metrics={**one.metrics, **metrics}, measurements={})


TRIALS = [trial(2, 0.9, 0.5), trial(3, 0.7, 1.5), trial(4, 0.6, 1.9), trial(5, 0.6, 2.0), trial(6, 0.4, 7.0)]


def test_fastest_within_names_each_network_once() -> None:
    within = fastest_within(GOAL, UNPRUNED, TRIALS)
    assert {points: one.trial for points, one in within.items()} == {
        "1 point": 2,
        "2 and 5 points": 4,
    }  # not 5: less top1
    hopeless = replace(TRIALS[3], status="stopped")
    assert fastest_within(GOAL, UNPRUNED, [hopeless, TRIALS[4]]) == {}
    assert list(fastest_within(GOAL, UNPRUNED, TRIALS[:1])) == ["1, 2 and 5 points"]
    assert list(fastest_within(GOAL, UNPRUNED, TRIALS[1:])) == ["2 and 5 points"]


@pytest.mark.parametrize(
    ("objective", "trials"),
    [
        ("maximise top1 where latency_ms <= 1", [2, 4]),
        ("front of latency_ratio and top1", [2, 4]),
        ("minimise total_latency_ms where top1 >= 5", [2]),  # whose total ratios are 0.55, 0.65, 0.7, 0.7, 0.8
        ("minimise parameters where top1 >= 5", []),
    ],
)
def test_fastest_within_goes_by_the_latency_of_the_objective(objective: str, trials: list[int]) -> None:
    assert [one.trial for one in fastest_within(parse(objective), UNPRUNED, TRIALS).values()] == trials


def test_fastest_within_agrees_with_looking_at_every_trial() -> None:
    generator = np.random.default_rng(0)
    trials = [trial(n, float(generator.uniform(0.3, 1)), float(generator.uniform(-1, 8))) for n in range(2, 40)]
    found = {points: one.trial for points, one in fastest_within(GOAL, UNPRUNED, trials).items()}
    for points in (1, 2, 5):
        kept = [one for one in eligible(trials) if UNPRUNED.metrics["top1"] - one.metrics["top1"] <= points]
        (name,) = [name for name in found if str(points) in name]
        assert found[name] == min(kept, key=lambda one: one.metrics["latency_ratio"]).trial


def measured(one: Record, low: float, high: float) -> Record:
    interval = Ratio(one.metrics["latency_ratio"], low, high)
    return replace(one, measurements={"retrained": Evidence(ratios=Ratios(latency_ratio=interval))})


def test_fastest_within_is_faster_than_the_unpruned_network_and_not_just_luckier_than_the_chosen() -> None:
    slower, noise = trial(2, 1.05, 0.5), measured(trial(3, 0.99, 0.5), 0.97, 1.01)
    assert fastest_within(GOAL, UNPRUNED, [slower, noise]) == {}
    chosen, luckier = measured(trial(4, 0.87, 0.5), 0.85, 0.89), measured(trial(5, 0.86, 0.5), 0.84, 0.88)
    assert {one.trial for one in fastest_within(GOAL, UNPRUNED, [chosen, luckier], chosen).values()} == {4}
    assert {one.trial for one in fastest_within(GOAL, UNPRUNED, [chosen, luckier]).values()} == {5}
    faster = measured(trial(6, 0.7, 4.0), 0.69, 0.71)
    within = fastest_within(GOAL, UNPRUNED, [chosen, luckier, faster], chosen)
    assert {points: one.trial for points, one in within.items()} == {"1 and 2 points": 4, "5 points": 6}


def test_alternatives_leave_the_chosen_out_and_have_no_test_figures() -> None:
    rows = alternatives_of(GOAL, [], [UNPRUNED], TRIALS, TRIALS[2])
    assert [(row.name, row.trial, row.test) for row in rows] == [("fastest within 1 point: trial_0002", 2, {})]


def test_alternatives_have_intervals_though_an_earlier_version_did_not_record_their_answers() -> None:
    """Trial 2, which it measured before the study was resumed, has classified as many images as the chosen trial 4."""
    chosen = answered(TRIALS[2], np.arange(400) < 384)
    trials = [*TRIALS[:2], chosen]
    rows = rows_of([UNPRUNED], chosen)
    verdict = verdict_of([UNPRUNED], trials, rank(GOAL, [UNPRUNED, *trials]), rows, epochs=0)
    assert [(row.trial, row.images) for row in (*verdict.rows, *verdict.alternatives)] == [(0, 400), (4, 400), (2, 400)]
    assert alternatives_of(GOAL, rows_of([UNPRUNED], None), [UNPRUNED], TRIALS, None)[0].top1("validation") is None


def test_settled_line_counts_the_trials_that_ended_after_the_best() -> None:
    """Trial 2 is the best that keeps the condition; tests/studies.py has trials end in the order of their numbers."""
    trials = [trial(2, 0.5, 1.0), *(trial(n, 0.6, 1.0) for n in range(3, 13))]
    said = "The best came as trial 1 of the 11 that ended; none of the 10 after it took its place."
    assert settled_line(rank(GOAL, [UNPRUNED, *trials]), trials) == said
    repeats = [replace(trials[0], trial=20, same_as=2), *trials]  # is no network of its own
    assert settled_line(rank(GOAL, [UNPRUNED, *repeats]), repeats) == said
    late = [*trials[1:], trial(20, 0.5, 1.0)]
    assert settled_line(rank(GOAL, [UNPRUNED, *late]), late) is None
    assert settled_line(rank(GOAL, [UNPRUNED, *trials[:9]]), trials[:9]) is None  # too few
    front = rank(parse("front of latency_ratio and top1"), [UNPRUNED, *trials])
    assert settled_line(front, trials) is None


def test_remaining_line_adds_up_the_layers_that_no_group_may_prune() -> None:
    """Of 4 ms, 1 + 1 of conv1 and its reorder, 0.4 of fc: of 60 %, 30 and 6."""
    times = (("conv1", 1.0), ("conv1", 1.0), ("layer1.0", 1.6), ("fc", 0.4))
    one = replace(trial(2, 0.6, 1.0), layers=[LayerEntry(name, "Convolution", "k", ms, ms / 4) for name, ms in times])
    assert remaining_line(one, ["fc", "conv1", "not measured"]) == (
        "trial_0002 still takes 60 % of the unpruned network's latency; 36 of these go to layers that no group may "
        "prune: conv1 30, fc 6."
    )
    assert remaining_line(one, []) is None
    assert remaining_line(replace(one, layers=()), ["conv1"]) is None


@pytest.mark.parametrize(
    ("shares", "whole"),
    [
        ([5.7, 5.5, 5.4], [6, 6, 5]),
        ([5.4, 5.4, 5.4], [6, 5, 5]),
        ([0.3, 0.3], [1, 0]),
        ([30.0, 6.0], [30, 6]),
        ([], []),
    ],
)
def test_whole_parts_add_up(shares: list[float], whole: list[int]) -> None:
    assert whole_parts(shares) == whole
    assert sum(whole) == round(sum(shares))


def test_remaining_line_names_parts_that_add_up() -> None:
    """Of 50 %, three layers have 1.08 of 10 ms each: 5.4 apiece, and 16.2 together."""
    times = (("conv1", 1.08), ("fc", 1.08), ("head", 1.08), ("layer1.0", 6.76))
    one = replace(trial(2, 0.5, 1.0), layers=[LayerEntry(name, "Convolution", "k", ms, ms / 10) for name, ms in times])
    line = remaining_line(one, ["conv1", "fc", "head"])
    assert line is not None
    assert line.endswith("latency; 16 of these go to layers that no group may prune: head 6, fc 5, conv1 5.")
