"""Networks that take turns, and what the counters of their layers show meanwhile."""

from typing import List, Tuple

import numpy as np

from clocks import Allowance
from refusals import RefusalError
from repetition import WARM_UP_RUNS, Repetition


class Readings:
    """What the counters of a network showed, and after how many runs."""

    def __init__(self, repetition: Repetition) -> None:
        self._repetition = repetition
        self.layers = [layer[:3] for layer in repetition.network.layers()]
        self.warm_up_runs = 0
        self.counts: List[int] = []
        self.microseconds: List[List[int]] = []

    def read(self) -> None:
        """Keep what the counters show now."""
        layers = self._repetition.network.layers()
        if len(layers) != len(self.layers):
            raise RefusalError(
                "the network must keep its %d layers, but got %d; name the device itself, not AUTO."
                % (len(self.layers), len(layers))
            )
        self.counts.append(self._repetition.count)
        self.microseconds.append([layer[3] for layer in layers])


class Turns:
    """A network, or several that take turns so that what disturbs the host disturbs each of them."""

    def __init__(self, repetitions: List[Repetition], seed: int, warm_up_s: float) -> None:
        """Warm the networks up, each of which has run before.

        Args:
            repetitions: The networks.
            seed: Of whose turn is first.
            warm_up_s: Seconds that the warm-up of all of them may take.
        """
        self._order = np.random.RandomState(seed)
        self._repetitions = repetitions
        self.readings = [self._warmed_up(one, warm_up_s / len(repetitions)) for one in repetitions]

    @staticmethod
    def _warmed_up(repetition: Repetition, seconds: float) -> "Readings":
        """Run the network until it is warm; the counters, read after each run, show of what kind they are."""
        readings = Readings(repetition)
        readings.read()
        allowed = Allowance(seconds)
        while repetition.count < WARM_UP_RUNS and allowed.has_room_for(repetition.fastest_ms / 1e3):
            repetition.run()
            readings.read()
        if not sum(readings.microseconds[-1]):
            raise RefusalError("the device's counters must show some time in the layers, but their sum is 0.")
        readings.warm_up_runs = repetition.count
        return readings

    def round(self, runs: int) -> List[List[Tuple[float, float]]]:
        """Return what `Repetition.run` does for `runs` runs of each network; whose turn is first, is drawn.

        The counters are read at the end of a turn only: it would cost each next run a few per cent.
        """
        taken_ms: List[List[Tuple[float, float]]] = [[] for _ in self._repetitions]
        for index in self._order.permutation(len(self._repetitions)):
            taken_ms[index] = [self._repetitions[index].run() for _ in range(runs)]
            self.readings[index].read()
        return taken_ms
