"""A sampler of one's own: Halton's sequence fills the space evenly."""

from collections.abc import Mapping

from scipy.stats import qmc

from edge_tune.parameters import Parameter, Point
from edge_tune.search.suggesters.protocol import Outcome


class Halton:
    """Point n of the sequence comes after n trials; what came of them does not matter."""

    is_exhaustive = False

    def __init__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int) -> None:
        self.parameters, self.seed = parameters, seed
        self.told: set[int] = set()

    def suggest(self) -> Point | None:
        """Return the next point."""
        sequence = qmc.Halton(len(self.parameters), rng=self.seed)
        sequence.fast_forward(len(self.told))
        return {
            name: _at(parameter, share)
            for (name, parameter), share in zip(self.parameters.items(), sequence.random(1)[0].tolist(), strict=True)
        }

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Count a trial."""
        if not outcome.is_baseline:
            self.told.add(outcome.trial)


def _at(parameter: Parameter, share: float) -> float | int | str:
    if parameter.values is not None:
        return parameter.values[int(share * len(parameter.values))]
    low, high = parameter.limits or (0.0, 0.0)
    return low + share * (high - low)
