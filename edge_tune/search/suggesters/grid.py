"""Grid: every point once, in an order that the seed decides."""

from collections.abc import Mapping

from edge_tune.parameters import Parameter, Point
from edge_tune.search.points import count_points, grid_point, in_drawn_order
from edge_tune.search.suggesters.protocol import Outcome


class Grid:
    """The product of all values of all parameters, each of which has values that can be counted."""

    is_exhaustive = True
    learns = False

    def __init__(self, parameters: Mapping[str, Parameter], *, seed: int, trials: int) -> None:
        size = count_points(parameters)
        assert size is not None  # the experiment was checked
        self.parameters = parameters
        self.order = in_drawn_order(size, seed)
        self.drawn: list[int] = []
        self.told: set[int] = set()

    def suggest(self) -> Point | None:
        """Return the next point; None after the last."""
        while len(self.drawn) <= len(self.told):
            if (number := next(self.order, None)) is None:
                return None
            self.drawn.append(number)
        return grid_point(self.parameters, self.drawn[len(self.told)])

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Count a trial; what came of it does not matter."""
        if not outcome.is_baseline:
            self.told.add(outcome.trial)
