"""What stopping early saved and cost, counted by hand."""

from edge_tune.objective_text import parse
from edge_tune.records.audit import Account, accounts
from edge_tune.records.results import Record, Stop

UNPRUNED = Record(trial=0, baseline="unpruned", status="finished", metrics={"top1": 90.0, "latency_ratio": 1.0})


def trial(number: int, top1: float, ratio: float, **changes: object) -> Record:
    parts = {
        "trial": number,
        "status": "finished",
        "epoch": 6,
        "metrics": {"top1": top1, "latency_ratio": ratio},
        "ended_at": f"2026-11-27T12:{60 - number}:00+00:00",  # the higher the number, the sooner it ended
    }
    return Record(**{**parts, **changes})  # type: ignore[arg-type]


def audited(rule: str) -> Stop:
    return Stop(rule, 2, "why")


def test_accounts_count_what_ended_and_which_of_the_audited_would_have_won() -> None:
    trials = [
        trial(9, 85, 0.5),
        trial(8, 84, 0.4, audit=audited("predicted")),  # the best so far
        trial(7, 84, 0.45, audit=audited("predicted")),  # too late
        trial(6, 70, 0.3, audit=audited("predicted")),  # misses the condition
        trial(5, 90, 0.2, audit=audited("asha")),
        trial(4, 90, 0.1, audit=audited("predicted"), status="failed"),  # nobody knows
        trial(3, 50, 0.1, status="stopped", stopped_by="predicted", epoch=2),
        trial(2, 50, 0.1, status="stopped", stopped_by="predicted", epoch=0),
        trial(1, 50, 0.1, status="stopped", stopped_by="predicted", epoch=0, same_as=2),
        trial(10, 50, 0.1, paused=(audited("asha"),)),
    ]
    found = accounts(parse("minimise latency_ratio where top1 >= 80"), [UNPRUNED], trials, epochs=6)
    assert found == [
        Account(rule="asha", continued=1, audited=1, won=1),
        Account(rule="predicted", ended=2, epochs_saved=10, audited=3, won=1),
    ]
    assert found[1].text == (
        "2 trials paused by the prediction, 10 epochs saved; 3 more were audited, that is, trained all the same: 1 of "
        "them would have won, so that its rate of false rejects is 33 % [6 to 79 %]."
    )
    assert Account(rule="asha", ended=1, epochs_saved=1).text == (
        "1 trial stopped by ASHA, 1 epoch saved; none was audited, so what that cost is not known."
    )


def test_audited_trial_on_the_front_would_have_won_though_another_beats_it_later() -> None:
    trials = [trial(9, 85, 0.5), trial(8, 80, 0.4, audit=audited("asha")), trial(7, 86, 0.3)]
    (found,) = accounts(parse("front of latency_ratio and top1"), [UNPRUNED], trials, epochs=6)
    assert (found.audited, found.won) == (1, 1)
