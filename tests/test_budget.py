"""A budget of epochs, and paused trials that are continued with what is left of it: in whole studies, interrupted."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edge_tune as et
from edge_tune.errors import ExperimentError
from edge_tune.records.endings import GATE, is_paused
from edge_tune.records.entries import FORM, Run
from edge_tune.records.results import Record, Results, Stop
from edge_tune.search.budget import Budget
from edge_tune.search.gate import Gate
from edge_tune.search.paused import KEPT, Paused, let_go_before
from edge_tune.search.rules import Rules
from edge_tune.search.session import _Session
from tests.driving import Kept, drive, unpruned
from tests.networks import BLOCKS, experiment
from tests.searching import searching

EPOCHS = 9


def study(target: str = "front of latency_ratio and top1", **search: Any) -> et.Experiment:
    return experiment(
        target=target,
        retraining=et.Retraining(epochs=EPOCHS, lr=0.05),
        stopping=[et.Asha(audit=0.1)],
        search=et.Search("random", seed=1, **search),
        baselines={},
    )


def spent(records: list[Record]) -> int:
    last = {record.trial: record for record in records if record.baseline is None}
    return sum(record.epoch for record in last.values())


def ends(records: list[Record]) -> list[tuple[object, ...]]:
    return [
        (one.trial, one.stopped_by, one.epoch, one.audit, one.paused, one.attempts, dict(one.metrics))
        for one in records
    ]


def test_study_spends_its_epochs_on_new_trials_and_then_on_the_paused_wherever_it_is_interrupted() -> None:
    one = study(epochs=205)
    whole = drive(one)
    continued = [record for record in whole if record.paused]
    assert continued
    assert 205 - EPOCHS < spent(whole) <= 205
    assert all(record.epoch == EPOCHS and record.attempts == 1 for record in continued)
    first = whole.index(continued[0])
    assert all(not record.paused for record in whole[:first])
    former = next(record for record in whole if record.trial == continued[0].trial)
    assert continued[0].paused == (Stop("asha", former.epoch, str(former.reason)),)
    start = [unpruned(one)]
    for ended in (0, 7, first, first + 1):
        assert ends(drive(one, [*start, *whole[:ended]])) == ends(whole[ended:])
    then = replace(whole[first].as_of(EPOCHS - 1), status="running", paused=(), ended_at="")
    rest = drive(one, [*start, *whole[:first]], [then], continued={former.trial: former})
    assert [record[:6] for record in ends(rest)] == [record[:6] for record in ends(whole[first:])]


def test_study_with_trials_and_epochs_ends_with_the_first_and_spends_the_rest_on_the_paused() -> None:
    few = drive(study(trials=12, epochs=100))
    trials = {record.trial for record in few if record.baseline is None}
    assert len(trials) == 12
    assert 100 - EPOCHS < spent(few) <= 100 or not any(map(is_paused, {one.trial: one for one in few}.values()))
    assert any(record.paused for record in few)
    none = drive(study(trials=12))
    assert not any(record.paused for record in none)


def test_paused_trials_that_are_continued_on_demand_are_ended_by_no_rule_and_have_their_records_after() -> None:
    one = study("minimise latency_ratio where top1 >= 70", trials=30)
    whole = drive(one)
    rules = Rules(one, [unpruned(one), *whole])
    best, *others = rules.paused.ordered()
    again = drive(one, [unpruned(one), *whole], [replace(best, status="running")], continued={best.trial: best})
    assert [record.trial for record in again] == [best.trial]
    assert (again[0].status, again[0].epoch) == ("finished", EPOCHS)
    assert others


def test_paused_trial_that_others_repeated_is_continued_on_demand_as_the_one_network_that_it_is() -> None:
    sparsity = et.Choice([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
    groups = {label: et.PrunerGroup("filters", one.weights, sparsity=sparsity) for label, one in BLOCKS.items()}
    one = replace(study("maximise top1", trials=14), pruner_groups=groups)
    whole = drive(one)
    repeated = {record.same_as for record in whole}
    paused = [record for record in whole if is_paused(record)]
    assert {record.trial for record in paused} & repeated
    for former in paused:
        going = [replace(former, status="running", stopped_by=None, reason=None)]
        rest = drive(one, [unpruned(one), *whole], going, continued={former.trial: former})
        assert [(record.trial, record.epoch) for record in rest] == [(former.trial, EPOCHS)]


def test_search_knows_of_a_continued_trial_what_it_knew_before_a_resume_and_has_its_network_waited_for() -> None:
    whole = drive(study(epochs=100))
    one = replace(study(epochs=100), search=et.Search("latency_aware", epochs=100, seed=1))
    first = next(nth for nth, record in enumerate(whole) if record.paused)
    former = next(record for record in whole if record.trial == whole[first].trial)
    ended, another = [unpruned(one), *whole[:first]], 1 + max(record.trial for record in whole)
    before = searching(one, ended, paused=Rules(one, ended).paused)
    begun = before.suggest("a")
    before.waiting.append((another, former.point))
    unfinished = {former.trial: former.point, another: former.point}
    after = searching(one, ended, unfinished, {former.trial: 1}, continued={former.trial: former})
    again: Any = after.suggest("a")
    assert begun == {**again, "attempt": 1}
    assert again["trial"] == former.trial
    for searcher in (before, after):
        told: Any = searcher.suggester
        assert told.told[former.trial].has_ended
        searcher.suggest("b")
        waits, _ = searcher.take_news()
        assert [(repeat.trial, repeat.of) for repeat in waits] == [(another, former.trial)]
        searcher.end(whole[first])
        (taken,) = searcher.take_news()[1]
        assert (taken.trial, taken.status, taken.epoch) == (another, "finished", EPOCHS)


def test_budget_is_kept_by_what_was_really_trained_though_checkpoints_were_let_go_wherever_it_is_interrupted() -> None:
    one = replace(study("maximise top1", trials=60, epochs=480), stopping=[et.Asha(grace_epochs=3)])
    listener = Kept()
    whole = drive(one, listener=listener)
    continued = [nth for nth, record in enumerate(whole) if record.paused]
    assert len(continued) == KEPT
    assert listener.let_go
    assert spent(whole) == listener.epochs <= 480
    assert not {whole[nth].trial for nth in continued} & listener.let_go
    for ended in (40, continued[0], continued[-3]):
        first, rest = Kept(), Kept()
        drive(one, most=ended, listener=first)
        drive(one, [unpruned(one), *whole[:ended]], let_go=first.let_go, listener=rest)
        assert ends(rest.records) == ends(whole[ended:])
        assert first.epochs + rest.epochs == listener.epochs


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_no_epoch_goes_to_a_paused_trial_that_cannot_become_the_best_any_more(seed: int) -> None:
    search = et.Search("random", trials=24, epochs=150, seed=seed)
    one = replace(study("minimise latency_ratio where top1 >= 70", epochs=150), stopping=[et.Asha()], search=search)
    whole = drive(one)
    assert any(record.paused for record in whole)
    assert not [record.name for record in whole if record.paused and record.stopped_by == GATE]
    ended = [unpruned(one), *whole]
    rules, still = Rules(one, ended), {record.trial: record for record in whole if is_paused(record)}
    for record in whole:
        if not is_paused(record):
            still.pop(record.trial, None)
    may_win = {trial for trial, record in still.items() if not Gate(one.objective, ended).why(record)}
    assert {record.trial for record in rules.paused.ordered()} == may_win < still.keys()


def test_paused_trials_that_cannot_become_the_best_are_not_continued_on_demand_either(tmp_path: Path) -> None:
    search = et.Search("random", trials=24, epochs=150, seed=0)
    one = replace(study("minimise latency_ratio where top1 >= 70", epochs=150), stopping=[et.Asha()], search=search)
    results, said = Results(tmp_path), []
    for record in (unpruned(one), *drive(one)):
        results.add(record)
    ended = [*results.baselines(), *results.trials()]
    results.write_json("run.json", Run(form=FORM))
    work: Any = SimpleNamespace(experiment=one)
    say: Any = said.append
    session = _Session(work=work, results=results, here=None, device=None, say=say, gpus=0)  # type: ignore[arg-type]
    session._promote(ended, 24)
    gate, paused = Gate(one.objective, ended), [record for record in ended if is_paused(record)]
    hopeless = {record.trial for record in paused if gate.why(record)}
    assert results.promoted().keys() == {record.trial for record in paused} - hopeless
    assert len(hopeless) == 5
    words = "trials cannot become the best any more, whatever training does, and are not continued."
    assert said[-1] == f"5 paused {words}"


def test_paused_trial_that_begins_anew_on_demand_counts_what_it_was_trained_before() -> None:
    one = study("maximise top1", epochs=100)
    whole = drive(one)
    ended = [unpruned(one), *whole]
    former = Rules(one, ended).paused.ordered()[0]
    let_go, going = {former.trial}, [replace(former.as_of(0), status="running", stopped_by=None)]
    listener = Kept()
    (record,) = drive(one, ended, going, continued={former.trial: former}, let_go=let_go, listener=listener)
    assert record.paused == (Stop("asha", former.epoch, str(former.reason), anew=True),)
    assert (record.epoch, record.epochs_trained) == (EPOCHS, EPOCHS + former.epoch)
    assert listener.epochs == EPOCHS
    assert Budget(one, [*ended, record]).spent == spent(whole) + EPOCHS


def test_missing_checkpoints_tell_what_was_let_go_and_promoted_ones_what_began_anew(tmp_path: Path) -> None:
    results, said = Results(tmp_path), []
    paused = Record(trial=1, status="stopped", stopped_by="asha", reason="why", epoch=2)
    for record in (paused, replace(paused, trial=2), replace(paused, trial=3, epoch=0), replace(paused, trial=4)):
        results.add(record)
    for trial in (1, 4):
        results.write_checkpoint(trial, b"")
    assert let_go_before(results) == {2}
    say: Any = said.append
    listener = _Session(work=None, results=results, here=None, device=None, say=say, gpus=0)  # type: ignore[arg-type]
    for record in results.trials()[:3]:
        listener.on_promoted(record)
    best = "of the paused trials, it promises most."
    assert said == [
        f"trial_0001, paused after 2 epochs, is continued: {best}",
        f"trial_0002, paused after 2 epochs, begins anew, since it has no checkpoint: {best}",
        f"trial_0003, paused after 0 epochs, begins anew, since it has no checkpoint: {best}",
    ]
    results.write_checkpoint(2, b"")  # of its first epoch since
    results.checkpoint_file(1).unlink()
    assert let_go_before(results) == {2}
    results.add(replace(paused, trial=2, status="finished", stopped_by=None, paused=(Stop("asha", 2, "why", True),)))
    results.checkpoint_file(4).unlink()
    assert let_go_before(results) == {2, 4}


def test_session_that_continues_paused_trials_says_that_they_are_to_run(tmp_path: Path) -> None:
    one, results, said = study("maximise top1", trials=3), Results(tmp_path), []
    for trial in (2, 3, 4):
        results.add(Record(trial=trial, status="stopped", stopped_by="asha", reason="why", epoch=1))
    here: Any = SimpleNamespace(trials_at_once=lambda *_: 1)
    work: Any = SimpleNamespace(experiment=one)
    say: Any = said.append
    session = _Session(work=work, results=results, here=here, device=None, say=say, gpus=0)  # type: ignore[arg-type]
    session.total, session.ended_before, session.budget = 4, 4, Budget(one)
    for record in results.trials()[1:]:
        session.on_promoted(record)
    session._say_what_is_ahead([])
    assert "2 of 4 trials to run (baselines: 1), 1 at a time." in said


def test_records_tell_which_paused_trials_are_under_way_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    paused = Record(trial=3, status="stopped", stopped_by="asha", reason="why", epoch=2)
    for trial in (3, 4):
        results.add_started(trial, {"a": 1.0})
        results.add(replace(paused, trial=trial))
    assert (results.unfinished(), results.promoted()) == ({}, {})
    results.add_promoted(3, anew=False)
    assert results.unfinished() == {3: {"a": 1.0}}
    assert list(results.promoted()) == [3]
    done = replace(paused, status="finished", stopped_by=None, epoch=9, paused=(Stop("asha", 2, "why"),))
    results.add(done)
    assert (results.unfinished(), results.promoted()) == ({}, {})
    assert [(record.trial, record.status) for record in results.trials()] == [(3, "finished"), (4, "stopped")]
    assert results.problems() == []


def test_only_the_paused_trials_that_promise_most_keep_their_checkpoint() -> None:
    one = study("maximise top1", trials=9)
    paused = Paused(Rules(one, [unpruned(one)]).outlook, Gate(one.objective))
    let_go = []
    for trial in range(1, KEPT + 6):
        metrics = {"top1": float(trial % 7 + trial / 100)}
        paused.know(Record(trial=trial, status="stopped", stopped_by="asha", metrics=metrics, epoch=1))
        let_go += sorted(paused.let_go())
    tops = {trial: trial % 7 + trial / 100 for trial in range(1, KEPT + 6)}
    kept = sorted(tops, key=lambda trial: -tops[trial])[:KEPT]
    assert [record.trial for record in paused.kept()] == kept
    assert sorted(let_go) == sorted(tops.keys() - set(kept))


def test_budget_sets_aside_what_runs_and_counts_a_continued_trial_once() -> None:
    budget = Budget(study(epochs=30))
    for trial in (1, 2, 3):
        assert budget.affords(EPOCHS)
        budget.begin(trial)
    assert not budget.affords(EPOCHS)
    budget.know(Record(trial=1, epoch=2))
    budget.know(Record(trial=2, epoch=9, baseline="half"))
    assert (budget.spent, budget.left) == (2, 28)
    assert budget.affords(EPOCHS)
    budget.begin(1)
    assert budget.affords(12)
    assert not budget.affords(13)
    budget.know(Record(trial=1, epoch=9))
    assert budget.left == 21
    budget.know(Record(trial=3, epoch=4))
    budget.begin(3, anew=True)
    assert budget.affords(8)
    assert not budget.affords(9)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({}, r"search: trials or epochs must say how long to search, but got neither; give one of them\."),
        ({"epochs": 0}, r"search: epochs must be a whole number of at least 1, but got 0\."),
        ({"epochs": 8}, r"search: epochs must be those of one trial at least, 9, but got 8\."),
        ({"epochs": 2.5, "trials": 3}, r"search: epochs must be a whole number of at least 1, but got 2\.5\."),
    ],
)
def test_budget_must_afford_a_trial(search: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError, match=f"^{said}$"):
        study(**search)
