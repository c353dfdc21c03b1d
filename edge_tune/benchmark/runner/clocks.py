"""What time is taken by, and how much of it there is."""

import time
from typing import Callable, Dict

CPUS = ("CPU", "onnxruntime:CPU")


def clock_for(device: str, threads: int) -> Callable[[], float]:
    """Return what runs are timed by.

    Where a single thread of this process computes, that is the processor time which it had: what it waited while others
    had its core is not the network's. On an idle host the two are the same.
    """
    is_fine = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if device in CPUS and threads == 1 and is_fine else time.perf_counter


class Allowance:
    """Seconds that something may take; asked before each further part of it."""

    def __init__(self, seconds: float) -> None:
        self._start = time.perf_counter()
        self._seconds = seconds

    def has_room_for(self, seconds: float) -> bool:
        """Tell whether a part that takes so long can end in time."""
        return time.perf_counter() - self._start + seconds <= self._seconds

    def has_room_after(self, parts: int) -> bool:
        """Tell whether one more can end in time, if it takes as long as these parts did on average."""
        return self.has_room_for((time.perf_counter() - self._start) / parts)


class StageClock:
    """Seconds by stage; a stage that comes twice is summed."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}
        self._last = time.perf_counter()

    def book(self, stage: str) -> float:
        """Book the time since the last call on `stage`, and return it."""
        elapsed = time.perf_counter() - self._last
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed
        self._last += elapsed
        return elapsed
