import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError
from ray.tune.schedulers import FIFOScheduler

import edge_tune as et
from edge_tune import search, trainable
from edge_tune.errors import BenchmarkError
from edge_tune.experiment import Point
from edge_tune.results import Record, Report
from edge_tune.search import Recorder, Searcher
from edge_tune.stopping import StudyLimits
from edge_tune.trainable import PENALTY
from tests.networks import BLOCKS, experiment

CHOICES = {
    label: et.PrunerGroup(["filters", "channels"], group.weights, sparsity=et.Choice([0.0, 0.5, 0.9]))
    for label, group in BLOCKS.items()
}
HALF = {"half": {"first": 0.5, "second": 0.5}}


def finished(number: int, config: Mapping[str, Any], one: et.Experiment, **changes: object) -> Record:
    """The record of a trial whose latency is a bowl with its bottom at 0.3 / 0.6."""
    point = trainable.to_point(dict(config), one.pruner_groups)
    latency = sum((s - best) ** 2 for s, best in zip(point.sparsities.values(), (0.3, 0.6), strict=True))
    return Record(
        **{  # type: ignore[arg-type]
            "trial": number,
            "status": "finished",
            "baseline": trainable.baseline_name(one, number),
            "sparsities": point.sparsities,
            "structures": point.structures,
            "metrics": {"latency_ms": latency, "top1": 50.0},
            **changes,
        }
    )


def run_on(searcher: Searcher, one: et.Experiment, trials: int) -> list[Record]:
    """Let a searcher run `trials` trials, one after another."""
    records = []
    for _ in range(trials):
        config = searcher.suggest(f"ray_{searcher.next_number}_{len(records)}")
        (trial_id,) = searcher._live_trial_mapping
        record = finished(config.pop("trial"), config, one)
        searcher.on_trial_complete(trial_id, {trainable.OBJECTIVE: trainable.objective(record, one.target)})
        records.append(record)
    return records


def study(trials: int = 40, method: Any = "hyperopt", **changes: object) -> et.Experiment:
    return experiment(search=et.Search(method, trials=trials, seed=3), **changes)


def test_searcher_begins_with_the_baselines_and_numbers_from_one() -> None:
    records = run_on(Searcher(study()), study(), 4)
    assert [record.trial for record in records] == [1, 2, 3, 4]
    assert [record.baseline for record in records] == ["half", None, None, None]
    assert records[0].sparsities == {"first": 0.5, "second": 0.5}


def test_searcher_suggestions_depend_on_the_seed() -> None:
    one, other = study(), experiment(search=et.Search("hyperopt", trials=40, seed=4))
    assert run_on(Searcher(one), one, 12) == run_on(Searcher(one), one, 12)
    assert run_on(Searcher(one), one, 3)[1:] != run_on(Searcher(other), other, 3)[1:]


@pytest.mark.parametrize("method", ["hyperopt", "random"])
@pytest.mark.parametrize("interrupted_after", [0, 1, 7, 30])
def test_searcher_resumed_goes_on_as_if_it_had_not_been_interrupted(method: str, interrupted_after: int) -> None:
    one = study(method=method, pruner_groups={**BLOCKS, "second": CHOICES["second"]}, baselines=HALF)
    whole = run_on(Searcher(one), one, 38)
    resumed = Searcher(one, ended=whole[:interrupted_after])
    assert run_on(resumed, one, 38 - interrupted_after) == whole[interrupted_after:]


def test_searcher_runs_unfinished_points_again_under_their_numbers() -> None:
    one = study()
    whole = run_on(Searcher(one), one, 8)
    left = whole.pop(4)
    resumed = Searcher(
        one, whole, {left.trial: search.to_config(Point(left.sparsities, left.structures), one.pruner_groups)}
    )
    again, new = run_on(resumed, one, 2)
    assert again == left
    assert new.trial == 9
    assert new.sparsities not in [record.sparsities for record in (*whole, left)]


def test_searcher_suggests_a_lost_trial_again_before_any_new_one() -> None:
    one = study()
    undisturbed = run_on(Searcher(one), one, 5)
    searcher = Searcher(one)
    run_on(searcher, one, 2)
    config = searcher.suggest("lost")
    assert isinstance(config, dict)
    searcher.on_trial_complete("lost", error=True)
    searcher.run_again("lost", config)
    again = searcher.suggest("again")
    assert (config["trial"], config["attempt"]) == (3, 1)
    assert again == {**config, "attempt": 2}
    record = finished(again.pop("trial"), again, one)
    searcher.on_trial_complete("again", {trainable.OBJECTIVE: trainable.objective(record, one.target)})
    assert [record, *run_on(searcher, one, 2)] == undisturbed[2:]  # for HyperOpt, nothing happened


class Heard:
    """A listener that keeps what became of each trial."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def on_start(self, trial: int, point: Mapping[str, Any]) -> None:
        raise AssertionError("nothing starts here")

    on_report = on_start

    def on_lost(self, trial: int, reason: str) -> None:
        self.ends.append("lost")

    def on_end(self, record: Record, weights: bytes | None) -> None:
        assert record.ended_at  # a trial's own last report need not be its end
        self.ends.append(f"{record.status}: {record.reason}")


LOST = ObjectLostError("ab", None, "")
NO_STICK = BenchmarkError("no stick.")


def raised(cause: Exception) -> RayTaskError:
    """What Ray makes of an exception in an actor."""
    return RayTaskError("step", "\n".join(["ray::step()", *traceback.format_exception(cause)]), cause)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ActorDiedError(), "lost"),
        (raised(LOST), "lost"),
        (raised(NO_STICK), "failed: BenchmarkError: no stick."),
        (ActorDiedError(raised(LOST)), "lost"),
        (ActorDiedError(raised(NO_STICK)), "failed: edge_tune.errors.BenchmarkError: no stick."),
    ],
)
def test_what_ray_lost_is_run_again_and_what_a_trial_raised_is_its_end(
    error: Exception, end: str, tmp_path: Path
) -> None:
    one, heard = study(), Heard()
    searcher = Searcher(one)
    config = searcher.suggest("ray")
    (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))
    trial: Any = SimpleNamespace(trial_id="ray", config=config, pickled_error_file=str(tmp_path / "error.pkl"))
    Recorder(one, searcher, FIFOScheduler(), StudyLimits(None, 10), heard).on_trial_error(1, [trial], trial)
    assert heard.ends == [end]
    following = searcher.suggest("next")
    assert isinstance(following, dict)
    assert (following["trial"], following["attempt"]) == ((1, 2) if end == "lost" else (2, 1))


def test_searcher_ends_when_all_trials_have_ended_and_not_before() -> None:
    one = study(trials=2)
    searcher = Searcher(one)
    configs = {name: searcher.suggest(name) for name in ("a", "b", "c")}
    assert [config["trial"] for config in configs.values()] == [1, 2, 3]
    assert searcher.suggest("d") is None
    for name in ("a", "b"):
        searcher.on_trial_complete(name, {trainable.OBJECTIVE: 1.0})
    searcher.on_trial_complete("c", error=True)
    searcher.run_again("c", configs["c"])
    assert searcher.suggest("e")["attempt"] == 2
    searcher.on_trial_complete("e", error=True)
    searcher.give_up("e")
    assert searcher.suggest("f") == Searcher.FINISHED


def test_searcher_finds_the_bottom_of_a_bowl_better_than_random() -> None:
    best = {}
    for method in ("hyperopt", "random"):
        one = study(trials=60, method=method)
        best[method] = min(record.metrics["latency_ms"] for record in run_on(Searcher(one), one, 61))
    assert best["hyperopt"] < best["random"]


def test_searcher_keeps_away_from_where_networks_collapse() -> None:
    """The best latency lies at 0.3, below the 0.5 where networks collapse: only the penalty tells."""
    one, late = study(trials=60), {True: 0, False: 0}
    for collapses in late:
        searcher = Searcher(one)
        for number in range(61):
            config = searcher.suggest(str(number))
            config.pop("trial")
            below = config["first"] < 0.5
            record = finished(number, config, one, collapsed="one class" if below and collapses else None)
            searcher.on_trial_complete(str(number), {trainable.OBJECTIVE: trainable.objective(record, one.target)})
            late[collapses] += below and number > 30
    assert late[True] < 0.7 * late[False]


def test_objective_ranks_finished_before_stopped_and_collapsed() -> None:
    one = study()
    good = finished(2, {"first": 0.9, "second": 0.0}, one)
    stopped = finished(3, {"first": 0.3, "second": 0.6}, one, status="stopped", stopped_by="asha")
    running = finished(4, {"first": 0.3, "second": 0.6}, one, status="running")
    collapsed = finished(5, {"first": 0.3, "second": 0.6}, one, collapsed="one class")
    assert trainable.objective(good, one.target) < PENALTY
    for other in (stopped, running, collapsed):
        assert trainable.objective(other, one.target) >= PENALTY
    assert trainable.objective(good, et.Maximise("top1")) == -50.0
    large, tiny = (replace(record, metrics={"macs": macs}) for record, macs in ((good, 2e10), (collapsed, 1e6)))
    assert trainable.objective(large, et.Minimise("macs")) < trainable.objective(tiny, et.Minimise("macs"))


def test_grid_is_the_product_of_the_choices_after_the_baselines() -> None:
    one = study(trials=100, method="grid", pruner_groups=CHOICES, baselines=HALF)
    points = search.planned_points(one)
    assert len(points) == search.count_trials(one) == 1 + 3 * 3 * 2 * 2
    records = run_on(Searcher(one), one, len(points))
    seen = {(*record.sparsities.values(), *record.structures.values()) for record in records[1:]}
    assert len(seen) == 36


def test_grid_larger_than_the_trials_is_sampled_evenly_by_seed() -> None:
    one = study(trials=10, method="grid", pruner_groups=CHOICES, baselines=HALF)
    assert search.count_trials(one) == 11
    assert search.planned_points(one) == search.planned_points(one)
    assert len({point.sparsities["first"] for point in search.planned_points(one)[1:]}) == 3


def test_space_leaves_out_what_is_fixed() -> None:
    groups = {"first": et.PrunerGroup("channels", ["w"], sparsity=et.Uniform(0.3, 0.3)), "second": CHOICES["second"]}
    assert set(search.space(groups)) == {"second", "second:structure"}
    point = trainable.to_point({"second": 0.9, "second:structure": "channels"}, groups)
    assert point == Point({"first": 0.3, "second": 0.9}, {"first": "channels", "second": "channels"})
    assert search.to_config(point, groups) == {"second": 0.9, "second:structure": "channels"}


def test_trial_that_hangs_is_ended_by_the_time_of_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline, which no limit stops, may take longer than that in all."""
    seen: list[object] = []
    monkeypatch.setattr(trainable.faulthandler, "dump_traceback_later", lambda seconds, **_: seen.append(seconds))
    monkeypatch.setattr(trainable.faulthandler, "cancel_dump_traceback_later", lambda: seen.append("ended"))
    one = experiment(search=et.Search("random", trials=1, trial_time_limit_s=10))
    trial = object.__new__(trainable.PrunedTrial)
    trial.trials = SimpleNamespace(experiment=one)  # type: ignore[assignment]
    trial.reports = iter([Report(finished(1, {"first": 0.1, "second": 0.1}, one))] * 2)
    trial.step()
    trial.step()
    assert seen == [80, "ended", 80, "ended"]
