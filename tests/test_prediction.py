"""What a trial will come to, said of made-up trials whose end is known by a formula."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks import replay
from edge_tune.objective_text import parse
from edge_tune.records.entries import EpochEntry
from edge_tune.records.results import Record
from edge_tune.search.prediction import Forecast, LossLine, Outlook, Ridge

EPOCHS = 4


def curve_of(end: float, noise: Sequence[float], epochs: int) -> list[EpochEntry]:
    """Halfway to its end from 20 with each epoch, and noise."""
    return [
        EpochEntry(
            epoch=epoch,
            lr=0.1,
            train_loss=1.0,
            seconds=1.0,
            metrics={"top1": end - (end - 20) * 0.5**epoch + noise[epoch] if epoch < EPOCHS else end},
        )
        for epoch in range(1, epochs + 1)
    ]


def trial(number: int, share: float, *, epochs: int = EPOCHS, noise: float = 0.3, **changes: object) -> Record:
    """A trial of which `share` is left, and whose top1 ends at 95 - 40 (1 - share)^2 and some luck."""
    luck = np.random.default_rng(number).normal(0, noise, EPOCHS + 1)
    end = 95 - 40 * (1 - share) ** 2 + luck[0]
    pruned = {"top1": 20.0 * share, "macs": 1e6 * share, "latency_ratio": share}
    curve = curve_of(end, luck, epochs)
    metrics = {**pruned, **(curve[-1].metrics if curve else {})}
    parts = {"trial": number, "epoch": epochs, "pruned": pruned, "curve": curve, "metrics": metrics}
    status = "finished" if epochs == EPOCHS else "running"
    return Record(**{**parts, "status": status, **changes})  # type: ignore[arg-type]


UNPRUNED = trial(0, 1.0, baseline="unpruned")


def finished(count: int) -> list[Record]:
    shares = np.random.default_rng(0).uniform(0.2, 0.9, count)
    return [trial(number, share) for number, share in enumerate(shares, 1)]


def test_residuals_are_those_of_the_trials_left_out_one_by_one() -> None:
    """Leaving out by hand, with the features scaled as they were with all."""
    generator = np.random.default_rng(0)
    features, figures = generator.normal(size=(14, 3)), generator.normal(size=14)
    ridge = Ridge.fitted(features, figures)
    known = (features - features.mean(axis=0)) / features.std(axis=0)
    by_hand = {}
    for penalty in (0.1, 1.0, 10.0, 100.0):
        left_out = []
        for row in range(14):
            x, y = np.delete(known, row, axis=0), np.delete(figures, row)
            middle = x.mean(axis=0)
            inverse = np.linalg.inv((x - middle).T @ (x - middle) + penalty * np.eye(3))
            coefficients = inverse @ (x - middle).T @ (y - y.mean())
            off = figures[row] - y.mean() - (known[row] - middle) @ coefficients
            leverage = 1 / 13 + (known[row] - middle) @ inverse @ (known[row] - middle)
            left_out.append((off, off / math.sqrt(1 + leverage)))
        by_hand[sum(off**2 for off, _ in left_out)] = sorted(studentised for _, studentised in left_out)
    assert ridge.residuals == pytest.approx(by_hand[min(by_hand)])


def test_bound_is_kept_as_often_as_its_confidence_says() -> None:
    forecast = Forecast(["top1"], EPOCHS)
    for record in finished(40):
        forecast.know(record)
    others = [trial(1000 + number, share) for number, share in enumerate(np.linspace(0.2, 0.9, 400))]
    for epoch in (0, 1, 3):
        bounds = [forecast.best(other.as_of(epoch), 0.9)["top1"] for other in others]
        kept = np.mean([other.metrics["top1"] <= bound for other, bound in zip(others, bounds, strict=True)])
        assert 0.82 <= kept <= 0.98
    off = [forecast.expected(other.as_of(3))["top1"] - other.metrics["top1"] for other in others]
    assert np.abs(off).mean() < 1.5


def test_nothing_is_predicted_before_three_trials_of_the_search_have_finished_nor_before_ten_right_after_pruning() -> (
    None
):
    forecast = Forecast(["top1", "latency_ratio"], EPOCHS)
    known = finished(10)
    repeat = trial(40, 0.5, same_as=3)
    for record in (*known[:2], UNPRUNED, repeat, trial(41, 0.5, epochs=2), trial(42, 0.5, status="failed")):
        forecast.know(record)
    assert forecast.expected(known[9].as_of(1)) == {}
    forecast.know(known[2])
    assert list(forecast.expected(trial(50, 0.5, epochs=1))) == ["top1"]
    assert list(forecast.best(trial(50, 0.5, epochs=1), 0.9)) == ["top1"]
    assert forecast.expected(trial(50, 0.5, epochs=0)) == {}
    for record in known[3:]:
        forecast.know(record)
    assert list(forecast.best(trial(50, 0.5, epochs=0), 0.9)) == ["top1"]
    assert forecast.best(trial(50, 0.5, epochs=0), 0.95) == {}  # which takes 19
    assert list(forecast.best(trial(50, 0.5, epochs=1), 0.95)) == ["top1"]  # by what is believed
    assert forecast.expected(trial(50, 0.5, epochs=1, pruned={"top1": 9.0})) == {}  # its size is not known


def test_line_is_where_its_beliefs_and_the_trials_put_it() -> None:
    """The least squares of trials and beliefs together, solved as one system, and an interval of Student's t."""
    now, figures, best, to_come = np.array([60.0, 70.0, 75.0]), np.array([80.0, 84.0, 88.0]), 90.0, 0.75
    features = np.column_stack([now, np.full(3, 13.0)])
    line = LossLine.fitted(features, figures, best, to_come)
    near = 0.4 * np.median([30, 20, 15, 10, 6, 2])
    x, y, noise = np.log(best - now + near), np.log(best - figures + near), 0.3 * to_come
    rows = np.vstack([np.column_stack([np.ones(3), x - x.mean()]), [0, noise / 0.3]])
    found, *_ = np.linalg.lstsq(rows, np.append(y, noise / 0.3), rcond=None)
    place = np.array([1.0, math.log(25 + near) - x.mean()])
    assert line.expected(np.array([65.0, 13.0])) == pytest.approx(90 + near - math.exp(place @ found))
    variance = (((y - rows[:3] @ found) ** 2).sum() + 4 * noise**2) / 7
    deviation = math.sqrt(variance * (1 + place @ np.linalg.inv(rows.T @ rows) @ place))
    least = place @ found - student.ppf(0.9, 6) * deviation
    assert line.most(np.array([65.0, 13.0]), 0.9) == pytest.approx(90 + near - math.exp(least))


def test_bound_by_few_trials_is_kept_by_the_recorded_networks() -> None:
    """Of ResNet-20: three to nine have finished, others are asked after 1, 4 and 8 epochs."""
    table = replay.Table.read()
    kept = []
    for draw, count in itertools.product(range(6), (3, 5, 9)):
        order = np.random.default_rng(draw).permutation(len(table.plans)).tolist()
        forecast = Forecast(["top1"], replay.recorded.EPOCHS)
        for one in (
            *table.baselines,
            *(table.at(table.plans[place], place, replay.recorded.EPOCHS) for place in order[:count]),
        ):
            forecast.know(one)
        for place, epoch in itertools.product(order[count : count + 12], (1, 4, 8)):
            bound = forecast.best(table.at(table.plans[place], place, epoch), 0.9)["top1"]
            kept.append(table.plans[place]["top1"][-1] <= bound)
    assert np.mean(kept) >= 0.9


@pytest.mark.parametrize(
    ("epochs", "after"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2]), (12, [0, 1, 2, 4]), (16, [0, 1, 2, 4, 8])]
)
def test_trial_is_judged_up_to_half_of_its_epochs(epochs: int, after: list[int]) -> None:
    assert Outlook(parse("maximise top1"), epochs).judged_after == after


def test_all_judgements_of_a_trial_together_keep_the_confidence() -> None:
    """Of the recorded networks, at most a tenth ends above any of its bounds; judged after each epoch, many would."""
    table = replay.Table.read()
    above: dict[str, list[bool]] = {"judged": [], "after each epoch": []}
    for draw, count in itertools.product(range(3), (6, 12, 25, 50)):
        order = np.random.default_rng(draw).permutation(len(table.plans)).tolist()
        outlook = Outlook(parse(replay.FASTEST.format(4)), replay.recorded.EPOCHS, table.baselines)
        for place in order[:count]:
            outlook.know(table.at(table.plans[place], place, replay.recorded.EPOCHS))
        each = 1 - 0.1 / len(outlook.judged_after)
        for plan in (table.plans[place] for place in order[count : count + 20]):
            known, end = [table.at(plan, 999, epoch) for epoch in range(replay.recorded.EPOCHS)], plan["top1"][-1]
            judged = [outlook.forecast.best(known[epoch], each) for epoch in outlook.judged_after]
            above["judged"].append(any(best["top1"] < end for best in judged if best))
            judged = [outlook.forecast.best(one, 0.9) for one in known]
            above["after each epoch"].append(any(best["top1"] < end for best in judged if best))
    assert np.mean(above["judged"]) <= 0.1
    assert np.mean(above["after each epoch"]) > 0.2


def test_no_figure_is_bounded_by_one_that_no_network_can_have() -> None:
    forecast = Forecast(["top1"], EPOCHS)
    for record in [trial(0, 1.0, baseline="unpruned", metrics={"top1": 99.0}), *finished(3)]:
        forecast.know(record)
    curve = [EpochEntry(epoch=1, lr=0.1, train_loss=1.0, seconds=1.0, metrics={"top1": 99.0})]
    assert forecast.best(trial(50, 0.9, epochs=1, curve=curve), 0.9) == {"top1": 100.0}


def test_trial_unlike_all_others_gets_a_wider_interval() -> None:
    forecast = Forecast(["top1"], EPOCHS)
    for record in finished(30):
        forecast.know(record)

    def width(one: Record) -> float:
        return forecast.best(one, 0.9)["top1"] - forecast.expected(one)["top1"]

    assert width(trial(50, 0.001, epochs=0)) > 2 * width(trial(50, 0.5, epochs=0))


def test_trial_is_paused_that_is_predicted_to_break_a_condition_and_the_reason_is_told() -> None:
    known = [UNPRUNED, *finished(20)]
    outlook = Outlook(parse("minimise latency_ratio where top1 >= 90"), EPOCHS, known)
    why = outlook.why_not(trial(50, 0.2, epochs=2), 0.9)
    assert why is not None
    bound = outlook.forecast.best(trial(50, 0.2, epochs=2), 1 - 0.1 / 3)["top1"]  # a judgement's part of it
    assert why.startswith(f"predicted: top1 at most {bound:.4g} at its end")
    assert why.endswith(
        " at its end, with 90 % confidence in 3 judgements, by 20 finished trials, but top1 >= 90 must hold"
    )
    both = Outlook(parse("minimise latency_ratio where top1 >= 90 and top5 >= 90"), EPOCHS, known)
    bound = both.forecast.best(trial(50, 0.2, epochs=2), 1 - 0.1 / 6)["top1"]  # two bounds a judgement
    assert (both.why_not(trial(50, 0.2, epochs=2), 0.9) or "").startswith(f"predicted: top1 at most {bound:.4g} at")
    assert outlook.why_not(trial(50, 0.9, epochs=2), 0.9) is None
    assert outlook.why_not(trial(50, 0.2, epochs=2, baseline="half"), 0.9) is None
    assert outlook.why_not(trial(50, 0.2, epochs=3), 0.9) is None  # more than half of it is done
    assert outlook.why_not(trial(50, 0.2), 0.9) is None  # it is at its end, and known
    ended = [trial(number, 0.5, epochs=1, status="finished") for number in range(1, 30)]
    once = Outlook(outlook.objective, 1, [UNPRUNED, *ended])
    assert " with 90 % confidence in 1 judgement, by " in (once.why_not(trial(50, 0.2, epochs=0), 0.9) or "")
    few = Outlook(outlook.objective, EPOCHS, [UNPRUNED, *finished(3)])
    assert " by 3 finished trials, but top1 >= 90 must hold" in (few.why_not(trial(50, 0.01, epochs=2), 0.9) or "")
    assert Outlook(outlook.objective, EPOCHS, finished(2)).why_not(trial(50, 0.01, epochs=2), 0.9) is None


@pytest.mark.parametrize("target", ["minimise latency_ratio where top1 <= 50", "minimise top1"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_no_trial_is_paused_for_the_best_figure_that_it_may_have_where_a_worse_one_is_asked_for(
    target: str, share: float
) -> None:
    outlook = Outlook(parse(target), EPOCHS, [UNPRUNED, *finished(20)])
    assert outlook.why_not(trial(50, share, epochs=2), 0.9) is None


@pytest.mark.parametrize(
    ("target", "hopeless", "hopeful", "why"),
    [
        ("maximise top1 where latency_ratio <= 0.95", 0.4, 0.93, "trial_0099 has top1 "),
        ("minimise loss", 0.4, 0.4, None),  # which these trials do not have
        ("minimise latency_ratio", 0.4, 0.4, None),  # accuracy has no part in it
        ("0.2 * latency_ratio + 0.8 * top1", 0.25, 0.7, "has score "),
        ("front of latency_ratio and top1", 0.92, 0.4, "is better in latency_ratio and top1"),
    ],
)
def test_trial_is_paused_that_is_predicted_to_be_no_better_than_the_best_or_the_front(
    target: str, hopeless: float, hopeful: float, why: str | None
) -> None:
    """One is known that is faster and better than others of its size."""
    star = trial(99, 0.9)
    known = [UNPRUNED, *finished(20), star]
    outlook = Outlook(parse(target), EPOCHS, known)
    worse = trial(50, hopeless, epochs=2)
    if target.startswith("front"):  # on which its curve alone is worse
        low = trial(50, 0.5, epochs=2)
        worse = Record(
            **{**vars(worse), "pruned": low.pruned, "curve": low.curve, "metrics": {**worse.metrics, "top1": 80.0}}
        )
    said = outlook.why_not(worse, 0.9)
    assert (said is None) if why is None else (said is not None and why in said)
    assert outlook.why_not(trial(51, hopeful, epochs=2), 0.9) is None
