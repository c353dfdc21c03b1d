"""What suggests points: one file for each method, behind one protocol (protocol.py). Which there are, by name."""

from edge_tune.errors import ExperimentError, first_line
from edge_tune.experiment import METHODS, Experiment
from edge_tune.imports import import_callable
from edge_tune.search.suggesters.grid import Grid
from edge_tune.search.suggesters.protocol import MakesSuggester, Suggester
from edge_tune.search.suggesters.random_points import RandomPoints
from edge_tune.search.suggesters.tpe import Tpe

KNOWN: dict[str, MakesSuggester] = dict(zip(METHODS, (Tpe, RandomPoints, Grid), strict=True))


def make(experiment: Experiment) -> Suggester:
    """Return what suggests the points of an experiment's search.

    Raises:
        ExperimentError: It is one of the experiment's own, and cannot be imported or made.
    """
    search = experiment.search
    if search.method in KNOWN:
        return KNOWN[search.method](experiment.parameters, seed=search.seed, trials=search.trials)
    own = import_callable(search.method, "search method", "name a class, or the function that returns the sampler")
    try:
        suggester = own(experiment.parameters, seed=search.seed, trials=search.trials)
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
