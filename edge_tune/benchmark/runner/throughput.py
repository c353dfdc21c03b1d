"""How many images a second a device gets through when it is kept full."""

from typing import Any, Dict

from clocks import StageClock
from repetition import WARM_UP_RUNS, Alive, Repetition
from runtime import Network

WARM_UP_S = 0.3  # at least, before anything counts
STREAM_S = 0.2  # at least


def take_throughput(
    network: Network, alive: Alive, runs: int, most_warm_up_s: float, most_s: float, clock: StageClock
) -> Dict[str, Any]:
    """Return how many images a network took in how many seconds, after a warm-up, and the settings as read back."""
    repetition = Repetition(network, alive)
    warm_up_images = repetition.stream(WARM_UP_RUNS, WARM_UP_S, most_warm_up_s)
    clock.book("warm_up")
    images = repetition.stream(runs, STREAM_S, most_s)
    seconds = clock.book("throughput")
    return dict(network.used(), images=images, seconds=seconds, warm_up_images=warm_up_images)
