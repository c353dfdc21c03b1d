"""A network that runs again and again."""

import time
from typing import Any, Callable, Iterator, Tuple

import numpy as np

from clocks import Allowance
from runtime import Network

WARM_UP_RUNS = 20  # at least, of each compiled network

Alive = Callable[[], None]


class Repetition:
    """A network that is given the same image again and again, and how often it was."""

    def __init__(self, network: Network, alive: Alive, clock: Callable[[], float] = time.perf_counter) -> None:
        self.network = network
        self.clock = clock
        self.count = 0
        self.fastest_ms = float("inf")
        self._image = np.random.RandomState(0).standard_normal(network.shape).astype(np.float32)
        self._alive = alive

    def answer(self, image: Any) -> Any:
        """Return the output for this image instead."""
        start = time.perf_counter()
        output = self.network.infer(image)
        self._count((time.perf_counter() - start) * 1e3)
        return output

    def run(self) -> Tuple[float, float]:
        """Infer once, synchronously, and return the milliseconds from end to end: by the clock, and on the wall."""
        began, start = self.clock(), time.perf_counter()
        self.network.infer(self._image)
        end, ended = time.perf_counter(), self.clock()
        wall_ms = (end - start) * 1e3
        self._count(wall_ms)
        return min((ended - began) * 1e3, wall_ms), wall_ms

    def _count(self, wall_ms: float) -> None:
        self.count += 1
        self.fastest_ms = min(self.fastest_ms, wall_ms)
        self._alive()

    def stream(self, runs: int, seconds: float, most_s: float) -> int:
        """Infer with the device kept full, `runs` times and on until `seconds` have passed; return how often.

        After `most_s` nothing more begins, but for the first.
        """
        first, start, allowed = self.count, time.perf_counter(), Allowance(most_s)

        def is_wanted() -> bool:
            done = self.count - first
            is_due = done < runs or time.perf_counter() < start + seconds
            return not done or (is_due and allowed.has_room_after(done))

        def images() -> Iterator[Any]:
            while is_wanted():
                self.count += 1
                yield self._image
                self._alive()

        self.network.stream(images())
        return self.count - first
