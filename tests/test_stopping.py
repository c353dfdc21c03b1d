import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import edge_tune as et
from edge_tune.networks.evaluation import Evaluation
from edge_tune.objective_text import parse
from edge_tune.records.entries import Answers, EpochEntry
from edge_tune.records.results import Record
from edge_tune.search.prediction import Outlook
from edge_tune.search.stopping import (
    AshaByObjective,
    AshaScheduler,
    StudyLimits,
    make_scheduler,
    why_collapsed,
    why_hopeless,
    why_too_long,
)

UNPRUNED = Record(trial=0, baseline="unpruned", status="finished", metrics={"top1": 99.0, "latency_ratio": 1.0})


def evaluation(correct: int, predicted: list[int]) -> Evaluation:
    images = sum(predicted)
    answers = Answers.of(images, np.packbits(np.arange(images) < correct).tobytes())
    return Evaluation(top1=100 * correct / images, top5=0.0, loss=1.0, answers=answers, predicted=predicted)


def test_why_collapsed_names_the_only_class() -> None:
    predicted = [0] * 10
    predicted[3] = 5000
    assert why_collapsed(evaluation(500, predicted)) == "all 5000 validation images are predicted as class 3"


@pytest.mark.parametrize(
    ("correct", "images", "num_classes", "collapsed"),
    [
        (500, 5000, 10, True),  # exactly 100/n
        (560, 5000, 10, True),  # 2.8 standard deviations (21.2 images) above: luck, 1 in 400
        (570, 5000, 10, False),  # 3.3 above: 1 in 2,000
        (200, 5000, 10, True),  # below chance
        (40, 100, 10, False),
        (9, 5000, 1000, True),  # 5 expected
        (60, 5000, 1000, False),
    ],
)
def test_why_collapsed_allows_what_chance_allows(correct: int, images: int, num_classes: int, collapsed: bool) -> None:
    share = images // num_classes
    reason = why_collapsed(evaluation(correct, [share] * num_classes))
    assert (reason is not None) == collapsed
    if reason:
        assert f"{100 * correct / images:.2f} is what guessing gives on {images} images of {num_classes}" in reason


@pytest.mark.parametrize(
    ("rule", "collapsed", "epoch", "epochs", "stops"),
    [
        (et.Hopeless(after_epochs=0), "why", 0, 3, True),
        (et.Hopeless(after_epochs=1), "why", 0, 3, False),
        (et.Hopeless(after_epochs=1), "why", 1, 3, True),
        (et.Hopeless(after_epochs=1), "why", 2, 3, True),
        (et.Hopeless(after_epochs=1), None, 1, 3, False),
        (et.Hopeless(after_epochs=5), "why", 3, 3, True),  # no epoch is left to recover in
        (et.Hopeless(after_epochs=1), "why", 0, 0, True),
        (None, "why", 3, 3, False),
    ],
)
def test_why_hopeless_waits_for_the_epochs_that_the_rule_grants(
    rule: et.Hopeless | None, collapsed: str | None, epoch: int, epochs: int, stops: bool
) -> None:
    assert (why_hopeless(rule, collapsed, epoch=epoch, epochs=epochs) is not None) == stops


def test_why_hopeless_says_when() -> None:
    reason = why_hopeless(et.Hopeless(), "top1 is low", epoch=1, epochs=3)
    assert reason == "hopeless: top1 is low, after 1 epoch of retraining"
    assert why_hopeless(et.Hopeless(after_epochs=0), "x", epoch=0, epochs=3) == "hopeless: x, right after pruning"


def decide(scheduler: AshaScheduler, trial_id: str, epoch: int, top1: float, baseline: bool = False) -> str:
    trial = SimpleNamespace(trial_id=trial_id)
    if trial_id not in scheduler._trial_info:
        scheduler.on_trial_add(None, trial)
    result = {"trial": trial_id, "epoch": epoch, "top1": top1, "baseline": baseline}
    return scheduler.on_trial_result(None, trial, result)


def asha() -> AshaScheduler:
    return AshaScheduler(et.Asha(et.Maximise("top1"), grace_epochs=1, reduction_factor=2), epochs=9)


def test_asha_stops_the_worse_half_of_a_rung_and_says_why() -> None:
    scheduler = asha()
    assert decide(scheduler, "a", 1, 50.0) == "CONTINUE"
    assert decide(scheduler, "b", 1, 40.0) == "STOP"
    assert decide(scheduler, "c", 1, 60.0) == "CONTINUE"
    assert scheduler.reasons == {"b": "asha: top1 40 at epoch 1 is outside the best 1/2 of the trials that came so far"}


def test_asha_compares_trials_with_each_other_and_not_with_baselines() -> None:
    for rule in (et.Asha(et.Maximise("top1"), reduction_factor=2), et.Asha(reduction_factor=2)):
        scheduler = make_scheduler(rule, 9, [], Outlook(parse("maximise top1"), 9, [UNPRUNED]))
        assert isinstance(scheduler, AshaScheduler | AshaByObjective)
        for number, name in ((1, "unpruned_retrained"), (2, "known")):
            known = Record(trial=number, baseline=name, epoch=1, metrics={"top1": 98.0})
            assert scheduler.stop_of(known) is None
            scheduler.remember([replace(known, curve=(epoch(1, top1=98.0),))])
        trials = [Record(trial=n, epoch=1, metrics={"top1": top1}) for n, top1 in ((3, 70.0), (4, 80.0), (5, 60.0))]
        assert [scheduler.stop_of(one) is None for one in trials] == [True, True, False]


def test_asha_lets_a_baseline_and_the_last_epoch_pass() -> None:
    scheduler = asha()
    decide(scheduler, "a", 1, 50.0)
    assert decide(scheduler, "b", 1, 10.0, baseline=True) == "CONTINUE"
    assert decide(scheduler, "a", 9, 55.0) == "CONTINUE"


def epoch(number: int, **metrics: float) -> EpochEntry:
    return EpochEntry(epoch=number, lr=0.1, train_loss=1.0, seconds=9.0, metrics=metrics)


def test_asha_remembers_the_rungs_of_an_earlier_session() -> None:
    curve = [epoch(1, top1=50.0), epoch(2, top1=70.0)]
    resumed = asha()
    resumed.remember([Record(trial=1, status="finished", curve=curve)])
    assert decide(resumed, "b", 1, 49.0) == "STOP"
    assert decide(resumed, "c", 1, 51.0) == "CONTINUE"
    assert decide(resumed, "c", 2, 69.0) == "STOP"


def test_asha_remembers_a_metric_that_not_every_epoch_measures() -> None:
    """As a trial reports it: what it was last."""
    rule = et.Asha(et.Minimise("latency_ratio"), grace_epochs=1, reduction_factor=2)
    record = Record(
        trial=1,
        status="finished",
        pruned={"latency_ratio": 0.6},
        curve=[
            epoch(1, top1=50.0),
            epoch(2, top1=60.0, latency_ratio=0.5),
            epoch(9, top1=70.0),
        ],
        metrics={"top1": 70.0, "latency_ratio": 0.4},
    )
    resumed = AshaScheduler(rule, epochs=9)
    resumed.remember([record])
    rungs = {rung: list(recorded.values()) for rung, recorded in resumed._brackets[0]._rungs}
    assert rungs == {8: [-0.4], 4: [], 2: [-0.5], 1: [-0.6]}


def test_asha_gives_a_trial_that_is_run_again_one_place_in_its_rung() -> None:
    """2 of 4 pass a rung of the values 50, 60, 70, 80; counted twice, the first attempt would raise the cutoff."""
    scheduler = asha()
    for trial_id, attempt, top1 in (("a", 1, 80.0), ("b", 1, 50.0), ("a", 2, 80.0), ("a", 3, 80.0)):
        trial = SimpleNamespace(trial_id=f"{trial_id}-{attempt}")
        scheduler.on_trial_add(None, trial)
        scheduler.on_trial_result(None, trial, {"trial": trial_id, "epoch": 1, "top1": top1, "baseline": False})
    assert decide(scheduler, "c", 1, 66.0) == "CONTINUE"


def test_study_limits_end_a_study_with_the_first_reason() -> None:
    limits = StudyLimits(None, 2)
    assert not limits.stop_all()
    limits.add_failure("trial_0003", "BenchmarkError: no stick.")
    assert not limits.stop_all()
    limits.add_failure("trial_0004", "BenchmarkError: no stick.")
    limits.stop("another")
    assert limits.stop_all()
    assert limits.reason == (
        "2 trials failed, and search.max_failed_trials ends a study at 2: "
        "trial_0003: BenchmarkError: no stick. trial_0004: BenchmarkError: no stick."
    )
    assert not limits.time_is_over


def test_study_limits_end_a_study_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = StudyLimits(3600.0, 10)
    assert not limits.stop_all()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    assert limits.stop_all()
    assert limits.time_is_over
    assert limits.reason == "the time budget of 3600 s is used up"


@pytest.mark.parametrize(("limit_s", "seconds", "stops"), [(None, 1e9, False), (10, 10, False), (10, 10.5, True)])
def test_why_too_long_compares_with_the_limit(limit_s: float | None, seconds: float, stops: bool) -> None:
    assert (why_too_long(limit_s, seconds) is not None) == stops


def test_asha_goal_to_minimise_keeps_the_smaller() -> None:
    scheduler = AshaScheduler(et.Asha(et.Minimise("loss"), reduction_factor=2), epochs=9)
    trial_a, trial_b = SimpleNamespace(trial_id="a"), SimpleNamespace(trial_id="b")
    for trial in (trial_a, trial_b):
        scheduler.on_trial_add(None, trial)
    first, second = ({"trial": n, "epoch": 1, "loss": float(n), "baseline": False} for n in (1, 2))
    assert scheduler.on_trial_result(None, trial_a, first) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial_b, second) == "STOP"


def test_make_scheduler_leaves_asha_out_when_its_grace_lasts_to_the_end() -> None:
    rule = et.Asha(et.Maximise("top1"), grace_epochs=5)
    assert isinstance(make_scheduler(rule, 6, []), AshaScheduler)
    assert not isinstance(make_scheduler(rule, 5, []), AshaScheduler)
    assert not isinstance(make_scheduler(None, 5, []), AshaScheduler)


def test_trials_run_in_the_order_of_their_numbers_and_those_that_ended_are_not_looked_at() -> None:
    live = [
        SimpleNamespace(status=status, config={"trial": number})
        for number, status in ((7, "PENDING"), (2, "RUNNING"), (5, "PENDING"))
    ]
    controller = SimpleNamespace(get_live_trials=lambda: live)  # it has no list of all trials
    for scheduler in (make_scheduler(None, 9, []), make_scheduler(et.Asha(et.Maximise("top1")), 9, [])):
        assert scheduler.choose_trial_to_run(controller) is live[2]
