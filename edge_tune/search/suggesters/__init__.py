"""What suggests points: one file for each method, behind one protocol (protocol.py). Which there are, by name."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from edge_tune.errors import ExperimentError, first_line
from edge_tune.experiment import METHODS, Experiment
from edge_tune.imports import import_callable
from edge_tune.parameters import Point
from edge_tune.records.results import Planned
from edge_tune.records.scoring import Scorer
from edge_tune.search.suggesters.grid import Grid
from edge_tune.search.suggesters.latency_aware import LatencyAware
from edge_tune.search.suggesters.protocol import MakesSuggester, MakesSuggesterOfProblem, Problem, Suggester
from edge_tune.search.suggesters.random_points import RandomPoints
from edge_tune.search.suggesters.tpe import Tpe

KNOWN: Mapping[str, MakesSuggester | MakesSuggesterOfProblem] = dict(
    zip(METHODS, (Tpe, RandomPoints, Grid, LatencyAware), strict=True)
)


def make(experiment: Experiment, problem: Problem | None = None) -> Suggester:
    """Return what suggests the points of an experiment's search.

    Args:
        problem: What the method may ask for; None: nobody knows its network yet.

    Raises:
        ExperimentError: It is one of the experiment's own, and cannot be imported or made.
    """
    search = experiment.search
    settings: dict[str, Any] = {"seed": search.seed, "trials": experiment.planned_trials}
    problem = problem or unplanned(experiment)
    if search.method in KNOWN:
        known: Callable[..., Suggester] = KNOWN[search.method]
        return known(experiment.parameters, **settings, **_asked(known, problem))
    own = import_callable(search.method, "search method", "name a class, or the function that returns the sampler")
    try:
        suggester = own(experiment.parameters, **settings, **_asked(own, problem))
    except (Exception, SystemExit) as error:
        raise ExperimentError(
            f"search method {search.method!r}: must take (parameters, seed=..., trials=...) and return a sampler, but "
            f"raised {type(error).__name__}: {first_line(error)}; mend it."
        ) from error
    if not isinstance(suggester, Suggester):
        raise ExperimentError(
            f"search method {search.method!r}: must return a sampler with suggest(), tell(point, outcome) and "
            f"is_exhaustive, but got {suggester!r}; mend it (edge_tune.search.suggesters.protocol has the protocol)."
        )
    return suggester


def unplanned(experiment: Experiment) -> Problem:
    """Return what is known of a problem before its network is: each point is a network of its own."""

    def plan(point: Point) -> Planned:
        return Planned(json.dumps(dict(point), sort_keys=True), ())

    return Problem(
        experiment=experiment,
        scorer=Scorer(experiment.objective),
        plan=plan,
        shape=lambda: None,
        importances=lambda *_: {},
    )


def _asked(method: Callable[..., Any], problem: Problem) -> dict[str, Problem]:
    """Return the problem as an argument, if the method takes one so named."""
    try:
        names = inspect.signature(method).parameters
    except ValueError:  # of a class in C
        return {}
    return {"problem": problem} if "problem" in names else {}
