"""What a study found besides its best: the fastest networks within some points, and when it found the best."""

from collections.abc import Sequence

from edge_tune.metrics import RATIO_OF, RATIOS
from edge_tune.objective import FrontOf, Objective
from edge_tune.records.choosing import Ranking
from edge_tune.records.ranking import eligible, last_measurement
from edge_tune.records.results import Record

WITHIN = (1, 2, 5)
"""Points of validation top1 below the unpruned network within which the fastest is of interest."""

LONG = 10
"""Fewer trials are no search of which it says anything that the best came early."""


def fastest_within(
    objective: Objective, unpruned: Record, trials: Sequence[Record], chosen: Record | None = None
) -> dict[str, Record]:
    """Return "1 point", "2 and 5 points" -> the fastest trial within so many points of the unpruned network.

    Fast is by the ratio of the latency that the objective speaks of; there are none if it speaks of no latency, and
    none within points that no trial keeps that is faster than the unpruned network beyond its interval. Of equally fast
    ones, the most accurate counts; and the chosen, if its interval does not tell it from the fastest.
    """
    ratio = next((RATIO_OF.get(name, name) for name in objective.metrics if name in (*RATIO_OF, *RATIOS)), None)
    if ratio is None or "top1" not in unpruned.metrics:
        return {}
    able = sorted(
        (
            record
            for record in eligible(trials)
            if {ratio, "top1"} <= record.metrics.keys() and _reach(record, ratio)[1] < 1
        ),
        key=lambda record: (record.metrics[ratio], -record.metrics["top1"], record.trial),
    )
    within: dict[int, list[int]] = {}
    records = {record.trial: record for record in able}
    for points in WITHIN:
        kept = [record for record in able if record.metrics["top1"] >= unpruned.metrics["top1"] - points]
        rivals = [one for one in kept if chosen and one.trial == chosen.trial]
        rivals = [one for one in rivals if _reach(kept[0], ratio)[1] >= _reach(one, ratio)[0]]
        for fastest in (rivals or kept)[:1]:
            within.setdefault(fastest.trial, []).append(points)
    return {_points(points): records[trial] for trial, points in within.items()}


def _reach(record: Record, ratio: str) -> tuple[float, float]:
    """Return the ends of a ratio's interval; of one that follows from a formula, itself twice."""
    if interval := last_measurement(record).intervals.get(ratio):
        return interval.low, interval.high
    return float(record.metrics[ratio]), float(record.metrics[ratio])


def _points(points: Sequence[int]) -> str:
    *others, last = map(str, points)
    return f"{', '.join(others)} and {last} points" if others else f"{last} point{'' if last == '1' else 's'}"


def settled_line(ranking: Ranking, trials: Sequence[Record]) -> str | None:
    """Return a sentence on how early the best came, where at least half of the trials that ended came after it."""
    best = ranking.best
    own = [record for record in trials if record.same_as is None and record.ended_at]
    if best is None or isinstance(ranking.objective.goal, FrontOf) or len(own) < LONG:
        return None
    order = sorted(own, key=lambda record: (record.ended_at, record.trial))
    place = next((nth for nth, record in enumerate(order, 1) if record.trial == best.trial), len(order))
    if 2 * place > len(order):
        return None
    return (
        f"The best came as trial {place} of the {len(order)} that ended; none of the {len(order) - place} after it "
        f"took its place."
    )
