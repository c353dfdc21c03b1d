"""Random: every point as likely as any other, whatever came of the others."""

from collections.abc import Mapping

from hyperopt import Trials, rand

from edge_tune.parameters import Parameter, Point
from edge_tune.search.suggesters.in_hyperopt import Space
from edge_tune.search.suggesters.protocol import Outcome


class RandomPoints:
    """HyperOpt's random search."""

    is_exhaustive = False
    learns = False

    def __init__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int) -> None:
        self.space = Space(parameters, seed)
        self.told: set[int] = set()

    def suggest(self) -> Point | None:
        """Return a point; there is always another."""
        (document,) = rand.suggest([0], self.space.domain, Trials(), self.space.seed(len(self.told)))
        return self.space.point(document)

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Count a trial; what came of it does not matter."""
        if not outcome.is_baseline:
            self.told.add(outcome.trial)
