"""A structure of one's own: every second filter goes first, whatever its weights are."""

from collections.abc import Sequence

from edge_tune.networks.structures import Filters


class EverySecond(Filters):
    """Filters 1, 3, 5, ... go first, then 0, 2, 4, ..."""

    def removed(self, scores: Sequence[float], count: int) -> Sequence[int]:
        """Return the first `count` places in that order."""
        places = range(len(scores))
        return [*places[1::2], *places[::2]][:count]
