"""Which stored trial to choose: records are ranked anew by an objective; nothing runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_tune.errors import ExperimentError
from edge_tune.objective import UNPRUNED, FrontOf, Hybrid, Objective
from edge_tune.records.entries import Metrics
from edge_tune.records.ranking import eligible, is_confirmed, pareto_front
from edge_tune.records.results import Record
from edge_tune.records.scoring import Scorer
from edge_tune.wording import counted, listed, verb

NAMED = 12
"""So many networks of a front are named in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What an objective makes of a study.

    Attributes:
        best: The trial to choose, or None. Once trials were measured again for this objective, one of them.
        records: The trials that meet it, best first, those that were measured again before the others; the earlier
            first among equals.
        losses: Trial -> what it was ranked by, for each of `records`; smaller is better.
        eligible: How many trials might have been chosen: finished, better than chance, with the metrics asked for.
        without: Trials that are left out because they lack a metric that was asked for.
        nearest: Where none meets the conditions, the trial that misses them by the smallest shares.
        baselines: Name -> metrics, as the conditions were judged by.
        front: Of `records`, those on the front that the objective asks for, the best in its first metric first; none if
            it asks for something else. The first of `records` is its knee.
    """

    objective: Objective
    best: Record | None
    records: Sequence[Record]
    losses: Mapping[int, float]
    eligible: int
    without: Sequence[Record]
    nearest: Record | None
    baselines: Mapping[str, Metrics]
    front: Sequence[Record] = ()


def rank(objective: Objective, records: Sequence[Record]) -> Ranking:
    """Return the trials among `records` (baselines and trials of one study) in the order of `objective`.

    Raises:
        ExperimentError: It speaks of a baseline that is not there, or of a metric that no trial recorded.
    """
    candidates = eligible(record for record in records if not record.baseline)
    ExperimentError.raise_if(f"objective {objective.text!r}: {problem}" for problem in _problems(objective, records))
    scorer = Scorer(objective, records)
    asked = set(objective.metrics)
    able = [record for record in candidates if asked <= record.metrics.keys()]
    scores = {record.trial: scorer.score(record) for record in able}
    confirmed = [record for record in able if is_confirmed(record, objective)]
    met = sorted(
        (record for record in able if scores[record.trial].rank == 0),
        key=lambda record: (not is_confirmed(record, objective), scores[record.trial], record.trial),
    )
    best = met[0] if met and (is_confirmed(met[0], objective) or not confirmed) else None
    return Ranking(
        objective=objective,
        best=best,
        records=met,
        losses={record.trial: scores[record.trial].loss for record in met},
        eligible=len(able),
        without=[record for record in candidates if not asked <= record.metrics.keys()],
        nearest=None if best else min(confirmed or able, key=lambda record: scores[record.trial], default=None),
        baselines=scorer.baselines,
        front=_front(objective, met),
    )


def _front(objective: Objective, met: Sequence[Record]) -> list[Record]:
    if not isinstance(goal := objective.goal, FrontOf):
        return []
    return sorted(pareto_front(met, goal.goals), key=lambda record: goal.losses(record.metrics))


def ranking_line(ranking: Ranking) -> str:
    """Return what came of an objective: the trial to choose, or which one came nearest."""
    objective = ranking.objective
    if best := ranking.best:
        met = len(ranking.records)
        what = f"{best.name}, {_figures(best, objective)}"
        if ranking.front:
            names = [f"{record.name} ({_figures(record, objective)})" for record in ranking.front]
            what = f"{counted(len(names), 'network')}: {listed(names, NAMED)}. Chosen is the knee, {what}"
        if isinstance(objective.goal, Hybrid):
            what += f", score {ranking.losses[best.trial]:.4g} (unpruned: 0, less is better)"
        what += f"; {met} of {counted(ranking.eligible, 'eligible trial')} {verb(met, 'meets', 'meet')} it."
    elif ranking.nearest:
        missed = [c for c in objective.conditions if c.shortfall(ranking.nearest.metrics, ranking.baselines)]
        judged = "that was measured again" if ranking.records else f"of {ranking.eligible}"
        bounds = [f"{c.metric} {c.sign} {c.bound.value(c.metric, ranking.baselines):.4g}" for c in missed]
        what = (
            f"no trial {judged} meets it; nearest came {ranking.nearest.name}, "
            f"{_figures(ranking.nearest, objective)}, which misses {' and '.join(bounds)}."
        )
    else:
        what = "no trial finished better than chance with these metrics, so there is none to choose."
    if ranking.without:
        number = len(ranking.without)
        lack, are = verb(number, "lacks", "lack"), verb(number, "is", "are")
        what += f" {counted(number, 'trial')} {lack} a metric and {are} left out."
    return f"{objective.text}: {what}"


def _problems(objective: Objective, records: Sequence[Record]) -> Iterator[str]:
    """Yield what the objective asks for and the records do not hold."""
    candidates = eligible(record for record in records if not record.baseline)
    recorded = list(dict.fromkeys(metric for record in candidates for metric in record.metrics))
    for metric in objective.metrics:
        if candidates and metric not in recorded:
            yield f"a metric must be one that the trials recorded, {recorded}, but got {metric!r}."
    baselines = Scorer(objective, records).baselines
    for name, metrics in objective.baselines.items():
        if name not in baselines:
            yield (
                f"a bound must be a number or one of the study's baselines, {list(baselines)}, but got {name!r}"
                f"{'; put spaces around -.' if '-' in name else '.'}"
            )
        elif missing := [metric for metric in metrics if metric not in baselines[name]]:
            yield f"baseline {name!r} must have {' and '.join(missing)} to compare with, but lacks it."
    if isinstance(objective.goal, Hybrid):
        for metric in objective.goal.weights:
            if baselines.get(UNPRUNED, {}).get(metric) == 0:
                yield f"a hybrid divides by the unpruned network's {metric}, which must not be 0, but is."


def _figures(record: Record, objective: Objective) -> str:
    return ", ".join(f"{metric} {record.metrics[metric]:.4g}" for metric in objective.metrics)
